"""The options of a request: what a caller may ask for, and what stands where the caller is silent.

A field's description is what would be accepted; it stands in the error that refuses a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from camserve.errors import RequestError, shown, unknown
from camserve.values import Number, Values, Whole, not_bool

Method = Literal["gradcam"]
Output = Literal["heatmap", "overlay"]
ImageFormat = Literal["png", "jpeg", "webp"]
Size = Literal["model"]
# OpenCV's own names, in lower case.
Colormap = Literal[
    "autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool", "hsv",
    "pink", "hot", "parula", "magma", "inferno", "plasma", "viridis", "cividis", "twilight",
    "twilight_shifted", "turbo", "deepgreen",
]  # fmt: skip

#: The target that stands for the class with the highest score.
PREDICTED: Final = "predicted"


def _names(literal: Any) -> str:
    return ", ".join(get_args(literal))


def _target(value: Any) -> Any:
    """Text that is a whole number is an index: forms, headers and gRPC carry nothing but text."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        return int(value)
    return not_bool(value)


def _listed(value: Any) -> Any:
    """A list, or its text form: comma-separated names or a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    return [name.strip() for name in value.split(",")]


class Options(Values):
    """The options of one request, whatever transport they came by."""

    target: Annotated[
        Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(min_length=1)],
        BeforeValidator(_target),
        Field(description=f"a class index, an exact label, or '{PREDICTED}'"),
    ] = PREDICTED
    top_k: Whole = Field(
        5, ge=1, description="a whole number of predictions, from 1 to the number of classes"
    )
    explain: bool = Field(True, description="true or false")
    method: Method = Field("gradcam", description=f"one of: {_names(Method)}")
    layer: str | None = Field(
        None, description="the name of the layer that this archive was packaged with"
    )
    outputs: Annotated[tuple[Output, ...], BeforeValidator(_listed)] = Field(
        ("heatmap", "overlay"),
        min_length=1,
        description=f"a list of one or more of: {_names(Output)}",
    )
    image_format: ImageFormat = Field("png", description=f"one of: {_names(ImageFormat)}")
    size: Size = Field("model", description=f"one of: {_names(Size)}")
    colormap: Colormap = Field("jet", description=f"one of: {_names(Colormap)}")
    alpha: Number = Field(
        0.3,
        ge=0,
        le=1,
        description="the heatmap's weight over the photo, a number from 0 to 1",
    )

    def override(self, given: Mapping[str, Any]) -> Options:
        """These options with a request's own values over them.

        Raises:
            RequestError: ``unknown_option`` or ``invalid_option``, naming the option, the value
                and what would be accepted.
        """
        fields = type(self).model_fields
        for name in given:
            if name not in fields:
                raise RequestError("unknown_option", unknown("option", name, fields))
        try:
            return type(self).model_validate({**self.model_dump(), **given})
        except ValidationError as failure:
            name = str(failure.errors()[0]["loc"][0])
            raise RequestError(
                "invalid_option",
                f"option {name!r}: {shown(given.get(name))} is not accepted; "
                f"accepted: {fields[name].description}",
            ) from None
