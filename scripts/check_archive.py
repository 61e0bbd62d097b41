"""Load an archive as a worker would, and explain one picture with it.

    python scripts/check_archive.py model_store/resnet50.mar

It is unpacked and loaded by a Python that sees nothing else of this project, so what is missing
from the archive shows here and not in production. Prints what it found as one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
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
    run = subprocess.run(
        [sys.executable, "-P", __file__, "--unpacked"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory.resolve())},
        capture_output=True,
        text=True,
    )
    if run.returncode != 0:
        raise ArchiveError(run.stderr.strip().splitlines()[-1])
    return dict(json.loads(run.stdout.splitlines()[-1]))


def explain_here() -> dict[str, Any]:
    """What :func:`check` returns, for the archive in the working directory."""
    import numpy as np
    import torch
    import yaml
    from PIL import Image

    from camserve.pipeline import Pipeline
    from camserve.requests import Row
    from camserve.wire import ModelBody

    manifest = json.loads(Path("MAR-INF/MANIFEST.json").read_text())["model"]
    config = yaml.safe_load(Path(manifest["configFile"]).read_text())
    model = ModelBody(name=manifest["modelName"], version=manifest["modelVersion"])
    pipeline = Pipeline.load(config, Path(), model, torch.device("cpu"))

    photo = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(photo, "PNG")
    row = Row({"body": photo.getvalue()}, {}, must_explain=True)
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


def main() -> None:
    match sys.argv[1:]:
        case ["--unpacked"]:
            found = explain_here()
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
