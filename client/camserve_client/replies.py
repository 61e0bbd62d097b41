"""A reply as values: what the server predicted, and where it saw it.

The words are those of the server's README. Keys that a later server adds are in ``Reply.raw``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from camserve_client.parsing import Node
from camserve_client.pictures import Map, Picture


@dataclass(frozen=True)
class Model:
    """The model that answered."""

    name: str
    version: str


@dataclass(frozen=True)
class ImageInfo:
    """The photo as the server read it.

    Attributes:
        width, height: in pixels, as the file stores it.
        orientation: its EXIF orientation, 1 to 8: how viewers turn it; 1 is upright already.
        seen: the part that the network saw, as x0, y0, x1, y1 in the file's pixels, x1 and y1
            exclusive.
    """

    width: int
    height: int
    orientation: int
    seen: tuple[float, float, float, float]


@dataclass(frozen=True)
class Prediction:
    """A class and how the network sees it.

    Attributes:
        class_id: its index.
        label: its name.
        probability: softmax over all classes, in [0, 1].
        score: the logit.
    """

    class_id: int
    label: str
    probability: float
    score: float


@dataclass(frozen=True)
class Box:
    """A hot region.

    Attributes:
        box: x0, y0, x1, y1 in the pixels of the photo's file.
        share: of all heat, in [0, 1].
    """

    box: tuple[float, float, float, float]
    share: float


@dataclass(frozen=True)
class Explanation:
    """Where the network saw one class.

    Attributes:
        class_id, label, probability, score: as in :class:`Prediction`.
        method: how the map was made.
        layer: whose activations carry it; several where several were asked for.
        evidence: false where the map is zero everywhere.
        peak: the map's maximum before it was normalised; of several layers, one for all or for
            each.
        against: the class that this one was told from, for a target ``A-B``.
        heatmap, overlay, mask, map, boxes: the outputs that were asked for.
    """

    class_id: int
    label: str
    probability: float
    score: float
    method: str
    layer: str | tuple[str, ...]
    evidence: bool
    peak: float
    against: Prediction | None = None
    heatmap: Picture | None = None
    overlay: Picture | None = None
    mask: Picture | None = None
    map: Map | None = None
    boxes: tuple[Box, ...] | None = None


@dataclass(frozen=True)
class Reply:
    """The answer to one photo.

    Attributes:
        model: that gave it.
        image: the photo as it was read.
        predictions: the best first.
        explanations: in the order of the targets; none where none was asked for.
        raw: the JSON that all this was read from.
    """

    model: Model
    image: ImageInfo
    predictions: tuple[Prediction, ...]
    explanations: tuple[Explanation, ...]
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: Any) -> Reply:
        """Read a reply's JSON.

        Raises:
            ReplyError: it is not as agreed; the message names the place.
        """
        node = Node(value, "reply")
        model = node.get("model")
        return cls(
            Model(model.get("name").text(), model.get("version").text()),
            _image(node.get("image")),
            tuple(_prediction(item) for item in node.get("predictions").items()),
            tuple(_explanation(item) for item in node.get("explanations").items()),
            node.object(),
        )


def _image(node: Node) -> ImageInfo:
    orientation = node.find("orientation")
    return ImageInfo(
        node.get("width").whole(1),
        node.get("height").whole(1),
        orientation.whole(1) if orientation else 1,
        _corners(node.get("seen")),
    )


def _prediction(node: Node) -> Prediction:
    return Prediction(
        node.get("class_id").whole(),
        node.get("label").text(),
        node.get("probability").number(),
        node.get("score").number(),
    )


def _explanation(node: Node) -> Explanation:
    seen = _prediction(node)
    against, heatmap, overlay, mask, map, boxes = (
        node.find(key) for key in ("against", "heatmap", "overlay", "mask", "map", "boxes")
    )
    return Explanation(
        seen.class_id,
        seen.label,
        seen.probability,
        seen.score,
        node.get("method").text(),
        _layer(node.get("layer")),
        node.get("evidence").flag(),
        node.get("peak").number(),
        against=_prediction(against) if against else None,
        heatmap=Picture.from_json(heatmap) if heatmap else None,
        overlay=Picture.from_json(overlay) if overlay else None,
        mask=Picture.from_json(mask, grey=True) if mask else None,
        map=Map.from_json(map) if map else None,
        boxes=tuple(_box(item) for item in boxes.items()) if boxes else None,
    )


def _layer(node: Node) -> str | tuple[str, ...]:
    """One name, or those of several."""
    if isinstance(node.value, list):
        return tuple(item.text() for item in node.items())
    return node.text()


def _box(node: Node) -> Box:
    return Box(_corners(node.get("box")), node.get("share").number())


def _corners(node: Node) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (edge.number() for edge in node.exactly(4))
    return x0, y0, x1, y1
