"""What the search for shortcuts asks of the photos and the model."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from camserve.settings import Preprocess
from camserve_cli.engines.engine import Engine, EngineError, Question
from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats, Pixels, Predict, ReadSeen
from camserve_cli.report.photo_frame import as_seen, read_seen


def seen_reader(columns: ReportColumns, folder: Path) -> ReadSeen:
    """Reads what the network saw of a photo; grey where its file is gone."""

    def read(row: int) -> Pixels:
        x0, y0, x1, y1 = columns.input_box[row]
        try:
            return read_seen(folder / columns.photos.paths[row], (x0, y0, x1, y1))
        except Exception:
            # Pillow reads fewer kinds of files than the model, and raises nearly anything.
            return np.full((64, 64, 3), 128, np.uint8)

    return read


def predictor(engine: Engine, preprocess: Preprocess | None) -> Predict:
    """Scores pixels that the network is to see as they are."""
    classes = len(engine.description.classes)
    margin = (0.0, 0.0) if preprocess is not None else _margin(engine)

    def predict(pictures: Sequence[Pixels]) -> Floats:
        logits = np.full((len(pictures), classes), -np.inf)
        for start in range(0, len(pictures), engine.batch):
            batch = pictures[start : start + engine.batch]
            answers = engine.ask(
                [
                    Question(
                        _encode(as_seen(pixels, preprocess, margin), engine),
                        {"explain": False, "top_k": classes},
                    )
                    for pixels in batch
                ]
            )
            for row, answer in enumerate(answers, start):
                if "error" in answer:
                    raise EngineError(answer["error"]["message"])
                for one in answer["predictions"]:
                    logits[row, one["class_id"]] = one["score"]
        return logits

    return predict


_PREDICT = {"explain": False, "top_k": 1}
_PROBE_SIDE = 512


def _margin(engine: Engine) -> tuple[float, float]:
    """What share of a square photo's width and height a model cuts off on each side."""
    grey = np.full((_PROBE_SIDE, _PROBE_SIDE, 3), 128, np.uint8)
    (answer,) = engine.ask([Question(_encode(grey, engine), _PREDICT)])
    if "error" in answer:
        raise EngineError(answer["error"]["message"])
    left, top, _, _ = answer["image"]["seen"]
    return left / _PROBE_SIDE, top / _PROBE_SIDE


def _encode(pixels: Pixels, engine: Engine) -> bytes:
    """A PNG, or the JPEG of least loss for a model that reads no PNG."""
    file, picture = BytesIO(), Image.fromarray(pixels)
    if "PNG" in engine.description.formats:
        # What is sent once is not worth a slow compression.
        picture.save(file, "PNG", compress_level=1)
    else:
        picture.save(file, "JPEG", quality=98, subsampling=0)
    return file.getvalue()
