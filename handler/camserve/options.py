"""The options of a request, and their defaults.

A field's description says what is accepted; the error that rejects a value quotes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.validation import FloatNotBool, FrozenModel, IntNotBool, not_bool

Method = Literal[
    "gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "gradcam_elementwise",
    "eigencam", "eigengradcam",
]  # fmt: skip
FaithfulnessMetric = Literal["drop", "increase", "insertion", "deletion", "road"]
Output = Literal["heatmap", "overlay", "mask", "map", "boxes"]
ImageFormat = Literal["auto", "png", "jpeg", "webp"]
# OpenCV's own names, in lower case.
Colormap = Literal[
    "autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool", "hsv",
    "pink", "hot", "parula", "magma", "inferno", "plasma", "viridis", "cividis", "twilight",
    "twilight_shifted", "turbo", "deepgreen",
]  # fmt: skip

#: The target that means the class with the highest score.
PREDICTED: Final = "predicted"
#: The largest side, in pixels, that a reply's pictures can have.
LONGEST_SIDE: Final = 8192
Size = Literal["model", "original"] | Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
# More than anyone needs; validating a list takes time for each element.
_MAX_LIST_LENGTH: Final = 256
# Longer than any label.
_Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
_Index = Annotated[int, Field(ge=0)]
_Layers = Annotated[tuple[_Text, ...], Field(min_length=1)]
_Metrics = tuple[FaithfulnessMetric, ...]
_Outputs = Annotated[tuple[Output, ...], Field(min_length=1)]
#: A target as a request gives it: an index, a text, or several of these.
RawTarget = int | str | tuple[int | str, ...]


def _choices(literal: Any) -> str:
    return ", ".join(get_args(literal))


def _integer_from_text(value: Any) -> Any:
    """An integer from text: forms, headers and gRPC carry nothing but text."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 20:
        return int(value)
    return not_bool(value)


def _target_from_text(value: Any) -> Any:
    """A number, a text, or a JSON list of these in text."""
    value = _check_length(_json_list(value))
    return value if isinstance(value, list | tuple) else _integer_from_text(value)


def _list_from_text(value: Any) -> Any:
    """A list, or its text form: comma-separated names or a JSON list."""
    value = _json_list(value)
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",", _MAX_LIST_LENGTH)]
    return _check_length(value)


def _list_or_none_from_text(value: Any) -> Any:
    """As :func:`_list_from_text`, and an empty list from text without a name."""
    return [] if isinstance(value, str) and not value.strip() else _list_from_text(value)


def _json_list(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        # Text that is not JSON may be a label that begins with a bracket.
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _check_length(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) > _MAX_LIST_LENGTH:
        raise ValueError(f"a list of more than {_MAX_LIST_LENGTH}")
    return value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _restore_plus(value: Any) -> Any:
    """A query string or form that was not escaped turns each plus of ``gradcam++`` into a space."""
    return value.replace(" ", "+") if isinstance(value, str) else value


class Options(FrozenModel):
    """The options of one request, the same on every transport."""

    target: Annotated[
        _Index
        | _Text
        | Annotated[
            tuple[Annotated[_Index | _Text, BeforeValidator(_integer_from_text)], ...],
            Field(min_length=1),
        ],
        BeforeValidator(_target_from_text),
        Field(
            description=f"a class index, an exact label, '{PREDICTED}', 'top:k', 'A-B' of two "
            "classes, or a list of these"
        ),
    ] = PREDICTED
    top_k: IntNotBool = Field(
        5, ge=1, description="a whole number of predictions, from 1 to the number of classes"
    )
    explain: bool = Field(True, description="true or false")
    method: Annotated[Method, BeforeValidator(_restore_plus)] = Field(
        "gradcam", description=f"one of: {_choices(Method)}"
    )
    layer: Annotated[
        Annotated[_Layers, AfterValidator(_distinct)] | None,
        BeforeValidator(_list_from_text, json_schema_input_type=_Text | _Layers | None),
        Field(description="the name of a layer that this archive serves, or a list of them"),
    ] = None
    outputs: Annotated[
        _Outputs,
        BeforeValidator(_list_from_text, json_schema_input_type=Output | _Outputs),
        AfterValidator(_distinct),
        Field(description=f"a list of one or more of: {_choices(Output)}"),
    ] = ("heatmap", "overlay")
    image_format: ImageFormat = Field("auto", description=f"one of: {_choices(ImageFormat)}")
    size: Annotated[
        Size,
        BeforeValidator(_integer_from_text),
        Field(description=f"model, original, or a longest side of 1 to {LONGEST_SIDE} pixels"),
    ] = "model"
    colormap: Colormap = Field("jet", description=f"one of: {_choices(Colormap)}")
    alpha: FloatNotBool = Field(
        0.3,
        ge=0,
        le=1,
        description="the heatmap's weight over the photo, a number from 0 to 1",
    )
    threshold: FloatNotBool = Field(
        0.5,
        ge=0,
        lt=1,
        description="the heat above which a region is boxed, a number from 0 to below 1",
    )
    faithfulness: Annotated[
        _Metrics,
        BeforeValidator(
            _list_or_none_from_text, json_schema_input_type=FaithfulnessMetric | _Metrics
        ),
        AfterValidator(_distinct),
        Field(description=f"a list of: {_choices(FaithfulnessMetric)}, or [] for none"),
    ] = ()
    explain_when: _Text | None = Field(
        None,
        description="comparisons as 'probability<0.8', 'margin<0.1' or 'class in [281, 282]', "
        "joined by 'and' and 'or'",
    )
    record: bool = Field(False, description="true or false")

    @classmethod
    def is_same(cls, name: str, one: Any, other: Any) -> bool:
        """Whether two values of an option mean the same, as 3 and ``"3"``, or a list and its text.

        Two values that are not accepted, or of something that is no option, are the same if they
        are equal.
        """
        if type(one) is type(other) and one == other:
            return True
        if name not in cls.model_fields:
            return False
        try:
            return bool(cls.model_validate({name: one}) == cls.model_validate({name: other}))
        except ValidationError:
            return False

    def merged_with(self, values: Mapping[str, Any]) -> Options:
        """These options, with a request's own values replacing them.

        Raises:
            RequestError: ``unknown_option`` or ``invalid_option``, naming the option, the value
                and what would be accepted.
        """
        if not values:
            return self
        fields = type(self).model_fields
        for name in values:
            if name not in fields:
                raise RequestError("unknown_option", unknown_name_message("option", name, fields))
        try:
            return type(self).model_validate({**self.model_dump(), **values})
        except ValidationError as failure:
            name = str(failure.errors()[0]["loc"][0])
            raise RequestError(
                "invalid_option",
                f"option {name!r}: {short_repr(values.get(name))} is not accepted; "
                f"accepted: {fields[name].description}",
            ) from None
