"""Encoded photo -> RGB pixels -> the square that the network sees, and what a reply shows of it.

Pillow reads the header (format, size, transparency), OpenCV decodes: on damaged and hostile files
it returns nothing where other decoders crash. Of a GIF, Pillow decodes the one frame that is cut
out of it.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve.errors import RequestError
from camserve.images import gif, jpeg, png, tiff
from camserve.images.geometry import (
    ORIENTATIONS,
    Box,
    Frame,
    Pixels,
    View,
    turn_back,
    turn_upright,
    upright_box,
    upright_size,
)
from camserve.options import Size
from camserve.settings import Limits, Preprocess

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# MPO: a JPEG with further ones behind it, as some cameras write.
_JPEGS: Final = ("JPEG", "MPO")
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
# These keep the transparency.
_WITH_ALPHA: Final = (
    cv2.IMREAD_COLOR | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
)
# JPEG's own steps of decoding at a part of the size, which leave most of the work undone.
_REDUCED: Final = {
    # Without the bit for BGR, which would contradict that for RGB.
    step: flag & ~cv2.IMREAD_COLOR
    for step, flag in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    )
}
# A progressive JPEG has some ten; each is a walk over all pixels, in as little as 30 bytes.
_MOST_SCANS: Final = 50
# How much larger than the network's input a photo is decoded at least, so that what the resize
# averages over is still there.
_FINER: Final = 3
_ORIENTATION: Final = 274
_TIFF_BITS: Final = 258
_TIFF_EXTRA_SAMPLES: Final = 338

# Settings say how large a photo may be, from its header; Pillow's own limit would come before.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of oddities in metadata that a photo does not depend on. Set once: catch_warnings is
# not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
# A damaged file is the caller's error and answered as one; the worker's log needs no line of it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("PIL").setLevel(logging.CRITICAL)

# A batch's photos are decoded side by side; threads within each would only stand in the way.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        format: Pillow's name of it.
        width, height: of the photo as the file stores it.
        orientation: EXIF's, 1 to 8.
        transparent: it has an alpha channel or a transparent colour.
        premultiplied: its colours are multiplied by alpha already.
    """

    format: str
    width: int
    height: int
    orientation: int
    transparent: bool
    premultiplied: bool


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        upright: (height, width, 3) RGB, 0 to 255, as a viewer shows it.
        orientation: EXIF's, 1 to 8: how the file's pixels were turned for that.
        size: width and height of the upright photo in the file's pixels; None where it was decoded
            as large as it is.
        reduced: each decoded pixel stands for ``reduced`` x ``reduced`` of the file's; the last of
            a row or column for fewer, where they do not come out even.
    """

    upright: Pixels
    orientation: int
    size: tuple[int, int] | None = None
    reduced: int = 1

    @property
    def whole(self) -> tuple[int, int]:
        """Width and height of the upright photo, as large as its file has it."""
        height, width = self.upright.shape[:2]
        return self.size or (width, height)

    @property
    def extent(self) -> Box:
        """What the file's pixels fill of the decoded ones."""
        height, width = self.upright.shape[:2]
        # Turning exchanges width and height, turning back does so again.
        across, down = upright_size(*self.whole, self.orientation)
        stored = Box(0, 0, across / self.reduced, down / self.reduced)
        return upright_box(stored, width, height, self.orientation)

    def resized(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        """The upright photo at another size."""
        return Image.fromarray(self.upright).resize(size, resample, box=self.extent)


def reduction(header: Header, preprocess: Preprocess, size: Size) -> int:
    """By how much a photo can be decoded smaller than it is and still be more than is needed.

    Args:
        header: of the file.
        preprocess: what the network needs of it.
        size: of the reply's pictures.

    Returns:
        1, 2, 4 or 8.
    """
    if header.format not in _JPEGS or size == "original":
        return 1
    shorter, longer = sorted((header.width, header.height))
    needed = _FINER * (preprocess.resize if preprocess.fit == "crop" else preprocess.crop)
    for step in _REDUCED:
        if shorter >= step * needed and (size == "model" or longer >= step * size):
            return step
    return 1


def decode(data: bytes | bytearray, header: Header, reduced: int = 1) -> Photo:
    """Decode a photo and turn it upright.

    16 bits are scaled to 8, transparency lies on white (but where OpenCV does not read it: a grey
    TIFF's, and the one transparent level of a grey PNG), an animation is its first frame, on white
    where that leaves its screen free.

    Args:
        data: the file.
        header: that :func:`inspect` read of it.
        reduced: what :func:`reduction` says.

    Raises:
        RequestError: ``invalid_image``.
    """
    try:
        match header.format:
            case "GIF":
                stored = _first_frame(gif.first_frame(data), header)
            case "PNG":
                stored = _decode(png.without_profiles(data), header, reduced)
            case "TIFF":
                stored = _decode(tiff.as_stored(data), header, reduced)
            case _:
                stored = _decode(data, header, reduced)
    except (ValueError, SyntaxError, OSError, EOFError, MemoryError, cv2.error):
        raise _damaged(header.format) from None
    upright = turn_upright(stored, header.orientation)
    size = upright_size(header.width, header.height, header.orientation) if reduced > 1 else None
    return Photo(upright, header.orientation, size, reduced)


def _decode(data: bytes | bytearray, header: Header, reduced: int) -> Pixels:
    if header.transparent:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), _WITH_ALPHA)
        if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
            return _on_white(stored, header.premultiplied)
    return _opaque(data, reduced)


