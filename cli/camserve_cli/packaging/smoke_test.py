"""Load the archive in the working directory as a worker would, and explain one picture.

    python -P smoke_test.py RESULT [PHOTO ..]

:mod:`check_archive` runs this file by itself, in a Python that has the archive on its path and
nothing else of this project.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any


class SmokeTestError(Exception):
    """The archive does not answer."""


def smoke_test(photos: Sequence[Path]) -> dict[str, Any]:
    """What :func:`check_archive.check` returns."""
    import numpy as np
    import torch
    import yaml
    from PIL import Image

    import camserve
    from camserve.pipeline import Pipeline
    from camserve.protocols import IncomingRequest, ModelBody

    if not Path(camserve.__file__).is_relative_to(Path.cwd()):
        # An installed one would hide that it is missing where the archive is served.
        raise SmokeTestError("the archive does not hold the package camserve")
    manifest = json.loads(Path("MAR-INF/MANIFEST.json").read_text("utf-8"))["model"]
    config = yaml.safe_load(Path(manifest["configFile"]).read_text("utf-8"))
    model = ModelBody(name=manifest["modelName"], version=manifest["modelVersion"])
    pipeline = Pipeline.load(config, Path(), model, torch.device("cpu"))

    photo = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    # In a format that the archive reads; the names are Pillow's, but for one.
    format = "png" if "png" in pipeline.settings.formats else pipeline.settings.formats[0]
    Image.fromarray(noise).save(photo, {"heic": "heif"}.get(format, format).upper())

    def answer(row: IncomingRequest) -> dict[str, Any]:
        batch = pipeline.preprocess([row])
        (reply,) = pipeline.postprocess(pipeline.inference(batch))
        content: dict[str, Any] = json.loads(reply.body)
        if "error" in content:
            # The message of a server's own failure says no more than that there is one.
            locations = [one.location for record in batch.records for one in record.errors]
            raise SmokeTestError(_failure(content["error"]["message"], locations[0]))
        return content

    row = IncomingRequest({"body": photo.getvalue()}, {}, force_explain=True)
    explanation = answer(row)["explanations"][0]

    def scores(photo: Path) -> list[float]:
        options = json.dumps({"explain": False, "top_k": len(pipeline.network.labels)})
        reply = answer(IncomingRequest({"body": photo.read_bytes()}, {"x-explain": options}))
        by_class = {one["class_id"]: one["score"] for one in reply["predictions"]}
        return [by_class[index] for index in sorted(by_class)]

    return {
        "classes": len(pipeline.network.labels),
        "layers": list(pipeline.settings.served),
        "predicted": explanation["label"],
        "evidence": explanation["evidence"],
        "precision": json.loads(pipeline.describe().body)["model"]["precision"],
        "scores": [scores(photo) for photo in photos],
    }


def _failure(message: str, location: str) -> str:
    """What keeps a picture from being explained.

    Args:
        message: of the error.
        location: the last frames of a traceback and the exception's class; empty where the error is
            not a failure of code.
    """
    if not location:
        return message
    frames = re.findall(r'File "(.+)", line (\d+)', location)
    file, line = frames[-1] if frames else ("", "")
    place = f" ({Path(file).name}, line {line})" if frames else ""
    return (
        f"the network fails on a picture of noise: {location.splitlines()[-1]}{place}; accepted: a "
        "network that takes any picture"
    )


def _write_outcome(result: Path, photos: Sequence[Path]) -> None:
    """Write what :func:`smoke_test` finds, or why it fails, as a JSON object to a file."""
    from camserve.errors import SettingsError, describe_exception

    try:
        outcome = smoke_test(photos)
    except (SmokeTestError, SettingsError) as failure:
        outcome = {"error": str(failure)}
    except BaseException as failure:
        # Code of others may raise what is no Exception; its traceback would tell a person less.
        outcome = {
            "error": f"the archive fails when it is loaded and run: {describe_exception(failure)}; "
            "accepted: an architecture whose code runs without an exception"
        }
    result.write_text(json.dumps(outcome), "utf-8")


if __name__ == "__main__":
    _write_outcome(Path(sys.argv[1]), [Path(photo) for photo in sys.argv[2:]])
