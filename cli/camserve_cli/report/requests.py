"""What is asked about each photo, and what is kept of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from camserve.settings import Preprocess
from camserve_cli.engines.engine import Answer, ModelDescription
from camserve_cli.report.figures.box_figures import box_figures
from camserve_cli.report.photos.boxes import ObjectPlace
from camserve_cli.report.photos.photo_frame import frame_of, relative_input_box

#: How many predictions of a photo are kept.
TOP: Final = 5
#: Up to so many classes, the probability of each is kept: average precision needs them.
MOST_PROBABILITIES: Final = 200
#: Groups of the figures of faithfulness, and how many forward passes each takes for one target.
FAITHFULNESS: Final = (
    (("drop", "increase"), 3),
    (("insertion",), 16),
    (("deletion",), 16),
    (("road",), 24),
)


def map_options(description: ModelDescription) -> dict[str, Any]:
    """The options of every request for maps, whatever an operator has set as the default."""
    options: dict[str, Any] = {"explain": True, "outputs": ["map"], "size": "model"}
    # Each is sent where the model knows it: another refuses the request.
    if "explain_when" in description.options:
        options["explain_when"] = "probability>=0"
    if "faithfulness" in description.options:
        options["faithfulness"] = []
    if "record" in description.options:
        options["record"] = False
    return options


def keeps_probabilities(description: ModelDescription) -> bool:
    """Whether each photo's probability of every label is kept: where they are independent."""
    return description.task != "multiclass" and len(description.classes) <= MOST_PROBABILITIES


@dataclass(frozen=True)
class PhotoRequests:
    """The options of each photo's requests.

    Attributes:
        description: of the model.
        sample: the photos whose faithfulness is measured.
    """

    description: ModelDescription
    sample: frozenset[str]

    def options(self, true: Sequence[int]) -> dict[str, Any]:
        """The options of one photo's request.

        The best class is explained, and the true ones with it: which of them the model misses is
        known once it has answered.

        Args:
            true: the indices of the classes that it shows.
        """
        classes = len(self.description.classes)
        further = min(4, self.description.max_targets - 1)
        targets: list[int | str] = ["top:1", *true[:further]]
        options = map_options(self.description) | {
            "target": targets if len(targets) > 1 else targets[0],
            "top_k": min(classes, TOP),
        }
        if keeps_probabilities(self.description):
            options["top_k"] = classes
        return options

    def faithfulness_options(self, photo: str) -> dict[str, Any] | None:
        """The options of the request for a photo's faithfulness; None where none is measured.

        All figures that the model's limit of forward passes allows.
        """
        if photo not in self.sample:
            return None
        figures, left = list[str](), self.description.forwards
        for names, cost in FAITHFULNESS:
            if cost <= left:
                figures += names
                left -= cost
        if not figures:
            return None
        asked = {"target": "top:1", "top_k": 1, "faithfulness": figures}
        return map_options(self.description) | asked


@dataclass(frozen=True)
class AnswerReader:
    """Makes the line of a photo from its answer.

    Attributes:
        classes: the labels of the model's classes.
        preprocess: the archive's; None where it is not known.
        all_probabilities: whether those of all classes are kept.
    """

    classes: Sequence[str]
    preprocess: Preprocess | None
    all_probabilities: bool = False

    def read(
        self,
        answer: Answer,
        measured: Answer | None,
        true: Sequence[int],
        places: Sequence[ObjectPlace],
    ) -> dict[str, Any]:
        """What is kept of an answer: ``error``, or ``reply`` with what is computed of it.

        Args:
            answer: to the photo.
            measured: to the request for its faithfulness, if there was one.
            true: the indices of the classes that it shows.
            places: of the objects in it.
        """
        if "error" in answer:
            error = answer["error"]
            return {"error": {"code": error["code"], "message": error["message"]}}
        if not answer["explanations"]:
            message = "the server answered without an explanation"
            return {"error": {"code": "not_explained", "message": message}}
        frame = frame_of(answer["image"], self.preprocess)
        explanations = _distinct(answer["explanations"])
        best = explanations[0]
        for one in (measured or {}).get("explanations", ()):
            best["faithfulness"] = one["faithfulness"]
        predictions = answer["predictions"]
        kept: dict[str, Any] = {
            "reply": {**answer, "predictions": predictions[:TOP], "explanations": explanations},
            "input_box": [round(share, 5) for share in relative_input_box(frame)],
        }
        if self.all_probabilities:
            by_class = {one["class_id"]: round(one["probability"], 5) for one in predictions}
            kept["probabilities"] = [by_class[index] for index in sorted(by_class)]
        if places:
            heat = np.asarray(best["map"]["values"]).reshape(best["map"]["shape"])
            figures = box_figures(heat, frame, self._of_class(places, best["class_id"], true))
            if figures is not None:
                kept["boxes"] = figures.to_json()
        return kept

    def _of_class(
        self, places: Sequence[ObjectPlace], predicted: int, true: Sequence[int]
    ) -> Sequence[ObjectPlace]:
        """The objects of the predicted class; without any, those of the true ones, or all."""
        for wanted in ({predicted}, set(true)):
            labels = {self.classes[index].casefold() for index in wanted}
            found = [place for place in places if place.label.casefold() in labels]
            if found:
                return found
        return places


def _distinct(explanations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each class's explanation once, the best one's first, with its map in three decimals."""
    by_class: dict[int, dict[str, Any]] = {}
    for one in explanations:
        values = [round(value, 3) for value in one["map"]["values"]]
        shown = {**one, "map": {**one["map"], "values": values}}
        by_class.setdefault(one["class_id"], shown)
    return list(by_class.values())
