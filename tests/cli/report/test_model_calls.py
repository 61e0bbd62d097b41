"""What the search for shortcuts gets from a model: every class's score, in the order of classes."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camserve_cli.engines.engine import Answer, EngineError, ModelDescription, Question
from camserve_cli.report.model_calls import predictor


class BrightnessEngine:
    """The score of class k is k times the brightness of the photo; the best comes first.

    Args:
        told: how many classes it tells of.
    """

    description = ModelDescription("grey", "1.0", ("a", "b", "c"))
    batch = 2

    def __init__(self, told: int = 3) -> None:
        self.told = told
        self.options: list[dict[str, Any]] = []
        self.batches: list[int] = []

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.options += [dict(question.options) for question in questions]
        self.batches.append(len(questions))
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        assert isinstance(question.photo, bytes)
        value = float(np.asarray(Image.open(BytesIO(question.photo))).mean())
        predictions = [{"class_id": k, "score": k * value} for k in (2, 1, 0)]
        return {"predictions": predictions[: self.told], "image": {"seen": [0, 0, 512, 512]}}

    def close(self) -> None:
        pass


class RefusingEngine(BrightnessEngine):
    """Answers the first photo, which is asked about the margin, and no other."""

    def _answer(self, question: Question) -> Answer:
        if len(self.batches) > 1:
            return {"error": {"code": "overloaded", "message": "too busy"}}
        return super()._answer(question)


def grey(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((8, 8, 3), value, np.uint8)


def test_scores_are_in_the_order_of_classes_and_photos() -> None:
    engine = BrightnessEngine()
    logits = predictor(engine, None)([grey(10), grey(20), grey(30)])
    assert logits.tolist() == [[0, 10, 20], [0, 20, 40], [0, 30, 60]]
    assert engine.batches == [1, 2, 1]
    assert engine.options[-1] == {"explain": False, "top_k": 3}


def test_a_class_that_the_model_does_not_tell_of_has_no_score() -> None:
    logits = predictor(BrightnessEngine(told=1), None)([grey(10)])
    assert logits.tolist() == [[-np.inf, -np.inf, 20]]


def test_no_photos_are_no_scores() -> None:
    assert predictor(BrightnessEngine(), None)([]).shape == (0, 3)


def test_a_photo_that_fails_ends_the_search() -> None:
    with pytest.raises(EngineError, match="too busy"):
        predictor(RefusingEngine(), None)([grey(10)])
