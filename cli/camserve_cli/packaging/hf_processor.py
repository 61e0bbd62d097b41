"""The image processor of a Hugging Face folder, as the ``preprocess`` section of an archive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from camserve.errors import short_repr
from camserve_cli.packaging.errors import PresetError, first_line
from camserve_cli.packaging.presets import find_preset

PREPROCESSOR = "preprocessor_config.json"
#: Pillow's numbers of its filters, which an image processor's ``resample`` is.
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}


def be_quiet(transformers: Any) -> None:
    """Without the progress bars and reports that a person who packages need not read."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class HfProcessor:
    """How transformers prepares photos.

    Attributes:
        file: preprocessor_config.json.
        processor: the image processor that transformers makes of it.
    """

    file: Path
    processor: Any

    @classmethod
    def open(cls, folder: Path) -> HfProcessor:
        """Read a folder's preprocessor_config.json.

        Raises:
            PresetError: there is none, or transformers has no such image processor.
        """
        import transformers

        be_quiet(transformers)
        file = folder / PREPROCESSOR
        if not file.is_file():
            raise PresetError(f"{folder} has no {PREPROCESSOR}, which says how photos are prepared")
        try:
            json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as failure:
            raise PresetError(f"{file} is no JSON: {failure}") from None
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as failure:
            # It advises to run the folder's own code, or names keys that are to be added.
            raise PresetError(
                f"transformers {version('transformers')} has no image processor for {file} "
                f"({type(failure).__name__})"
            ) from None
        return cls(file, processor)

    def transform(self, photo: Image.Image) -> Tensor:
        """The network's input (3, height, width) of a photo, as transformers makes it."""
        prepared = self.processor(photo, return_tensors="pt")
        if "pixel_values" not in prepared:
            raise ValueError(f"it gives {', '.join(prepared)}, not pixel_values")
        values: Tensor = prepared["pixel_values"][0]
        return values

    def preset(self) -> dict[str, Any]:
        """The archive's ``preprocess`` section that makes the same input.

        Raises:
            PresetError: none does.
        """
        processor, transform = self.processor, self.transform
        described = f"the {type(processor).__name__} of {self.file}"
        resample = getattr(processor, "resample", None)
        if getattr(processor, "do_resize", True) and resample not in _INTERPOLATION:
            raise PresetError(
                f"{described} resizes with resample {resample!r}; an archive resizes with "
                "2 (bilinear) or 3 (bicubic)"
            )
        try:
            shape = transform(Image.new("RGB", (400, 300))).shape
        except Exception as failure:
            raise PresetError(f"{described} cannot be run: {first_line(failure)}") from None
        if len(shape) != 3:
            raise PresetError(f"{described} makes inputs of shape {tuple(shape)}, not (3, h, w)")
        height, width = shape[1:]
        stated: list[Any] = [getattr(processor, key, None) for key in ("image_mean", "image_std")]
        return find_preset(
            transform,
            _candidates(processor, height, width),
            f"{described} ({_summary(processor)})",
            (stated[0], stated[1]) if all(_is_rgb(one) for one in stated) else None,
        )


def _candidates(processor: Any, height: int, width: int) -> list[dict[str, Any]]:
    """The ways in which image processors bring a photo to that size, with their attributes."""
    size = dict(getattr(processor, "size", None) or {})
    crop_pct = getattr(processor, "crop_pct", None) or 1
    common = {
        "crop": height if height == width else [height, width],
        "interpolation": _INTERPOLATION.get(getattr(processor, "resample", 2), "bilinear"),
    }
    shortest = size.get("shortest_edge") or size.get("height") or height
    sides = [size.get("height") or shortest, size.get("width") or shortest]
    # As they are, by crop_pct (ConvNeXt, PoolFormer), and LeViT's.
    resizes = dict.fromkeys((shortest, int(shortest / crop_pct), int(256 / 224 * shortest)))
    # transformers rounds the beginning of a crop down, and torchvision, which some processors
    # use, to the nearest.
    cropped = [
        {"fit": "crop", "resize": resize, "crop_rounding": rounding, **common}
        for resize in [*resizes, sides]
        for rounding in ("down", "nearest")
    ]
    # Resized to the input's size, nothing is left to crop.
    return [{"fit": "stretch", "resize": max(height, width), **common}, *cropped]


def _summary(processor: Any) -> str:
    """The attributes of an image processor that decide, for a message."""
    keys = ("size", "crop_size", "crop_pct", "do_resize", "do_center_crop", "do_pad", "resample")
    return ", ".join(
        f"{key} {short_repr(dict(value) if key in ('size', 'crop_size') else value)}"
        for key in keys
        if (value := getattr(processor, key, None)) is not None
    )


def _is_rgb(values: Any) -> bool:
    return isinstance(values, list | tuple) and len(values) == 3
