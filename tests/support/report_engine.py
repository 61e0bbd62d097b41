"""A model for reports that needs no network: its class is the colour that covers most."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from camserve_cli.engines.engine import Answer, ModelDescription, Question
from tests.support.color_resnet import COLOR_VALUES

CELLS = 7


class ColourEngine:
    """Answers as the constructed ResNet50 would, from the whole photo.

    Args:
        classes: labels of the colours of :data:`COLOR_VALUES`, in their order.
        confused: of each class the one that is predicted instead, where it is another.
    """

    batch = 16

    def __init__(self, classes: Sequence[str], confused: dict[int, int] | None = None) -> None:
        self.description = ModelDescription(
            "colours", "1.0", tuple(classes), options=("faithfulness",)
        )
        self.asked = 0
        self._confused = confused or {}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += len(questions)
        return [self._answer(question) for question in questions]

    def close(self) -> None:
        pass

    def _answer(self, question: Question) -> Answer:
        source = (
            question.photo if not isinstance(question.photo, bytes) else BytesIO(question.photo)
        )
        try:
            with Image.open(source) as photo:
                size, pixels = photo.size, np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
        except OSError:
            return {"error": {"code": "unsupported_format", "status": 415, "message": "no photo"}}
        places = self._places(pixels)
        shares = places.mean((1, 2)) + 1e-6
        probabilities = shares / shares.sum()
        best = int(shares.argmax())
        # The scores of the two are exchanged.
        wrong = self._confused.get(best, best)
        probabilities[[best, wrong]] = probabilities[[wrong, best]]
        order = np.argsort(-probabilities)[: question.options.get("top_k", 5)]
        given = question.options.get("target", "top:1")
        targets = given if isinstance(given, list) else [given]
        figures = {
            metric: {"value": 0.5, "random": 0.4, "centre": 0.3}
            for metric in question.options.get("faithfulness", ())
        }
        explained = [
            {
                **self._explanation(places, probabilities, target),
                **({"faithfulness": figures} if figures else {}),
            }
            for target in (targets if question.options.get("explain", True) else [])
        ]
        return {
            "model": {"name": "colours", "version": "1.0"},
            "image": {"width": size[0], "height": size[1], "orientation": 1, "seen": [0, 0, *size]},
            "predictions": [self._prediction(probabilities, int(one)) for one in order],
            "explanations": explained,
        }

    def _places(self, pixels: Any) -> Any:
        """(C, CELLS, CELLS) how much of each colour is in each cell."""
        found = [
            (np.abs(pixels.astype(int) - colour).max(2) < 60).astype(np.float32)
            for colour in list(COLOR_VALUES.values())[: len(self.description.classes)]
        ]
        return np.stack(
            [cv2.resize(one, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for one in found]
        )

    def _prediction(self, probabilities: Any, index: int) -> dict[str, Any]:
        return {
            "class_id": index,
            "label": self.description.classes[index],
            "probability": float(probabilities[index]),
            "score": float(np.log(probabilities[index])),
        }

    def _explanation(self, places: Any, probabilities: Any, target: int | str) -> dict[str, Any]:
        if target == "top:1":
            index = int(np.argmax(probabilities))
        else:
            # Of a contrast "A-B" the map of A alone.
            index = int(str(target).split("-")[0])
        # The heat of a class that is predicted by mistake is that of the colour it is taken for.
        shown = {wrong: right for right, wrong in self._confused.items()}.get(index, index)
        place = places[index] if target != "top:1" else np.maximum(places[index], places[shown])
        heat = place / max(float(place.max()), 1e-6)
        total = float(heat.sum())
        inside = float(heat[1:-1, 1:-1].sum())
        border = 1 - inside / total if total else None
        return {
            **self._prediction(probabilities, index),
            "method": "gradcam",
            "layer": "cells",
            "evidence": total > 0,
            "peak": 1.0,
            "map_statistics": {"border": border, "corners": 0.0 if total else None},
            "map": {"shape": [CELLS, CELLS], "values": heat.ravel().tolist()},
        }
