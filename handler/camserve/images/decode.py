"""An image file -> its pixels, upright.

Each format has the decoder that is robust and reports damage: libjpeg by simplejpeg for JPEG,
Pillow for TIFF, for a GIF's first frame, HEIC and AVIF, OpenCV for the rest: on invalid and hostile
files it returns nothing where other decoders crash.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve.errors import RequestError
from camserve.images import bmp, gif, jpeg, png, tiff, tiff_pixels
from camserve.images.bmp import BitFields
from camserve.images.color_profile import ColorProfile, convert_to_srgb
from camserve.images.damage import (
    DAMAGED,
    END_MISSING,
    NO_END_MARKER,
    PROFILE_NOT_APPLIED,
    Decoded,
    FileWarning,
)
from camserve.images.formats import FORMAT_NAMES
from camserve.images.geometry import Box, Pixels, apply_orientation, to_upright_box, upright_size
from camserve.images.gif import FirstFrame
from camserve.images.header import PILLOW_FORMATS, ImageHeader, invalid_image
from camserve.images.png import PngFile
from camserve.images.tiff import TiffDirectory
from camserve.images.transparency import composite_on_white
from camserve.preprocess_settings import ColorManagement
from camserve.settings import Damaged

# Without OpenCV's own handling of the orientation, which is applied here, as the header has it.
_RGB_FLAGS: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# These keep the alpha channel.
_ALPHA_FLAGS: Final = (
    cv2.IMREAD_COLOR | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
)
_GREY_FLAGS: Final = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class DecodedPhoto:
    """A decoded photo.

    Attributes:
        upright: (height, width, 3) RGB, 0 to 255, as a viewer shows the photo.
        orientation: EXIF orientation, 1 to 8, that was applied to the file's pixels.
        original_size: width and height of the upright photo in file pixels; None where it was
            decoded at full size.
        scale_denominator: it was decoded at 1/``scale_denominator`` of its size: each decoded
            pixel covers ``scale_denominator`` x ``scale_denominator`` file pixels. The last of a
            row or column covers fewer where the size is not a multiple.
        warnings: what the decoder reported.
        profile: the colour profile that the pixels' colours are in; None where they are in sRGB,
            or nothing is known.
    """

    upright: Pixels
    orientation: int
    original_size: tuple[int, int] | None = None
    scale_denominator: int = 1
    warnings: tuple[FileWarning, ...] = ()
    profile: ColorProfile | None = None

    @property
    def full_size(self) -> tuple[int, int]:
        """Width and height of the upright photo in file pixels."""
        height, width = self.upright.shape[:2]
        return self.original_size or (width, height)

    @property
    def valid_region(self) -> Box:
        """The part of the decoded pixels that file pixels cover."""
        height, width = self.upright.shape[:2]
        # Whether width and height are exchanged is the same in both directions.
        file_width, file_height = upright_size(*self.full_size, self.orientation)
        scale = self.scale_denominator
        file_box = Box(0, 0, file_width / scale, file_height / scale)
        return to_upright_box(file_box, width, height, self.orientation)

    def resized(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        """The upright photo at another size (width, height)."""
        return Image.fromarray(self.upright).resize(size, resample, box=self.valid_region)


def decode_photo(
    data: bytes | bytearray,
    header: ImageHeader,
    scale_denominator: int = 1,
    *,
    damaged: Damaged = "tell",
    icc: ColorManagement = "ignore",
) -> DecodedPhoto:
    """Decode a photo and make it upright.

    16 bits are scaled to 8. Transparent parts become white. Of an animation the first frame is
    decoded; where it does not cover the canvas, that is white.

    Args:
        data: the file.
        header: the result of :func:`~camserve.images.header.read_header` for it.
        scale_denominator: the result of :func:`~camserve.images.preprocess.downscale_factor`.
        damaged: whether a file that the decoder reports damaged is refused. A file that lacks
            nothing but its end marker is not.
        icc: whether the photo's colours are converted to sRGB.

    Raises:
        RequestError: ``invalid_image``.
    """
    try:
        decoded = _decode(data, header, scale_denominator)
        if icc == "srgb" and header.has_profile:
            decoded = _in_srgb(decoded, data, header)
    except Exception:
        # Decoders raise nearly anything on hostile input.
        raise invalid_image(header.format) from None
    if (
        damaged == "refuse"
        and DAMAGED in decoded.warnings
        and NO_END_MARKER not in decoded.warnings
    ):
        raise RequestError(
            "invalid_image",
            f"the {FORMAT_NAMES[header.format]} file is damaged: its decoder reports that parts of "
            "the photo may be missing; accepted: an undamaged file",
        )
    converted = icc == "srgb" and PROFILE_NOT_APPLIED not in decoded.warnings
    upright = apply_orientation(decoded.pixels, header.orientation)
    original_size = (
        upright_size(header.width, header.height, header.orientation)
        if scale_denominator > 1
        else None
    )
    return DecodedPhoto(
        upright,
        header.orientation,
        original_size,
        scale_denominator,
        decoded.warnings,
        None if converted else header.profile,
    )


def _decode(data: bytes | bytearray, header: ImageHeader, scale_denominator: int) -> Decoded:
    """A file's pixels. Raises any exception on invalid input."""
    match header.format, header.layout:
        case "jpeg", _:
            return jpeg.decode(data, header.width, header.height, scale_denominator)
        case "png", PngFile() as file:
            return _decode_png(data, file)
        case "gif", FirstFrame() as frame:
            pixels = _draw_on_canvas(data, frame)
            return Decoded(pixels, () if frame.has_end else END_MISSING)
        case "tiff", TiffDirectory() as directory:
            return tiff_pixels.decode(data, directory)
        case "bmp", BitFields() as fields:
            return Decoded(_on_white(bmp.decode_bit_fields(data, fields)))
        case "heic" | "avif", _:
            return Decoded(_decode_with_pillow(data, header))
        case "bmp", _ if bmp.has_run_lengths(data):
            return Decoded(_decode_with_pillow(data, header))
        case _:
            return Decoded(_decode_with_opencv(data, transparent=header.transparent))


