"""A reply: the predicted classes and their explanations.

Attributes are named as the keys of the server's JSON (``docs/reply.schema.json``). Keys that a
later server adds are in ``Reply.raw``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from camserve_client.json_node import JsonNode
from camserve_client.pictures import Map, Picture


@dataclass(frozen=True)
class Model:
    """The model that answered: its name and version."""

    name: str
    version: str


@dataclass(frozen=True)
class ImageInfo:
    """The photo as the server read it.

    Attributes:
        width, height: in pixels, as the file stores them.
        orientation: the EXIF orientation, 1 to 8, by which viewers rotate it; 1 is upright.
        seen: the part that is the network's input: x0, y0, x1, y1 in the file's pixels, x1 and y1
            exclusive.
        warnings: codes of what is wrong with the file: ``damaged``, ``no_end_marker``,
            ``profile_not_applied``.
        profile: the name of the photo's colour profile; None if it has none.
    """

    width: int
    height: int
    orientation: int
    seen: tuple[float, float, float, float]
    warnings: tuple[str, ...] = ()
    profile: str | None = None


@dataclass(frozen=True)
class Prediction:
    """A class and its score.

    Attributes:
        class_id: the class's index.
        label: the class's name.
        probability: softmax over all classes, in [0, 1].
        score: the logit.
    """

    class_id: int
    label: str
    probability: float
    score: float


@dataclass(frozen=True)
class Region:
    """A region of the photo where the map is above the threshold.

    Attributes:
        box: x0, y0, x1, y1 in the pixels of the photo's file.
        share: the region's share of the sum of the map, in [0, 1].
    """

    box: tuple[float, float, float, float]
    share: float


@dataclass(frozen=True)
class MapStatistics:
    """Figures of a map: how focused it is, and where. None where the map is zero everywhere.

    Attributes:
        entropy: in nats; 0 where one cell of the map has all heat.
        gini: 0 where all cells have the same heat, near 1 where one has all.
        centre: x, y of the heat's centre, in pixels of the photo's file.
        spread: the root mean squared distance of the heat from the centre, in pixels.
        border: the share of heat in the outer seventh, on each side, of what the network saw.
        corners: the share of heat where two sides of that border meet.
        explained: the sum of the map before it was normalised, over the part of the score that the
            layer makes; None where the server cannot say so exactly.
    """

    entropy: float | None
    gini: float | None
    centre: tuple[float, float] | None
    spread: float | None
    border: float | None
    corners: float | None
    explained: float | None


@dataclass(frozen=True)
class Faithfulness:
    """A figure of how far a map is true, beside that of two maps that explain nothing.

    Attributes:
        value: of the map; None if it has no evidence, or the figure is not defined.
        random, centre: of a map of random values, and of one that decreases from the centre.
    """

    value: float | None
    random: float | None
    centre: float | None


@dataclass(frozen=True)
class NotExplained:
    """Why a photo is not explained.

    Attributes:
        condition: that of the option ``explain_when``, which did not hold.
        values: what each of its comparisons judged: a probability, a margin or a class index.
    """

    condition: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Explanation:
    """The explanation of one class: which parts of the photo its score depends on.

    Attributes:
        class_id, label, probability, score: as in :class:`Prediction`.
        method: the CAM method.
        layer: the target layer; a tuple if the call asked for several.
        evidence: false if the map is zero everywhere.
        peak: the map's maximum before it was normalised; for several layers, that of their mean.
        map_statistics: figures of the map; None if the server is older than they are.
        against: class B of a target ``A-B``, which explains why A rather than B.
        faithfulness: by name, the figures that the call asked for.
        record: the provenance record, if the call asked for it: the JSON object that
            ``camserve verify`` reads.
        heatmap, overlay, mask, map, boxes: the outputs that the call asked for; else None.
    """

    class_id: int
    label: str
    probability: float
    score: float
    method: str
    layer: str | tuple[str, ...]
    evidence: bool
    peak: float
    map_statistics: MapStatistics | None = None
    against: Prediction | None = None
    heatmap: Picture | None = None
    overlay: Picture | None = None
    mask: Picture | None = None
    map: Map | None = None
    boxes: tuple[Region, ...] | None = None
    faithfulness: Mapping[str, Faithfulness] = field(default_factory=dict)
    record: dict[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """The reply to one photo.

    Attributes:
        model: the model that answered.
        image: the photo as the server read it.
        predictions: the classes with the highest scores, the highest first.
        explanations: one for each target, in their order; empty if the call asked for none.
        raw: the JSON object that the reply was read from.
        not_explained: why there is no explanation, if the call's condition did not hold.

    Example:
        >>> reply.predictions[0].label
        'tabby'
        >>> for explanation in reply.explanations:
        ...     print(explanation.label, explanation.evidence, explanation.boxes[0].box)
        tabby True (10.0, 20.5, 30.0, 40.0)
    """

    model: Model
    image: ImageInfo
    predictions: tuple[Prediction, ...]
    explanations: tuple[Explanation, ...]
    raw: dict[str, Any] = field(repr=False, compare=False)
    not_explained: NotExplained | None = None

    @classmethod
    def from_json(cls, value: Any) -> Reply:
        """Read a reply's JSON.

        Raises:
            InvalidReplyError: the JSON does not match the schema; the message names the place.
        """
        node = JsonNode(value, "reply")
        model, reason = node.required("model"), node.optional("not_explained")
        return cls(
            Model(model.required("name").string(), model.required("version").string()),
            _image(node.required("image")),
            tuple(_prediction(item) for item in node.required("predictions").items()),
            tuple(_explanation(item) for item in node.required("explanations").items()),
            node.object(),
            _not_explained(reason) if reason else None,
        )


def _image(node: JsonNode) -> ImageInfo:
    orientation, profile = node.optional("orientation"), node.optional("profile")
    warnings = node.optional("warnings")
    return ImageInfo(
        node.required("width").integer(1),
        node.required("height").integer(1),
        orientation.integer(1) if orientation else 1,
        _corners(node.required("seen")),
        tuple(item.string() for item in warnings.items()) if warnings else (),
        profile.string() if profile else None,
    )


def _prediction(node: JsonNode) -> Prediction:
    return Prediction(
        node.required("class_id").integer(),
        node.required("label").string(),
        node.required("probability").number(),
        node.required("score").number(),
    )


def _explanation(node: JsonNode) -> Explanation:
    prediction = _prediction(node)
    statistics, against = node.optional("map_statistics"), node.optional("against")
    figures, record = node.optional("faithfulness"), node.optional("record")
    heatmap, overlay, mask, map, boxes = (
        node.optional(key) for key in ("heatmap", "overlay", "mask", "map", "boxes")
    )
    return Explanation(
        prediction.class_id,
        prediction.label,
        prediction.probability,
        prediction.score,
        node.required("method").string(),
        _layer(node.required("layer")),
        node.required("evidence").boolean(),
        node.required("peak").number(),
        map_statistics=_statistics(statistics) if statistics else None,
        against=_prediction(against) if against else None,
        heatmap=Picture.from_json(heatmap) if heatmap else None,
        overlay=Picture.from_json(overlay) if overlay else None,
        mask=Picture.from_json(mask, grey=True) if mask else None,
        map=Map.from_json(map) if map else None,
        boxes=tuple(_region(item) for item in boxes.items()) if boxes else None,
        faithfulness=_faithfulness(figures) if figures else {},
        record=record.object() if record else None,
    )


def _faithfulness(node: JsonNode) -> dict[str, Faithfulness]:
    return {
        name: Faithfulness(
            *(_optional_number(figure, key) for key in ("value", "random", "centre"))
        )
        for name in node.object()
        for figure in [node.required(name)]
    }


def _not_explained(node: JsonNode) -> NotExplained:
    value = node.required("value")
    several = value.items() if isinstance(value.value, list) else [value]
    return NotExplained(node.required("condition").string(), tuple(one.number() for one in several))


def _optional_number(node: JsonNode, key: str) -> float | None:
    """A number, or None for null."""
    figure = node.required(key)
    return None if figure.value is None else figure.number()


def _statistics(node: JsonNode) -> MapStatistics:
    centre, point = node.required("centre"), None
    if centre.value is not None:
        x, y = (edge.number() for edge in centre.list_of_length(2))
        point = (x, y)
    return MapStatistics(
        _optional_number(node, "entropy"),
        _optional_number(node, "gini"),
        point,
        _optional_number(node, "spread"),
        _optional_number(node, "border"),
        _optional_number(node, "corners"),
        _optional_number(node, "explained"),
    )


def _layer(node: JsonNode) -> str | tuple[str, ...]:
    """The name of one layer, or the names of several."""
    if isinstance(node.value, list):
        return tuple(item.string() for item in node.items())
    return node.string()


def _region(node: JsonNode) -> Region:
    return Region(_corners(node.required("box")), node.required("share").number())


def _corners(node: JsonNode) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (edge.number() for edge in node.list_of_length(4))
    return x0, y0, x1, y1
