"""An image file's header, checked against the limits before the file is decoded.

Pillow reads format, size, orientation and transparency.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from camserve.errors import RequestError
from camserve.images import jpeg
from camserve.images.geometry import ORIENTATIONS
from camserve.settings import Limits

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: MPO is a JPEG followed by further ones, as some cameras write.
JPEG_FORMATS: Final = ("JPEG", "MPO")
_ACCEPTED: Final = "accepted: JPEG, PNG, WebP, GIF, BMP or TIFF"
# The first bytes of each format: a file that has them and cannot be opened is invalid, and not of
# an unsupported format.
_SIGNATURES: Final = (
    b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*",
)  # fmt: skip
#: A progressive JPEG has some ten. Each scan is a pass over all pixels and can be 30 bytes long.
MAX_JPEG_SCANS: Final = 50
_ORIENTATION: Final = 274
_TIFF_BITS_PER_SAMPLE: Final = 258
_TIFF_EXTRA_SAMPLES: Final = 338
_ASSOCIATED_ALPHA: Final = (1,)
_UNASSOCIATED_ALPHA: Final = (2,)


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header says.

    Attributes:
        format: Pillow's name of the format.
        width, height: of the photo, in file pixels.
        orientation: EXIF orientation, 1 to 8.
        transparent: the photo has an alpha channel or a transparent colour.
        premultiplied: OpenCV decodes its colours multiplied by alpha.
    """

    format: str
    width: int
    height: int
    orientation: int
    transparent: bool
    premultiplied: bool


def read_header(data: bytes | bytearray, limits: Limits, max_pixels: int) -> ImageHeader:
    """Read a file's header and check it against the limits, without decoding the file.

    Args:
        data: the file.
        limits: of the operator.
        max_pixels: how many pixels the photo may have.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    if len(data) > limits.photo_bytes:
        raise RequestError(
            "image_too_large",
            f"the photo's file has {len(data)} bytes; accepted: up to {limits.photo_bytes}",
        )
    try:
        header = _parse_header(data)
    except Exception:
        # Pillow's parsers raise nearly anything on hostile input.
        if data.startswith(_SIGNATURES):
            raise invalid_image("image") from None
        raise RequestError(
            "unsupported_format", f"the photo's format is not recognised; {_ACCEPTED}"
        ) from None
    width, height = header.width, header.height
    if max(width, height) > limits.side:
        raise RequestError(
            "image_too_large",
            f"the photo is {width} x {height}; accepted: sides of up to {limits.side} pixels",
        )
    if width * height > max_pixels:
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


def invalid_image(kind: str) -> RequestError:
    """The error for a file that does not decode; ``kind`` is its format, or ``image``."""
    return RequestError(
        "invalid_image",
        f"the {kind} file is damaged, incomplete or of a rare kind; accepted: a whole file that an "
        "image viewer opens",
    )


def _parse_header(data: bytes | bytearray) -> ImageHeader:
    """The header as Pillow reads it. Raises any exception on invalid input."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    extra_samples = tags.get(_TIFF_EXTRA_SAMPLES)
    orientation = tags.get(_ORIENTATION, _exif(image).get(_ORIENTATION))
    header = ImageHeader(
        str(image.format),
        width,
        height,
        # Any other value counts as upright. The value may be a fraction that equals 6.
        int(orientation) if orientation in ORIENTATIONS else 1,
        image.has_transparency_data,
        # OpenCV multiplies colours by unassociated alpha itself, but not at more than 8 bits.
        extra_samples == _ASSOCIATED_ALPHA
        or (
            extra_samples == _UNASSOCIATED_ALPHA and tags.get(_TIFF_BITS_PER_SAMPLE) == (8, 8, 8, 8)
        ),
    )
    # Rejects a PNG chunk that claims more bytes than the file has, for which OpenCV would allocate
    # gigabytes.
    image.verify()
    return header


def _exif(image: Image.Image) -> Image.Exif:
    """The EXIF block before the pixels, empty where it is invalid.

    Image.getexif would decode all of a PNG to find a block after the pixels.
    """
    exif = Image.Exif()
    # Pillow raises nearly anything on invalid EXIF.
    with suppress(Exception):
        exif.load(image.info.get("exif", b""))
    return exif
