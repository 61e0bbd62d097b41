"""What can be set: by the operator in model-config.yaml, by a caller as options of a request.

Every value is validated once and immutable afterwards. A field's description is what would be
accepted; it stands in the error that refuses a value.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from camserve.errors import RequestError, SettingsError, shown

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


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
    return value


Whole = Annotated[int, BeforeValidator(_not_bool)]
Number = Annotated[float, BeforeValidator(_not_bool)]
Above0 = Annotated[Number, Field(gt=0)]


def _target(value: Any) -> Any:
    """Text that is a whole number is an index: forms, headers and gRPC carry nothing but text."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        return int(value)
    return _not_bool(value)


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


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Options(_Values):
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
                raise RequestError("unknown_option", _unknown("option", name, fields))
        try:
            return type(self).model_validate({**self.model_dump(), **given})
        except ValidationError as failure:
            name = str(failure.errors()[0]["loc"][0])
            raise RequestError(
                "invalid_option",
                f"option {name!r}: {shown(given.get(name))} is not accepted; "
                f"accepted: {fields[name].description}",
            ) from None


class Preprocess(_Values):
    """How a photo becomes the network's input: the weights' own preset.

    The shorter side is resized to ``resize``, a centred square of ``crop`` is cut out, values are
    scaled to [0, 1] and normalised per channel (R, G, B) with ``mean`` and ``std``.
    """

    resize: Whole = Field(232, ge=1, le=4096, description="the shorter side in pixels, 1 to 4096")
    crop: Whole = Field(224, ge=1, le=4096, description="the side of the centred square, 1 to 4096")
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="bilinear or bicubic"
    )
    mean: tuple[Number, Number, Number] = Field(
        (0.485, 0.456, 0.406), description="three numbers, for R, G and B in [0, 1]"
    )
    std: tuple[Above0, Above0, Above0] = Field(
        (0.229, 0.224, 0.225), description="three numbers above 0, for R, G and B"
    )

    @model_validator(mode="after")
    def _crop_fits(self) -> Preprocess:
        if self.crop > self.resize:
            raise ValueError(f"crop ({self.crop}) must not exceed resize ({self.resize})")
        return self


class Limits(_Values):
    """What a photo may be at most; checked from its header, before it is decoded."""

    pixels: Whole = Field(
        50_000_000, ge=1, le=2**30, description="width x height of a photo, 1 to 1073741824"
    )
    aspect_ratio: Number = Field(
        20.0, ge=1, description="the longer side over the shorter one, at least 1"
    )


class Settings(_Values):
    """The ``handler:`` section of model-config.yaml."""

    arch: str = Field(
        "resnet50", description="the name of a torchvision classifier, or 'module:callable'"
    )
    arch_kwargs: dict[str, Any] = Field(
        {}, description="keyword arguments for the network's constructor"
    )
    weights: str = Field(
        "weights.safetensors", description="the state dict's file name in the archive"
    )
    labels: str = Field("labels.json", description="the labels' file name in the archive")
    layer: str = Field("layer4.2", description="the dotted name of the module to explain")
    preprocess: Preprocess = Field(Preprocess(), description="a section; see its keys")
    limits: Limits = Field(Limits(), description="a section; see its keys")
    defaults: Options = Field(
        Options(), description="a section with the options' values for requests that name none"
    )

    def options(self, given: Mapping[str, Any]) -> Options:
        """The options of a request that names ``given``; the operator's defaults for the rest.

        Raises:
            RequestError: as :meth:`Options.override`.
        """
        options = self.defaults.override({"layer": self.layer, **given})
        if options.layer != self.layer:
            raise RequestError(
                "invalid_option",
                f"option 'layer': {shown(options.layer)} is not served; accepted: {self.layer}",
            )
        return options

    @classmethod
    def from_yaml(cls, config: Mapping[str, Any]) -> Settings:
        """Validate a whole parsed model-config.yaml and return its ``handler:`` section.

        Raises:
            SettingsError: an unknown or wrong key, here or among TorchServe's own; it is named
                with its full path.
        """
        known = {*TORCHSERVE_KEYS, "handler"}
        for key in config:
            if key not in known:
                raise SettingsError(f"model-config.yaml: {_unknown('key', str(key), known)}")
        section = config.get("handler")
        if not isinstance(section, Mapping):
            raise SettingsError(
                f"model-config.yaml: 'handler' must be a section of settings, not {section!r}"
            )
        try:
            settings = cls.model_validate(dict(section))
        except ValidationError as failure:
            raise SettingsError(f"model-config.yaml: {_explain(cls, failure)}") from None
        if settings.defaults.layer not in (None, settings.layer):
            raise SettingsError(
                f"model-config.yaml: handler.defaults.layer: {shown(settings.defaults.layer)} is "
                f"not accepted; accepted: {settings.layer}, as handler.layer has it"
            )
        return settings


#: The keys that TorchServe 0.12 itself reads from model-config.yaml (its ModelConfig class).
TORCHSERVE_KEYS: Final = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "maxRetryTimeoutInSec", "clientTimeoutInMills", "jobQueueSize", "deviceType", "deviceIds",
    "parallelType", "parallelLevel", "torchrun", "useVenv", "useJobTicket", "asyncCommunication",
    "continuousBatching", "sequenceBatching", "sequenceMaxIdleMSec", "sequenceTimeoutMSec",
    "maxNumSequence", "maxSequenceJobQueueSize",
)  # fmt: skip


def _explain(model: type[BaseModel], failure: ValidationError) -> str:
    """The first error of a settings section: its full key, the value and what is accepted."""
    error = failure.errors()[0]
    path, field = ["handler"], None
    section: type[BaseModel] | None = model
    for part in error["loc"]:
        if section is None or not isinstance(part, str):
            break
        path.append(part)
        field = section.model_fields.get(part)
        if field is None:
            break
        inner = field.annotation
        section = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if error["type"] == "extra_forbidden" and section is not None:
        place = ".".join(path[:-1])
        return f"{place}: {_unknown('key', path[-1], section.model_fields)}"
    if field is None or (error["type"] == "value_error" and section is not None):
        return f"{'.'.join(path)}: {error['msg'].removeprefix('Value error, ')}"
    return (
        f"{'.'.join(path)}: {shown(error['input'])} is not accepted; accepted: {field.description}"
    )


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {shown(name)}; {hint}accepted: {', '.join(sorted(known))}"