def _first_frame(frame: gif.FirstFrame, header: Header) -> Pixels:
    """A GIF's first frame on its screen, which is white as a browser's page where it is free."""
    # By Pillow: OpenCV allocates its table anew at each clear code, 35 seconds for a file of 1 MB.
    pixels = np.asarray(Image.open(io.BytesIO(frame.file), formats=("GIF",)).convert("RGB"))
    height, width = pixels.shape[:2]
    if (height, width) == (header.height, header.width):
        return pixels
    screen = np.full((header.height, header.width, 3), 255, np.uint8)
    # Pillow makes the screen as large as its first frame needs; where it finds another, this fails.
    screen[frame.top : frame.top + height, frame.left : frame.left + width] = pixels
    return screen


def _opaque(data: bytes | bytearray, reduced: int = 1) -> Pixels:
    """The colours of a photo. Raises ValueError, cv2.error or MemoryError."""
    encoded = np.frombuffer(data, np.uint8)
    photo = cv2.imdecode(encoded, _STORED | _REDUCED.get(reduced, 0))
    if photo is None:
        raise ValueError("it does not decode")
    return cast(Pixels, photo)


def fit(photo: Photo, preprocess: Preprocess) -> tuple[Pixels, Frame]:
    """Make a photo the network's square input, as :class:`Preprocess` says.

    Pillow resizes, as in the evaluation that the published accuracies come from; with ``fit`` crop
    the result equals ``torchvision.transforms.v2.functional.resize`` and ``center_crop`` on the
    same photo.

    Returns:
        The (crop, crop, 3) square, RGB, 0 to 255, and where it lies in the photo.
    """
    width, height = photo.whole
    side = preprocess.crop
    size, (left, top) = _placed(width, height, preprocess)
    resized = photo.resized(size, _RESAMPLE[preprocess.interpolation])
    if preprocess.fit == "pad":
        # The colour that normalises to zero, which is what a convolution pads with too.
        square = Image.new("RGB", (side, side), tuple(round(255 * m) for m in preprocess.mean))
        square.paste(resized, (-left, -top))
    else:
        square = resized.crop((left, top, left + side, top + side))
    return np.asarray(square), _frame(width, height, photo.orientation, preprocess)


def frame(header: Header, preprocess: Preprocess) -> Frame:
    """Where the network's input will lie in a photo that is not decoded yet."""
    size = upright_size(header.width, header.height, header.orientation)
    return _frame(*size, header.orientation, preprocess)


def _frame(width: int, height: int, orientation: int, preprocess: Preprocess) -> Frame:
    """The frame of an upright photo of that size."""
    size, (left, top) = _placed(width, height, preprocess)
    across, down = width / size[0], height / size[1]
    right, bottom = left + preprocess.crop, top + preprocess.crop
    window = Box(left * across, top * down, right * across, bottom * down)
    return Frame.of(width, height, orientation, window)


def _placed(
    width: int, height: int, preprocess: Preprocess
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size that a photo is resized to, and the upper left corner of the square in that."""
    size = _resized(width, height, preprocess)
    left, top = (round((length - preprocess.crop) / 2.0) for length in size)
    return size, (left, top)


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
    if photo.reduced > 1:
        # The mean over each pixel's area, as INTER_AREA takes it.
        pixels = np.asarray(photo.resized(frame.upright, Image.Resampling.BOX))
    elif size != "original":
        shrinks = frame.upright < pixels.shape[1::-1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cast(Pixels, cv2.resize(pixels, frame.upright, interpolation=interpolation))
    return View(turn_back(pixels, photo.orientation), frame)


def inspect(data: bytes | bytearray, limits: Limits, pixels: int) -> Header:
    """Read a file's header and hold its own word to the limits, before anything is decoded.

    Args:
        data: the file.
        limits: of the operator.
        pixels: how many the photo may have.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    if len(data) > limits.photo_bytes:
        raise RequestError(
            "image_too_large",
            f"the photo's file has {len(data)} bytes; accepted: up to {limits.photo_bytes}",
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        tags: dict[int, Any] = getattr(image, "tag_v2", {})
        extra = tags.get(_TIFF_EXTRA_SAMPLES)
        orientation = tags.get(_ORIENTATION, _exif(image).get(_ORIENTATION))
        header = Header(
            str(image.format),
            width,
            height,
            # A tag that holds anything else is as good as none; one may hold 6 as a fraction.
            int(orientation) if orientation in ORIENTATIONS else 1,
            image.has_transparency_data,
            # Of more bits, OpenCV leaves colours as they are where they are not multiplied.
            extra == (1,) or (extra == (2,) and tags.get(_TIFF_BITS) == (8, 8, 8, 8)),
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
    if max(width, height) > limits.side:
        raise RequestError(
            "image_too_large",
            f"the photo is {width} x {height}; accepted: sides of up to {limits.side} pixels",
        )
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
    if header.format in _JPEGS and (scans := jpeg.scans(data)) > _MOST_SCANS:
        raise RequestError(
            "image_too_large",
            f"the JPEG draws its photo in {scans} scans; accepted: up to {_MOST_SCANS}",
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
