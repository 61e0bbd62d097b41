"""Load an archive as a worker would, and explain one picture with it.

    python scripts/check_archive.py model_store/resnet50.mar

It is unpacked and loaded by a Python that sees nothing else of this project, so what is missing
from the archive shows here and not in production. Prints what it found as one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any


class ArchiveError(Exception):
    """An archive does not load, or does not answer."""


def check(directory: Path) -> dict[str, Any]:
    """Load an unpacked archive in a Python of its own and explain one picture.

    Returns:
        ``classes``, their number; ``layers``, those that may be asked for; ``predicted``, a label;
        ``evidence``, whether the map shows any.

    Raises:
        ArchiveError: with the reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Not through stdout, to which an architecture's own code may print.
        result = Path(scratch) / "result.json"
        run = subprocess.run(
            [sys.executable, "-P", __file__, "--unpacked", result],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(directory.resolve())},
            capture_output=True,
            text=True,
            errors="replace",
        )
        outcome = json.loads(result.read_text()) if result.exists() else {}
    if "error" in outcome:
        raise ArchiveError(outcome["error"])
    if not outcome:
        raise ArchiveError(
            f"the archive ends the Python that loads it ({_exit(run.returncode)}); the last that "
            f"it printed: {run.stderr.strip()[-2000:] or 'nothing'}"
        )
    return dict(outcome)


def _exit(status: int) -> str:
    """What an exit status says."""
    with suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"exit status {status}"


def explain_here() -> dict[str, Any]:
    """What :func:`check` returns, for the archive in the working directory."""
    import numpy as np
    import torch
    import yaml
    from PIL import Image

    from camserve.pipeline import Pipeline
    from camserve.protocols.parsing import IncomingRequest
    from camserve.protocols.schema import ModelBody

    manifest = json.loads(Path("MAR-INF/MANIFEST.json").read_text())["model"]
    config = yaml.safe_load(Path(manifest["configFile"]).read_text())
    model = ModelBody(name=manifest["modelName"], version=manifest["modelVersion"])
    pipeline = Pipeline.load(config, Path(), model, torch.device("cpu"))

    photo = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(photo, "PNG")
    row = IncomingRequest({"body": photo.getvalue()}, {}, force_explain=True)
    (answer,) = pipeline.postprocess(pipeline.inference(pipeline.preprocess([row])))
    reply = json.loads(answer.body)
    if "error" in reply:
        raise ArchiveError(reply["error"]["message"])
    explanation = reply["explanations"][0]
    return {
        "classes": len(pipeline.network.labels),
        "layers": list(pipeline.settings.served),
        "predicted": explanation["label"],
        "evidence": explanation["evidence"],
    }


def _write_outcome(result: Path) -> None:
    """Write what :func:`explain_here` finds, or why it fails, as a JSON object to a file."""
    from camserve.errors import SettingsError, describe_exception

    try:
        outcome = explain_here()
    except (ArchiveError, SettingsError) as failure:
        outcome = {"error": str(failure)}
    except (Exception, SystemExit) as failure:
        outcome = {"error": describe_exception(failure)}
    result.write_text(json.dumps(outcome))


def main() -> None:
    match sys.argv[1:]:
        case ["--unpacked", result]:
            _write_outcome(Path(result))
            return
        case [archive]:
            with tempfile.TemporaryDirectory() as scratch:
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(scratch)
                try:
                    found = check(Path(scratch))
                except ArchiveError as error:
                    sys.exit(f"{archive}: {error}")
        case _:
            sys.exit(__doc__)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
