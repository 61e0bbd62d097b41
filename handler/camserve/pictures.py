"""Encoded photo -> RGB pixels -> the square that the network sees, and what a reply shows of it.

Pillow reads the header (format, size, transparency), OpenCV decodes: on damaged and hostile files
it returns nothing where other decoders crash.
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve import tiff
from camserve.errors import RequestError
from camserve.geometry import ORIENTATIONS, Box, Frame, Pixels, View, turn_back, turn_upright
from camserve.options import Size
from camserve.settings import Limits, Preprocess

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
# As the file stores it: how it is turned is decided in one place, by the header.
_STORED: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# These keep the transparency; for GIF, only IMREAD_UNCHANGED keeps it.
_WITH_ALPHA: Final = (
    cv2.IMREAD_COLOR | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
)
_ORIENTATION: Final = 274
_TIFF_BITS: Final = 258
_TIFF_EXTRA_SAMPLES: Final = 338

# Settings say how large a photo may be, from its header; Pillow's own limit would come before.
Image.MAX_IMAGE_PIXELS = None
# A damaged file is the caller's error and answered as one; the worker's log needs no line of it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        upright: (height, width, 3) RGB, 0 to 255, as a viewer shows it.
        orientation: EXIF's, 1 to 8: how the file's pixels were turned for that.
    """

    upright: Pixels
    orientation: int


