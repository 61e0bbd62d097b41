"""The options of a call, by the names that the server knows them by.

The server checks them and names what it accepts. ``None``, and what is left out, is left to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Choices(TypedDict, total=False):
    """What may be chosen beside the photo.

    Keys:
        target: what to explain: a class's index or label, ``predicted``, ``top:k``, ``A-B`` (why A
            rather than B), or several.
        top_k: how many predictions.
        method: how the map is made, ``gradcam`` or another.
        layer: a layer that the model serves, or several, whose maps are averaged.
        outputs: of ``heatmap``, ``overlay``, ``mask``, ``map``, ``boxes``.
        image_format: ``png``, ``jpeg``, ``webp``, or ``auto``: ``jpeg`` for overlays, else ``png``.
        size: what the pictures show: ``model``, the network's input; ``original``, the photo; a
            number, the photo with that longest side.
        colormap: OpenCV's name of it, in lower case.
        alpha: the heatmap's weight in the overlay, in [0, 1].
        threshold: the heat above which a region gets a box, in [0, 1].
    """

    target: int | str | Sequence[int | str] | None
    top_k: int | None
    method: str | None
    layer: str | Sequence[str] | None
    outputs: str | Sequence[str] | None
    image_format: str | None
    size: str | int | None
    colormap: str | None
    alpha: float | None
    threshold: float | None


class Options(Choices, total=False):
    """The options of a call that may explain.

    Keys:
        explain: false for predictions alone.
    """

    explain: bool | None


def as_json(options: Mapping[str, Any]) -> str:
    """The options as a JSON object in ASCII, which a header can carry.

    Raises:
        TypeError: a value that JSON has no form for.
    """
    given = {name: value for name, value in options.items() if value is not None}
    return json.dumps(given, default=_plain)


def _plain(value: Any) -> Any:
    """A numpy scalar or array as Python's own; a class index often comes from ``argmax``."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an option cannot be {type(value).__name__}")
