"""The options of a call, named as on the server.

The server validates them, and its errors name the accepted values. For an option that is ``None``
or left out, the server uses its default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class PredictOptions(TypedDict, total=False):
    """The options of ``predict``.

    Keys:
        target: the class to explain: an index, a label, ``predicted``, ``top:k``, ``A-B`` (why A
            rather than B), or a list of these.
        top_k: the number of predictions to return.
        method: the CAM method, such as ``gradcam``.
        layer: a layer that the model serves, or a list of layers whose maps are averaged.
        outputs: one or more of ``heatmap``, ``overlay``, ``mask``, ``map``, ``boxes``.
        image_format: ``png``, ``jpeg``, ``webp``, or ``auto``: ``jpeg`` for overlays, else ``png``.
        size: what the pictures show: ``model``, the network's input; ``original``, the photo; a
            number, the photo with that longest side, in pixels.
        colormap: the name of an OpenCV colormap in lower case, such as ``jet``.
        alpha: the weight of the heatmap in the overlay, in [0, 1].
        threshold: the map value above which a region gets a box, in [0, 1].
        faithfulness: one or more of ``drop``, ``increase``, ``insertion``, ``deletion``, ``road``:
            figures of how far the map is true, for which the network runs on masked photos.
        record: true for a provenance record with each explanation.
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
    faithfulness: str | Sequence[str] | None
    record: bool | None


class ExplainOptions(PredictOptions, total=False):
    """The options of ``explain``: those of :class:`PredictOptions`, and ``explain``.

    Keys:
        explain: false for predictions without explanations.
        explain_when: a condition on the prediction, as ``probability<0.8``; where it does not hold,
            ``Reply.not_explained`` says so.

    Example:
        >>> options: ExplainOptions = {"target": ["tabby", 282], "outputs": "overlay"}
        >>> with Client("http://127.0.0.1:8080", "resnet50") as client:
        ...     reply = client.explain("cat.jpg", **options)
    """

    explain: bool | None
    explain_when: str | None


def to_header_json(options: Mapping[str, Any]) -> str:
    """The options as a JSON object in ASCII, which an HTTP header can carry.

    Raises:
        TypeError: an option's value has no JSON form.
    """
    given = {name: value for name, value in options.items() if value is not None}
    return json.dumps(given, default=_from_numpy)


def _from_numpy(value: Any) -> Any:
    """A numpy scalar or array as plain Python; a class index is often the result of ``argmax``."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an option cannot be {type(value).__name__}")
