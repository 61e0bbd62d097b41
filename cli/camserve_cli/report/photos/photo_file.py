"""What a report says of a photo's file: its figures, its camera, and a thumbnail.

The figures are of the upright photo with a longest side of 256 pixels, so that photos of different
sizes compare. Of the EXIF data only the camera and the exposure are read: no place, no serial
number, no name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

#: The longest side of what the figures are computed on, and of a thumbnail, in pixels.
FIGURE_SIDE: Final = 256
THUMBNAIL_SIDE: Final = 112
_THUMBNAIL_QUALITY: Final = 70

#: The figures of a photo, by name.
#:
#: ``brightness`` and ``contrast`` are mean and standard deviation of the luma (ITU-R 601-2),
#: ``saturation`` the mean of HSV's, ``red``, ``green`` and ``blue`` the means of the channels, all
#: in [0, 1]. ``blur`` is the variance of the luma's Laplacian (0 to 255): low where the photo is
#: blurred. ``width`` and ``height`` are of the upright photo in pixels, ``bytes`` is the file's
#: size.
PROPERTIES: Final = (
    "brightness", "contrast", "saturation", "red", "green", "blue", "blur", "width", "height",
    "bytes", "iso", "exposure_seconds", "f_number", "focal_length",
)  # fmt: skip
_EXIF_IFD: Final = 0x8769
_MAKE, _MODEL = 0x010F, 0x0110
_EXPOSURE: Final = {
    "iso": 0x8827,
    "exposure_seconds": 0x829A,
    "f_number": 0x829D,
    "focal_length": 0x920A,
}


@dataclass(frozen=True)
class PhotoFile:
    """What was read of a photo's file.

    Attributes:
        properties: by name, of :data:`PROPERTIES`; those that are unknown are missing.
        modified: when, in nanoseconds since 1970; 0 where unknown.
        camera: its maker and model; empty where unknown.
        thumbnail: a WebP of the upright photo, without EXIF; empty where it cannot be read.
    """

    properties: Mapping[str, float] = field(default_factory=dict)
    modified: int = 0
    camera: str = ""
    thumbnail: bytes = b""


def read_photo_file(path: Path) -> PhotoFile:
    """Read a photo's file; what cannot be read of it is left out."""
    try:
        state = path.stat()
    except OSError:
        return PhotoFile()
    size, modified = state.st_size, state.st_mtime_ns
    # Pillow raises nearly anything on a file that is no photo; the model's error says what it is.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_photo(path) as photo:
            exif = photo.getexif()
            camera, exposure = _camera(exif), _exposure(exif.get_ifd(_EXIF_IFD))
            upright_size = _upright_size(photo)
            photo.draft("RGB", (FIGURE_SIDE, FIGURE_SIDE))
            photo.thumbnail((2 * FIGURE_SIDE, 2 * FIGURE_SIDE))
            upright = to_rgb(ImageOps.exif_transpose(photo))
        upright.thumbnail((FIGURE_SIDE, FIGURE_SIDE))
        properties = {
            **pixel_figures(np.asarray(upright)),
            "width": float(upright_size[0]),
            "height": float(upright_size[1]),
            **exposure,
            "bytes": float(size),
        }
        upright.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return PhotoFile(properties, modified, camera, _webp(upright))
    return PhotoFile({"bytes": float(size)}, modified)


def open_photo(path: Path) -> Image.Image:
    """A photo, not yet decoded; HEIC too, where ``camserve[heif]`` is installed."""
    if find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return Image.open(path)


def to_rgb(photo: Image.Image) -> Image.Image:
    """In RGB, over white where it is transparent; 16 bits of grey are scaled to 8."""
    if photo.mode.startswith("I;16"):
        # Pillow would cut off what is above 255.
        scaled = np.asarray(photo.convert("I"), np.float64) / 257
        photo = Image.fromarray(scaled.round().astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        photo = Image.alpha_composite(white, photo)
    return photo.convert("RGB")


def pixel_figures(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """The figures of pixels, (H, W, 3) RGB, by name; see :data:`PROPERTIES`."""
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1]
    red, green, blue = (float(mean) / 255 for mean in pixels.mean((0, 1)))
    return {
        "brightness": float(luma.mean()) / 255,
        "contrast": float(luma.std()) / 255,
        "saturation": float(saturation.mean()) / 255,
        "red": red,
        "green": green,
        "blue": blue,
        "blur": float(cv2.Laplacian(luma, cv2.CV_64F).var()),
    }


def _camera(exif: Image.Exif) -> str:
    """Maker and model in one text; a model that names its maker names it once."""
    make, model = (
        str(exif.get(tag, "")).replace("\0", " ").strip()[:60] for tag in (_MAKE, _MODEL)
    )
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def _exposure(exif: Mapping[int, Any]) -> dict[str, float]:
    found = {}
    for name, tag in _EXPOSURE.items():
        with suppress(TypeError, ValueError, ZeroDivisionError):
            value: Any = exif.get(tag)
            number = float(value[0] if isinstance(value, tuple) else value)
            if np.isfinite(number) and number > 0:
                found[name] = number
    return found


def _upright_size(photo: Image.Image) -> tuple[int, int]:
    width, height = photo.size
    turned = photo.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _webp(photo: Image.Image) -> bytes:
    # From the pixels alone, so that nothing of the file's EXIF, XMP or profile goes along.
    file = BytesIO()
    Image.fromarray(np.asarray(photo)).save(file, "WEBP", quality=_THUMBNAIL_QUALITY)
    return file.getvalue()
