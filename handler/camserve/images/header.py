"""What a photo's file says of itself, held to the limits before anything is decoded.

Pillow reads the header: format, size, orientation and transparency.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from camserve.errors import RequestError
from camserve.images import jpeg
from camserve.images.geometry import ORIENTATIONS
from camserve.settings import Limits

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# MPO: a JPEG with further ones behind it, as some cameras write.
JPEG_FORMATS: Final = ("JPEG", "MPO")
_ACCEPTED: Final = "accepted: JPEG, PNG, WebP, GIF, BMP or TIFF"
# How each format's files begin, for those too damaged to be opened.
_MAGIC: Final = (
    b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*",
)  # fmt: skip
# A progressive JPEG has some ten; each is a walk over all pixels, in as little as 30 bytes.
MAX_JPEG_SCANS: Final = 50
_ORIENTATION: Final = 274
_TIFF_BITS: Final = 258
_TIFF_EXTRA_SAMPLES: Final = 338

# Settings say how large a photo may be, from its header; Pillow's own limit would come before.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of oddities in metadata that a photo does not depend on. Set once: catch_warnings is
# not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class ImageHeader:
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


def read_header(data: bytes | bytearray, limits: Limits, pixels: int) -> ImageHeader:
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
        header = ImageHeader(
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
            raise damaged("image") from None
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
    if header.format in JPEG_FORMATS and (scans := jpeg.count_scans(data)) > MAX_JPEG_SCANS:
        raise RequestError(
            "image_too_large",
            f"the JPEG draws its photo in {scans} scans; accepted: up to {MAX_JPEG_SCANS}",
        )
    return header


def _exif(image: Image.Image) -> Image.Exif:
    """What stands before the pixels; Image.getexif would decode a whole PNG to look behind them."""
    exif = Image.Exif()
    # What is no EXIF says nothing of how the photo is turned. Pillow raises nearly anything on it.
    with suppress(Exception):
        exif.load(image.info.get("exif", b""))
    return exif


def damaged(kind: str) -> RequestError:
    return RequestError(
        "invalid_image",
        f"the {kind} file is damaged, incomplete or of a rare kind; accepted: a whole file that an "
        "image viewer opens",
    )
