"""Encoded photo -> RGB pixels -> the square that the network sees, and where in the photo it lies.

Pillow reads the header (format, size, transparency), OpenCV decodes: on damaged and hostile files
it returns nothing where other decoders crash.
"""

from __future__ import annotations

import io
import warnings
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
# How each format's files begin, for those too damaged to be opened.
_MAGIC: Final = (
    b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*",
)  # fmt: skip
# These keep the transparency, and turn the photo upright; for GIF, only IMREAD_UNCHANGED keeps it.
_WITH_ALPHA: Final = cv2.IMREAD_COLOR | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
_TIFF_EXTRA_SAMPLES: Final = 338

# Settings say how large a photo may be, from its header; Pillow's own limit would come before.
Image.MAX_IMAGE_PIXELS = None
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

    EXIF orientation is applied, 16 bits are scaled to 8, transparency lies on white (but where
    OpenCV does not read it: a grey TIFF's, and the one transparent level of a grey PNG), an
    animation is its first frame.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    header = _read_header(data, limits)
    encoded = np.frombuffer(data, np.uint8)
    try:
        if header.transparent:
            flags = cv2.IMREAD_UNCHANGED if header.format == "GIF" else _WITH_ALPHA
            stored = cv2.imdecode(encoded, flags)
            if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
                return _on_white(stored, header.premultiplied)
        photo = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    except (cv2.error, MemoryError):
        photo = None
    if photo is None:
        raise _damaged(header.format)
    return cast(Pixels, photo)


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


@dataclass(frozen=True)
class _Header:
    """What a file says of itself.

    Attributes:
        format: Pillow's name of it.
        transparent: it has an alpha channel or a transparent colour.
        premultiplied: its colours are multiplied by alpha already.
    """

    format: str
    transparent: bool
    premultiplied: bool


def _read_header(data: bytes | bytearray, limits: Limits) -> _Header:
    """Hold a file's own word to the limits, before anything is decoded."""
    try:
        # Pillow warns of oddities in metadata that a photo does not depend on.
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            tags: dict[int, Any] = getattr(image, "tag_v2", {})
            extra = tags.get(_TIFF_EXTRA_SAMPLES)
            header = _Header(str(image.format), image.has_transparency_data, extra in ((1,), (2,)))
            # A PNG whose chunk claims more than the file holds would have OpenCV ask for gigabytes.
            image.verify()
    except Exception:
        # Pillow's parsers raise nearly anything on hostile input.
        if data.startswith(_MAGIC):
            raise _damaged("image") from None
        raise RequestError(
            "unsupported_format", f"the photo's format is not recognised; {_ACCEPTED}"
        ) from None
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


def _damaged(kind: str) -> RequestError:
    return RequestError(
        "invalid_image",
        f"the {kind} file is damaged, incomplete or of a rare kind; accepted: a whole file that an "
        "image viewer opens",
    )


def _on_white(stored: NDArray[Any], premultiplied: bool) -> Pixels:
    """(height, width, 4) B, G, R, alpha of 8 or 16 bits -> RGB on white, as a viewer shows it."""
    if stored.dtype != np.uint8:
        stored = cv2.convertScaleAbs(stored, alpha=1 / 257)
    wide = cv2.cvtColor(stored, cv2.COLOR_BGRA2RGBA).astype(np.uint16)
    colours, alpha = wide[..., :3], wide[..., 3:]
    if premultiplied:
        return cast(Pixels, np.minimum(colours + (255 - alpha), 255).astype(np.uint8))
    # In 16 bits without overflow: 255 * 255 + 127 < 2 ** 16.
    return cast(Pixels, ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