def _decode_png(data: bytes | bytearray, file: PngFile) -> Decoded:
    essential = png.essential(data, file)
    warnings = () if file.has_end else END_MISSING
    level = png.transparent_level(file)
    if level is None:
        return Decoded(_decode_with_opencv(essential, transparent=file.is_transparent), warnings)
    levels = cv2.imdecode(np.frombuffer(essential, np.uint8), _GREY_FLAGS)
    if levels is None:
        raise ValueError("OpenCV cannot decode the file")
    is_transparent = levels == level
    if levels.dtype != np.uint8:
        levels = cv2.convertScaleAbs(levels, alpha=1 / 257)
    levels[is_transparent] = 255
    return Decoded(cast(Pixels, cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB)), warnings)


def _decode_with_opencv(data: bytes | bytearray, *, transparent: bool) -> Pixels:
    """File pixels (height, width, 3) RGB. Raises ValueError, cv2.error or MemoryError."""
    encoded = np.frombuffer(data, np.uint8)
    if transparent:
        bgra = cv2.imdecode(encoded, _ALPHA_FLAGS)
        if bgra is not None and bgra.ndim == 3 and bgra.shape[2] == 4:
            return composite_on_white(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA))
    rgb = cv2.imdecode(encoded, _RGB_FLAGS)
    if rgb is None:
        raise ValueError("OpenCV cannot decode the file")
    return cast(Pixels, rgb)


def _decode_with_pillow(data: bytes | bytearray, header: ImageHeader) -> Pixels:
    image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS[header.format])
    return _on_white(np.asarray(image.convert("RGBA" if header.transparent else "RGB")))


def _draw_on_canvas(data: bytes | bytearray, frame: FirstFrame) -> Pixels:
    """A GIF's first frame on its canvas, (height, width, 3) RGB.

    Outside the frame the canvas is white, as on a web page.
    """
    # Not by OpenCV, which allocates its code table anew at each clear code: 35 s for a 1 MB file.
    file = io.BytesIO(gif.as_file(data, frame))
    pixels = np.asarray(Image.open(file, formats=("GIF",)).convert("RGB"))
    height, width = pixels.shape[:2]
    if (width, height) == (frame.width, frame.height):
        return pixels
    canvas = np.full((frame.height, frame.width, 3), 255, np.uint8)
    canvas[frame.top : frame.top + height, frame.left : frame.left + width] = pixels
    return canvas


def _on_white(pixels: NDArray[Any]) -> Pixels:
    """(h, w, 3) RGB as it is, (h, w, 4) RGBA over white."""
    return composite_on_white(pixels) if pixels.shape[2] == 4 else pixels


def _in_srgb(decoded: Decoded, data: bytes | bytearray, header: ImageHeader) -> Decoded:
    """The photo converted to sRGB; as it was, with a warning, where its profile does not fit."""
    profile = header.profile
    image = Image.fromarray(decoded.pixels)
    if profile and profile.space == "CMYK" and header.format in ("jpeg", "tiff"):
        # The profile describes the four colours of the file, which no other decoder here returns.
        file = tiff.clear_orientation(data) if header.format == "tiff" else data
        image = Image.open(io.BytesIO(file), formats=("JPEG", "TIFF"))
    try:
        if profile is None:
            raise ValueError("the profile cannot be used")
        return Decoded(convert_to_srgb(image, profile), decoded.warnings)
    except ValueError:
        return Decoded(decoded.pixels, (*decoded.warnings, PROFILE_NOT_APPLIED))
