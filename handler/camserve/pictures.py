"""Encoded photo -> RGB pixels -> the square that the network sees, and where in the photo it lies.

Pillow reads the header (format, size, transparency), OpenCV decodes: on damaged and hostile files
it returns nothing where other decoders crash.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve.errors import RequestError
from camserve.settings import Limits, Preprocess

Pixels = NDArray[np.uint8]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_ACCEPTED: Final = "accepted: JPEG, PNG, WebP, GIF, BMP or TIFF"
_RESAMPLE: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_EXIF_ORIENTATION: Final = 0x0112
# What turns a stored picture upright, by its EXIF orientation (CIPA DC-008, 4.6.4).
_UPRIGHT: Final[dict[int, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}

# A damaged file is the caller's error and answered as one; the worker's log needs no line of it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Frame:
    """Where the network's input lies in the upright photo.

    Attributes:
        width, height: of the photo, in its own pixels.
        seen: (x0, y0, x1, y1) in photo pixels, x1 and y1 exclusive.
    """

    width: int
    height: int
    seen: tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """A photo made ready.

    Attributes:
        crop: (crop, crop, 3) RGB, 0 to 255: what the network sees, before normalisation.
        frame: where that lies in the photo.
    """

    crop: Pixels
    frame: Frame


def open_picture(data: bytes | bytearray, preprocess: Preprocess, limits: Limits) -> Picture:
    """Decode one photo and cut out what the network sees.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    photo = decode(data, limits)
    crop, frame = fit(photo, preprocess)
    return Picture(crop, frame)


def decode(data: bytes | bytearray, limits: Limits) -> Pixels:
    """Encoded photo -> (height, width, 3) RGB, upright, 0 to 255.

    EXIF orientation is applied, 16 bits are scaled to 8, transparency lies on white, an animation
    is its first frame.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    header = _header(data, limits)
    encoded = np.frombuffer(data, np.uint8)
    try:
        photo = cast(Pixels | None, cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB))
        if photo is not None and header.has_transparency_data:
            photo = _on_white(photo, encoded, header)
    except (cv2.error, MemoryError):
        photo = None
    if photo is None:
        raise RequestError(
            "invalid_image", f"the {header.format} file is damaged, incomplete or of a rare kind"
        )
    return photo


def fit(photo: Pixels, preprocess: Preprocess) -> tuple[Pixels, Frame]:
    """Resize the shorter side and cut the centred square, as torchvision's presets do.

    Pillow resizes, as in the evaluation that the published accuracies come from; the result equals
    ``torchvision.transforms.v2.functional.resize`` and ``center_crop`` on the same photo.

    Args:
        photo: (height, width, 3) RGB.

    Returns:
        The (crop, crop, 3) square and its frame.
    """
    height, width = photo.shape[:2]
    side, crop = preprocess.resize, preprocess.crop
    if width <= height:
        size = side, int(side * height / width)
    else:
        size = int(side * width / height), side
    left, top = (round((length - crop) / 2.0) for length in size)
    resized = Image.fromarray(photo).resize(size, _RESAMPLE[preprocess.interpolation])
    square = np.asarray(resized.crop((left, top, left + crop, top + crop)))
    across, down = width / size[0], height / size[1]
    seen = (left * across, top * down, (left + crop) * across, (top + crop) * down)
    return square, Frame(width, height, seen)


def _header(data: bytes | bytearray, limits: Limits) -> Image.Image:
    """What the file says of itself, its size held to the limits before anything is decoded."""
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as failure:
        raise RequestError("image_too_large", f"the photo is too large: {failure}") from None
    except Exception:
        # Pillow's parsers raise nearly anything on hostile input.
        raise RequestError(
            "unsupported_format", f"the photo's format is not recognised; {_ACCEPTED}"
        ) from None
    width, height = header.size
    if width * height > limits.pixels:
        raise RequestError(
            "image_too_large",
            f"the photo has {width} x {height} pixels; accepted: up to {limits.pixels} in all",
        )
    if max(width, height) > limits.aspect_ratio * min(width, height):
        raise RequestError(
            "image_too_large",
            f"the photo is {width} x {height}; accepted: a longer side of up to "
            f"{limits.aspect_ratio:g} times the shorter one",
        )
    return header


def _on_white(photo: Pixels, encoded: NDArray[np.uint8], header: Image.Image) -> Pixels:
    """Lay a photo with transparency on white, as a viewer shows it."""
    stored = cast(NDArray[Any] | None, cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4 or stored.dtype.kind != "u":
        return photo
    alpha = stored[..., 3:].astype(np.float32) / np.iinfo(stored.dtype).max
    if header.format == "TIFF":
        # libtiff hands out colours multiplied by alpha already, and upright.
        colours = photo.astype(np.float32)
    else:
        orientation = header.getexif().get(_EXIF_ORIENTATION, 1)
        alpha = _UPRIGHT.get(orientation, _UPRIGHT[1])(alpha)
        colours = np.multiply(photo, alpha, dtype=np.float32)
    return np.rint(colours + 255 * (1 - alpha)).astype(np.uint8)
