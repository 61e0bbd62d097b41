"""An image file's header, checked against the limits before the file is decoded.

Pillow reads size, orientation and transparency, where no module of this wing does so for a format.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from camserve.errors import RequestError
from camserve.images import bmp, gif, jpeg, png, tiff
from camserve.images.bmp import BitFields
from camserve.images.color_profile import ColorProfile, read_profile
from camserve.images.formats import FORMAT_NAMES, identify, unsupported
from camserve.images.geometry import ORIENTATIONS
from camserve.images.gif import FirstFrame
from camserve.images.png import PngFile
from camserve.images.tiff import TiffDirectory
from camserve.settings import DEFAULT_FORMATS, Limits, PhotoFormat

#: Pillow's names of the formats whose header it reads.
PILLOW_FORMATS: Final[dict[PhotoFormat, tuple[str, ...]]] = {
    # MPO, a JPEG followed by further ones, as some cameras write, is read by the same.
    "jpeg": ("JPEG",),
    "webp": ("WEBP",),
    "bmp": ("BMP",),
    "heic": ("HEIF",),
    "avif": ("AVIF",),
}
#: A progressive JPEG has some ten. Each scan is a pass over all pixels and can be 30 bytes long.
MAX_JPEG_SCANS: Final = 50
_ORIENTATION: Final = 274


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header says.

    Attributes:
        format: of the file.
        width, height: of the photo, in file pixels.
        orientation: EXIF orientation, 1 to 8.
        transparent: the photo has an alpha channel or a transparent colour.
        has_profile: the file has a colour profile, one that can be used or not.
        profile: its colour profile, if it has one that can be used.
        layout: what only the decoder of its format needs.
    """

    format: PhotoFormat
    width: int
    height: int
    orientation: int
    transparent: bool
    has_profile: bool = False
    profile: ColorProfile | None = None
    layout: PngFile | TiffDirectory | BitFields | FirstFrame | None = None


def read_header(
    data: bytes | bytearray,
    limits: Limits,
    max_pixels: int,
    formats: Collection[PhotoFormat] = DEFAULT_FORMATS,
) -> ImageHeader:
    """Read a file's header and check it against the limits, without decoding the file.

    Args:
        data: the file.
        limits: of the operator.
        max_pixels: how many pixels the photo may have.
        formats: that are accepted.

    Raises:
        RequestError: ``unsupported_format``, ``image_too_large``, ``invalid_image``.
    """
    if len(data) > limits.photo_bytes:
        raise RequestError(
            "image_too_large",
            f"the photo's file has {len(data)} bytes; accepted: up to {limits.photo_bytes}",
        )
    format = identify(data, formats)
    try:
        header = _parse_header(data, format)
    except _UnsupportedKindError as kind:
        raise unsupported(str(kind), format, formats) from None
    except Exception:
        # Pillow's parsers raise nearly anything on hostile input.
        raise invalid_image(format) from None
    if min(header.width, header.height) < 1:
        raise invalid_image(format)
    check_size(header.width, header.height, limits, max_pixels)
    if format == "jpeg" and (scans := jpeg.count_scans(data)) > MAX_JPEG_SCANS:
        raise RequestError(
            "image_too_large",
            f"the JPEG draws its photo in {scans} scans; accepted: up to {MAX_JPEG_SCANS}",
        )
    return header


def check_size(width: int, height: int, limits: Limits, max_pixels: int) -> None:
    """Reject a photo that is larger than the limits, or longer.

    Args:
        width, height: of the photo, in pixels.
        limits: of the operator.
        max_pixels: how many pixels the photo may have.

    Raises:
        RequestError: ``image_too_large``.
    """
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


def invalid_image(format: PhotoFormat) -> RequestError:
    """The error for a file of this format that does not decode."""
    return RequestError(
        "invalid_image",
        f"the {FORMAT_NAMES[format]} file is damaged, incomplete or of a rare kind; accepted: a "
        "whole file that an image viewer opens",
    )


class _UnsupportedKindError(Exception):
    """The file is of a kind that no decoder here reads right; its text says of which."""


def _parse_header(data: bytes | bytearray, format: PhotoFormat) -> ImageHeader:
    """The header. Raises _UnsupportedKindError, and any exception on invalid input."""
    if format == "png":
        return _png_header(data)
    if format == "tiff":
        return _tiff_header(data)
    if format == "gif":
        # Pillow would allocate what the first frame claims, to dispose of it.
        frame = gif.first_frame(data)
        return ImageHeader("gif", frame.width, frame.height, 1, True, layout=frame)
    if format == "bmp":
        if kind := bmp.unsupported_kind(data):
            raise _UnsupportedKindError(kind)
        if fields := bmp.read_bit_fields(data):
            return ImageHeader(
                "bmp", fields.width, fields.height, 1, bool(fields.masks[3]), layout=fields
            )
    if format == "jpeg" and (kind := jpeg.unsupported_kind(data)):
        raise _UnsupportedKindError(kind)
    image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS[format])
    width, height = image.size
    profile = image.info.get("icc_profile") or b""
    # Image.getexif would also decode what comes after the pixels.
    orientation = _exif_orientation(image.info.get("exif", b""))
    return ImageHeader(
        format,
        width,
        height,
        orientation,
        image.has_transparency_data,
        bool(profile),
        read_profile(profile),
    )


def _png_header(data: bytes | bytearray) -> ImageHeader:
    file = png.read(data)
    return ImageHeader(
        "png",
        file.width,
        file.height,
        _exif_orientation(file.exif),
        file.is_transparent,
        file.profile is not None,
        read_profile(file.profile),
        file,
    )


def _tiff_header(data: bytes | bytearray) -> ImageHeader:
    directory = tiff.read_directory(data)
    if isinstance(directory, str):
        raise _UnsupportedKindError(directory)
    return ImageHeader(
        "tiff",
        directory.width,
        directory.height,
        _valid_orientation(directory.orientation),
        directory.alpha is not None,
        bool(directory.profile),
        read_profile(directory.profile),
        directory,
    )


def _exif_orientation(block: bytes) -> int:
    """The orientation of an EXIF block; 1 where it has none, or is invalid."""
    exif = Image.Exif()
    # Pillow raises nearly anything on invalid EXIF.
    with suppress(Exception):
        exif.load(block)
    return _valid_orientation(exif.get(_ORIENTATION))


def _valid_orientation(value: Any) -> int:
    """The orientation; any value that does not exist counts as upright."""
    # The value may be a fraction that equals 6.
    return int(value) if value in ORIENTATIONS else 1
