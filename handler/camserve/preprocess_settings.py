"""The settings ``handler.preprocess``: how a photo becomes the network's input."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from camserve.errors import short_repr
from camserve.validation import FloatNotBool, FrozenModel, IntNotBool, not_bool

#: The type of an error whose message is a whole sentence on a setting, not a field's description.
SETTING_ERROR: Final = "setting"

Side = Annotated[IntNotBool, Field(ge=1, le=4096)]
#: One number, or [height, width].
Sides = Side | tuple[Side, Side]
#: What becomes of a photo's colour profile.
ColorManagement = Literal["ignore", "srgb"]
Channels = Annotated[Literal[1, 3], BeforeValidator(not_bool)]
RangeEnd = Annotated[FloatNotBool, Field(ge=-65535, le=65535)]


class InputSize(NamedTuple):
    """A size in pixels, in the order of the settings and of tensors."""

    height: int
    width: int


class Preprocess(FrozenModel):
    """How a photo becomes the network's input: the preset of the weights.

    The input has the size ``crop``: a square, or [height, width]. With ``fit`` crop, the photo is
    resized to ``resize`` (its shorter side, or [height, width]) and the centre is cut out; with
    stretch, the photo is resized to the input's size; with pad, it is resized to fit inside, and
    bars of the colour ``mean`` fill the rest. With one of ``channels``, the result becomes grey.
    Values are scaled to ``range`` and normalised per channel with ``mean`` and ``std``, which are
    values of that range. With ``icc`` srgb, a photo that has a colour profile is converted first.
    """

    fit: Literal["crop", "stretch", "pad"] = Field("crop", description="crop, stretch or pad")
    resize: Sides = Field(
        232, description="the shorter side in pixels, or [height, width]; 1 to 4096 each"
    )
    crop: Sides = Field(
        224, description="the side of the centred square in pixels, or [height, width]; 1 to 4096"
    )
    crop_rounding: Literal["nearest", "down"] = Field(
        "nearest",
        description="nearest (torchvision, timm) or down (transformers): where the crop begins if "
        "an odd number of pixels is cut off",
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="bilinear or bicubic"
    )
    icc: ColorManagement = Field(
        "ignore",
        description="ignore (colours as the file has them, as networks are trained) or srgb "
        "(converted by the photo's colour profile)",
    )
    channels: Channels = Field(3, description="3 (red, green, blue) or 1 (grey)")
    range: tuple[RangeEnd, RangeEnd] = Field(
        (0.0, 1.0),
        description="[low, high], two numbers from -65535 to 65535, at least 0.001 apart",
    )
    mean: tuple[FloatNotBool, ...] = Field(
        (0.485, 0.456, 0.406),
        validate_default=True,
        description="one number for each channel, in the range",
    )
    std: tuple[FloatNotBool, ...] = Field(
        (0.229, 0.224, 0.225),
        validate_default=True,
        description="one number for each channel, above 0 and up to the length of the range",
    )

    @property
    def input_size(self) -> InputSize:
        """Of the network's input: what ``crop`` says."""
        return _both_sides(self.crop)

    @property
    def least_resized_size(self) -> InputSize:
        """No photo is resized to less than this, except along the bars of ``fit`` pad."""
        return _both_sides(self.resize if self.fit == "crop" else self.crop)

    @property
    def mean_color(self) -> tuple[int, int, int]:
        """The colour, R, G and B from 0 to 255, that is nearest to zero when it is normalised."""
        low, high = self.range
        levels = [round(255 * (value - low) / (high - low)) for value in self.mean]
        red, green, blue = levels if len(levels) == 3 else levels * 3
        return red, green, blue

    @field_validator("range")
    @classmethod
    def _range_ascends(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] - value[0] < 0.001:
            raise ValueError("high is not above low")
        return value

    @field_validator("mean", "std", mode="wrap")
    @classmethod
    def _fits_channels_and_range(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[float, ...]:
        """A number, or a list of them, as a tuple: one for each channel, within the range."""
        # Where one of these is itself wrong, that error is reported first.
        channels = info.data.get("channels", 3)
        low, high = info.data.get("range", (0.0, 1.0))
        try:
            values = cast(
                tuple[float, ...], handler(value if isinstance(value, list | tuple) else (value,))
            )
        except ValidationError:
            values = ()
        if info.field_name == "mean":
            fits = all(low <= one <= high for one in values)
        else:
            fits = all(0 < one <= high - low for one in values)
        if not values or len(values) != channels or not fits:
            accepted = _accepted_values(str(info.field_name), channels, low, high)
            given = list(value) if isinstance(value, tuple) else value
            text = f"{short_repr(given)} is not accepted; accepted: {accepted}"
            raise PydanticCustomError(SETTING_ERROR, "{text}", {"text": text})
        return values

    @model_validator(mode="after")
    def _crop_fits(self) -> Preprocess:
        crop, resized = self.input_size, _both_sides(self.resize)
        if self.fit == "crop" and (crop.height > resized.height or crop.width > resized.width):
            message = f"crop ({_text(self.crop)}) must not exceed resize ({_text(self.resize)})"
            if isinstance(self.crop, tuple) or isinstance(self.resize, tuple):
                message += (
                    " on any side; accepted: a resize of at least crop's height and width, as "
                    f"{list(crop)}, or a number, the photo's shorter side, of at least {max(crop)}"
                )
            else:
                message += f"; accepted: a resize of at least {self.crop} (--set) with it"
            raise ValueError(message)
        return self


def _both_sides(sides: int | tuple[int, int]) -> InputSize:
    return InputSize(sides, sides) if isinstance(sides, int) else InputSize(*sides)


def _text(sides: int | tuple[int, int]) -> str:
    return str(sides) if isinstance(sides, int) else str(list(sides))


def _accepted_values(name: str, channels: int, low: float, high: float) -> str:
    """What is accepted as ``mean`` or ``std``."""
    numbers, colors = ("three numbers", "R, G and B") if channels == 3 else ("one number", "grey")
    if name == "mean":
        accepted = f"{numbers} from {low:g} to {high:g}, for {colors} of that range"
    else:
        accepted = (
            f"{numbers} above 0 and up to {high - low:g}, for {colors} from {low:g} to {high:g}"
        )
    accepted += f" (channels is {channels}, range is [{low:g}, {high:g}])"
    if (low, high) == (0, 1):
        accepted += (
            "; what is known for 0 to 255 is divided by 255, or kept with handler.preprocess.range "
            "[0, 255]"
        )
    return accepted