def decode(data: bytes | bytearray, limits: Limits, pixels: int) -> Photo:
    """Decode a photo and turn it upright.

    16 bits are scaled to 8, transparency lies on white (but where OpenCV does not read it: a grey
    TIFF's, and the one transparent level of a grey PNG), an animation is its first frame.

    Args:
        data: the file.
        limits: of the operator.
        pixels: how many the photo may have.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    header = _read_header(data, limits, pixels)
    if header.format == "TIFF":
        try:
            data = tiff.as_stored(data)
        except ValueError:
            raise _damaged(header.format) from None
    stored = _decode(data, header)
    return Photo(turn_upright(stored, header.orientation), header.orientation)


def _decode(data: bytes | bytearray, header: _Header) -> Pixels:
    encoded = np.frombuffer(data, np.uint8)
    try:
        if header.transparent:
            flags = cv2.IMREAD_UNCHANGED if header.format == "GIF" else _WITH_ALPHA
            stored = cv2.imdecode(encoded, flags)
            if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
                return _on_white(stored, header.premultiplied)
        photo = cv2.imdecode(encoded, _STORED)
    except (cv2.error, MemoryError):
        photo = None
    if photo is None:
        raise _damaged(header.format)
    return cast(Pixels, photo)


def fit(photo: Photo, preprocess: Preprocess) -> tuple[Pixels, Frame]:
    """Make a photo the network's square input, as :class:`Preprocess` says.

    Pillow resizes, as in the evaluation that the published accuracies come from; with ``fit`` crop
    the result equals ``torchvision.transforms.v2.functional.resize`` and ``center_crop`` on the
    same photo.

    Returns:
        The (crop, crop, 3) square, RGB, 0 to 255, and where it lies in the photo.
    """
    height, width = photo.upright.shape[:2]
    side = preprocess.crop
    size = _resized(width, height, preprocess)
    left, top = (round((length - side) / 2.0) for length in size)
    resized = Image.fromarray(photo.upright).resize(size, _RESAMPLE[preprocess.interpolation])
    if preprocess.fit == "pad":
        # The colour that normalises to zero, which is what a convolution pads with too.
        square = Image.new("RGB", (side, side), tuple(round(255 * m) for m in preprocess.mean))
        square.paste(resized, (-left, -top))
    else:
        square = resized.crop((left, top, left + side, top + side))
    across, down = width / size[0], height / size[1]
    window = Box(left * across, top * down, (left + side) * across, (top + side) * down)
    return np.asarray(square), Frame.of(width, height, photo.orientation, window)


def _resized(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    side = preprocess.crop
    match preprocess.fit:
        case "stretch":
            return side, side
        case "pad":
            scale = side / max(width, height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        case "crop":
            side = preprocess.resize
            if width <= height:
                return side, int(side * height / width)
            return int(side * width / height), side


def shown(frame: Frame, preprocess: Preprocess, size: Size) -> Frame:
    """The frame of what a reply's pictures show, at the size that a request asks for.

    Args:
        frame: of the photo.
        preprocess: as it was fitted.
        size: ``model`` for the network's input, else the photo: as large as it is, or with a
            longest side of so many pixels.
    """
    if size == "model":
        return Frame.whole(preprocess.crop, preprocess.crop)
    if size == "original":
        return frame
    scale = size / max(frame.width, frame.height)
    return frame.scaled(max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))


def view(photo: Photo, crop: Pixels, frame: Frame, size: Size) -> View:
    """What a reply's pictures show: (frame.height, frame.width, 3), the photo as its file has it.

    Args:
        photo: at its own size.
        crop: what :func:`fit` made of it.
        frame: what :func:`shown` made of the frame.
        size: that it was made for.
    """
    if size == "model":
        return View(crop, frame)
    pixels = photo.upright
    if size != "original":
        shrinks = frame.upright < pixels.shape[1::-1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cast(Pixels, cv2.resize(pixels, frame.upright, interpolation=interpolation))
    return View(turn_back(pixels, photo.orientation), frame)


@dataclass(frozen=True)
class _Header:
    """What a file says of itself.

    Attributes:
        format: Pillow's name of it.
        transparent: it has an alpha channel or a transparent colour.
        premultiplied: its colours are multiplied by alpha already.
        orientation: EXIF's, 1 to 8.
    """

    format: str
    transparent: bool
    premultiplied: bool
    orientation: int


def _read_header(data: bytes | bytearray, limits: Limits, pixels: int) -> _Header:
    """Hold a file's own word to the limits, before anything is decoded."""
    try:
        # Pillow warns of oddities in metadata that a photo does not depend on.
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            tags: dict[int, Any] = getattr(image, "tag_v2", {})
            extra = tags.get(_TIFF_EXTRA_SAMPLES)
            orientation = tags.get(_ORIENTATION, _exif(image).get(_ORIENTATION))
            header = _Header(
                str(image.format),
                image.has_transparency_data,
                # Of more bits, OpenCV leaves colours as they are where they are not multiplied.
                extra == (1,) or (extra == (2,) and tags.get(_TIFF_BITS) == (8, 8, 8, 8)),
                # A tag that holds anything else is as good as none; one may hold 6 as a fraction.
                int(orientation) if orientation in ORIENTATIONS else 1,
            )
            # A PNG whose chunk claims more than the file holds would have OpenCV ask for gigabytes.
            image.verify()
    except Exception:
        # Pillow's parsers raise nearly anything on hostile input.
        if data.startswith(_MAGIC):
            raise _damaged("image") from None
        raise RequestError(
            "unsupported_format", f"the photo's format is not recognised; {_ACCEPTED}"
        ) from None
    if width * height > pixels:
        raise RequestError(
            "image_too_large",
            f"the photo has {width} x {height} pixels; accepted: up to {limits.pixels} in all "
            "photos of a request together",
        )
    if max(width, height) > limits.aspect_ratio * min(width, height):
        raise RequestError(
            "image_too_large",
            f"the photo is {width} x {height}; accepted: a longer side of up to "
            f"{limits.aspect_ratio:g} times the shorter one",
        )
    return header


def _exif(image: Image.Image) -> Image.Exif:
    """What stands before the pixels; Image.getexif would decode a whole PNG to look behind them."""
    exif = Image.Exif()
    # What is no EXIF says nothing of how the photo is turned. Pillow raises nearly anything on it.
    with suppress(Exception):
        exif.load(image.info.get("exif", b""))
    return exif


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
