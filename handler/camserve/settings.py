"""The operator's settings: the ``handler:`` section of an archive's model-config.yaml.

A field's description says what is accepted; the error that rejects a value quotes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
)

from camserve.errors import RequestError, SettingsError, short_repr, unknown_name_message
from camserve.limit_settings import Limits as Limits  # also imported from here
from camserve.options import Options
from camserve.preprocess_settings import SETTING_ERROR
from camserve.preprocess_settings import Preprocess as Preprocess  # also imported from here
from camserve.validation import FloatNotBool, FrozenModel, IntNotBool


def _lower_case(value: Any) -> Any:
    """Names of formats are usually written in capitals."""
    return value.lower() if isinstance(value, str) else value


def _off_from_yaml(value: Any) -> Any:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


#: The number format of the trunk; ``auto`` is bfloat16 where that is faster and accurate enough.
Precision = Literal["auto", "float32", "bfloat16"]
#: ``auto`` compiles the trunk with OpenVINO, on a CPU.
Compile = Annotated[Literal["auto", "off"], BeforeValidator(_off_from_yaml)]
#: How a layer's output is a grid over the photo: (N, K, h, w), (N, h, w, K), or
#: (N, prefix + h * w, K).
LayoutKind = Literal["grid", "channels_last", "tokens"]
#: ``auto`` measures which; another value asserts that it is that one.
Layout = Literal["auto"] | LayoutKind
#: ``multiclass``: one class of several; ``multilabel``: any number of them, each by itself;
#: ``binary``: one score for yes or no.
Task = Literal["multiclass", "multilabel", "binary"]
#: What the network's scores are.
OutputKind = Literal["logits", "probabilities", "log_probabilities"]
#: Whether photos share a forward pass; ``alone`` for networks whose samples mix.
Batching = Literal["together", "alone"]
#: The formats of photos' files.
PhotoFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "heic", "avif"]
#: What is read where the operator does not say.
DEFAULT_FORMATS: Final[tuple[PhotoFormat, ...]] = ("jpeg", "png", "webp", "gif", "bmp", "tiff")
#: What becomes of a photo whose file is damaged, but shows something.
Damaged = Literal["tell", "refuse"]
Sha256 = Annotated[str, StringConstraints(pattern="^([0-9a-f]{64})?$")]
#: The name of an installed package, and its version, as pip has them.
PackageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
#: The name of a file in the archive's own folder.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][^/\\]*$")]

_EVEN_ODDS: Final = 0.5


def score_count(task: Task, labels: int) -> int:
    """The number of scores that a network gives for a photo, for so many labels."""
    return 1 if task == "binary" else labels


class Settings(FrozenModel):
    """The ``handler:`` section of model-config.yaml."""

    arch: str = Field(
        "resnet50",
        description="the name of a torchvision classifier, timm:NAME, hf:TYPE or module:callable",
    )
    arch_kwargs: dict[str, Any] = Field(
        {}, description="keyword arguments for the network's constructor"
    )
    requires: dict[PackageName, Version] = Field(
        {},
        description="a section of package names with the versions that the archive was packed "
        'with, as {timm: "1.0.31"}',
    )
    weights: FileName = Field(
        "weights.safetensors", description="the state dict's file name in the archive"
    )
    weights_sha256: Sha256 = Field(
        "", description="the SHA-256 of that file in hexadecimal digits, or '' to load any"
    )
    labels: FileName = Field("labels.json", description="the labels' file name in the archive")
    layer: str = Field("layer4.2", description="the dotted name of the module to explain")
    layers: tuple[str, ...] = Field(
        (), description="a list of the dotted names of further modules that may be asked for"
    )
    layout: Layout | dict[str, Layout] = Field(
        "auto",
        description="auto, grid, channels_last or tokens, or a mapping from layers to these",
    )
    task: Task = Field("multiclass", description="multiclass, multilabel or binary")
    decision_threshold: FloatNotBool = Field(
        _EVEN_ODDS,
        gt=0,
        lt=1,
        description="the probability above which a multilabel network predicts a class, between 0 "
        "and 1",
    )
    output: OutputKind = Field("logits", description="logits, probabilities or log_probabilities")
    batching: Batching = Field("together", description="together or alone")
    precision: Precision = Field("auto", description="auto, float32 or bfloat16")
    compile: Compile = Field("auto", description="auto or off")
    threads: IntNotBool = Field(
        0, ge=0, le=1024, description="a whole number; 0 for a worker's share"
    )
    preprocess: Preprocess = Field(Preprocess(), description="a section; see its keys")
    formats: tuple[Annotated[PhotoFormat, BeforeValidator(_lower_case)], ...] = Field(
        DEFAULT_FORMATS,
        min_length=1,
        description="a list of the formats of files to read: jpeg, png, webp, gif, bmp, tiff, heic "
        "(with the package pillow-heif) and avif",
    )
    damaged: Damaged = Field(
        "tell",
        description="tell (answer a damaged photo that shows something, with a warning) or refuse",
    )
    limits: Limits = Field(Limits(), description="a section; see its keys")
    defaults: Options = Field(
        Options(), description="a section with the options' values for requests that name none"
    )

    @property
    def served(self) -> tuple[str, ...]:
        """The layers that may be asked for, the default one first."""
        return tuple(dict.fromkeys((self.layer, *self.layers)))

    def layout_of(self, layer: str) -> Layout:
        """What ``layout`` says of a served layer."""
        return self.layout.get(layer, "auto") if isinstance(self.layout, dict) else self.layout

    def options(self, values: Mapping[str, Any]) -> Options:
        """A request's options: its own values, and the operator's defaults for the rest.

        Raises:
            RequestError: as :meth:`Options.merged_with`, and for a layer that is not served.
        """
        options = self.defaults.merged_with(values)
        for layer in options.layer or ():
            if layer not in self.served:
                raise RequestError(
                    "invalid_option",
                    f"option 'layer': {short_repr(layer)} is not served; accepted: "
                    f"{', '.join(self.served)}, or a list of these",
                )
        if options.layer is None:
            return options.model_copy(update={"layer": (self.layer,)})
        return options

    @classmethod
    def from_yaml(cls, config: Mapping[str, Any]) -> Settings:
        """Validate a whole parsed model-config.yaml and return its ``handler:`` section.

        Raises:
            SettingsError: an unknown or wrong key, here or among TorchServe's own; it is named
                with its full path.
        """
        known = {*TORCHSERVE_KEYS, "handler"}
        for key, value in config.items():
            if key not in known:
                raise SettingsError(
                    f"model-config.yaml: {unknown_name_message('key', str(key), known)}"
                )
            # TorchServe would log a wrong value and go on with its own default.
            minimum = TORCHSERVE_KEYS.get(key)
            if minimum is not None and (
                type(value) is not int or not minimum <= value <= _JAVA_INT
            ):
                raise SettingsError(
                    f"model-config.yaml: {key}: {short_repr(value)} is not accepted; accepted: a "
                    f"whole number of at least {minimum} and at most {_JAVA_INT}"
                )
        if config.get("minWorkers", 1) > config.get("maxWorkers", 1):
            raise SettingsError(
                f"model-config.yaml: minWorkers ({config['minWorkers']}) must not exceed "
                f"maxWorkers ({config.get('maxWorkers', 1)}); accepted: both set, as minWorkers=2 "
                "and maxWorkers=2"
            )
        section = config.get("handler")
        if not isinstance(section, Mapping):
            raise SettingsError(
                f"model-config.yaml: 'handler' must be a section of settings, not {section!r}"
            )
        try:
            settings = cls.model_validate(dict(section))
        except ValidationError as failure:
            raise SettingsError(f"model-config.yaml: {_explain(cls, failure)}") from None
        if settings.task != "multilabel" and settings.decision_threshold != _EVEN_ODDS:
            raise SettingsError(
                "model-config.yaml: handler.decision_threshold: "
                f"{settings.decision_threshold} is not accepted with handler.task="
                f"{settings.task}, which predicts the most probable class; accepted: {_EVEN_ODDS}, "
                "or another one with handler.task=multilabel"
            )
        for layer in settings.layout if isinstance(settings.layout, dict) else ():
            if layer not in settings.served:
                raise SettingsError(
                    f"model-config.yaml: handler.layout: {short_repr(layer)} is not served; "
                    f"accepted: {', '.join(settings.served)}"
                )
        try:
            settings.options({})
        except RequestError as error:
            raise SettingsError(
                f"model-config.yaml: handler.defaults.layer: {error.message}"
            ) from None
        return settings


#: The largest number that TorchServe's own settings hold.
_JAVA_INT: Final = 2**31 - 1
#: The keys that TorchServe 0.12 itself reads from model-config.yaml (its ModelConfig class): the
#: minimum of a key that takes a whole number, None of one that takes something else.
TORCHSERVE_KEYS: Final[dict[str, int | None]] = {
    "minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 0, "responseTimeout": 1,
    "startupTimeout": 1, "maxRetryTimeoutInSec": 0, "clientTimeoutInMills": 0, "jobQueueSize": 1,
    "parallelLevel": 0, "sequenceMaxIdleMSec": 0, "sequenceTimeoutMSec": 0, "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0, "deviceType": None, "deviceIds": None, "parallelType": None,
    "torchrun": None, "useVenv": None, "useJobTicket": None, "asyncCommunication": None,
    "continuousBatching": None, "sequenceBatching": None,
}  # fmt: skip


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
        parent = ".".join(path[:-1])
        return f"{parent}: {unknown_name_message('key', path[-1], section.model_fields)}"
    if error["type"] == SETTING_ERROR:
        return f"{'.'.join(path)}: {error['msg']}"
    if field is None or (error["type"] == "value_error" and section is not None):
        return f"{'.'.join(path)}: {error['msg'].removeprefix('Value error, ')}"
    value = short_repr(error["input"])
    return f"{'.'.join(path)}: {value} is not accepted; accepted: {field.description}"
