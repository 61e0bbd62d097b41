"""An image file -> its pixels, upright.

OpenCV decodes: on invalid and hostile files it returns nothing where other decoders crash. Only a
GIF's first frame is decoded by Pillow.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve.images import gif, png, tiff
from camserve.images.geometry import Box, Pixels, apply_orientation, to_upright_box, upright_size
from camserve.images.header import ImageHeader, invalid_image

# Without OpenCV's own handling of the orientation, which is applied here, as the header has it.
_RGB_FLAGS: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# These keep the alpha channel.
_ALPHA_FLAGS: Final = (
    cv2.IMREAD_COLOR | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
)
#: A JPEG can be decoded at 1/8, 1/4 or 1/2 of its size, which skips most of the work: the flag for
#: each denominator.
DOWNSCALE_FLAGS: Final = {
    # Without the bit for BGR, which would contradict the one for RGB.
    denominator: flag & ~cv2.IMREAD_COLOR
    for denominator, flag in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    )
}


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
    """

    upright: Pixels
    orientation: int
    original_size: tuple[int, int] | None = None
    scale_denominator: int = 1

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
    data: bytes | bytearray, header: ImageHeader, scale_denominator: int = 1
) -> DecodedPhoto:
    """Decode a photo and make it upright.

    16 bits are scaled to 8. Transparent parts become white, except where OpenCV does not decode
    transparency: in a grey TIFF, and for the one transparent level of a grey PNG. Of an animation
    the first frame is decoded; where it does not cover the canvas, that is white.

    Args:
        data: the file.
        header: the result of :func:`~camserve.images.header.read_header` for it.
        scale_denominator: the result of :func:`~camserve.images.preprocess.downscale_factor`.

    Raises:
        RequestError: ``invalid_image``.
    """
    try:
        match header.format:
            case "GIF":
                pixels = _draw_on_canvas(gif.first_frame(data), header)
            case "PNG":
                pixels = _decode(png.strip_icc_profiles(data), header, scale_denominator)
            case "TIFF":
                pixels = _decode(tiff.clear_orientation(data), header, scale_denominator)
            case _:
                pixels = _decode(data, header, scale_denominator)
    except (ValueError, SyntaxError, OSError, EOFError, MemoryError, cv2.error):
        raise invalid_image(header.format) from None
    upright = apply_orientation(pixels, header.orientation)
    original_size = (
        upright_size(header.width, header.height, header.orientation)
        if scale_denominator > 1
        else None
    )
    return DecodedPhoto(upright, header.orientation, original_size, scale_denominator)


def _decode(data: bytes | bytearray, header: ImageHeader, scale_denominator: int) -> Pixels:
    """File pixels (height, width, 3) RGB. Raises ValueError, cv2.error or MemoryError."""
    encoded = np.frombuffer(data, np.uint8)
    if header.transparent:
        bgra = cv2.imdecode(encoded, _ALPHA_FLAGS)
        if bgra is not None and bgra.ndim == 3 and bgra.shape[2] == 4:
            return _composite_on_white(bgra, header.premultiplied)
    rgb = cv2.imdecode(encoded, _RGB_FLAGS | DOWNSCALE_FLAGS.get(scale_denominator, 0))
    if rgb is None:
        raise ValueError("OpenCV cannot decode the file")
    return cast(Pixels, rgb)


def _draw_on_canvas(frame: gif.FirstFrame, header: ImageHeader) -> Pixels:
    """A GIF's first frame on its canvas, (height, width, 3) RGB.

    Outside the frame the canvas is white, as on a web page.
    """
    # Not by OpenCV, which allocates its code table anew at each clear code: 35 s for a 1 MB file.
    pixels = np.asarray(Image.open(io.BytesIO(frame.file), formats=("GIF",)).convert("RGB"))
    height, width = pixels.shape[:2]
    if (height, width) == (header.height, header.width):
        return pixels
    canvas = np.full((header.height, header.width, 3), 255, np.uint8)
    # Pillow's header has a canvas that its first frame fits in. Where Pillow takes another block
    # for the first frame than gif.first_frame does, this raises ValueError.
    canvas[frame.top : frame.top + height, frame.left : frame.left + width] = pixels
    return canvas


def _composite_on_white(bgra: NDArray[Any], premultiplied: bool) -> Pixels:
    """(height, width, 4) BGRA of 8 or 16 bits -> (height, width, 3) RGB over white."""
    if bgra.dtype != np.uint8:
        bgra = cv2.convertScaleAbs(bgra, alpha=1 / 257)
    rgba = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA).astype(np.uint16)
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if premultiplied:
        return cast(Pixels, np.minimum(rgb + (255 - alpha), 255).astype(np.uint8))
    # 16 bits do not overflow: 255 * 255 + 127 < 2 ** 16.
    return cast(Pixels, ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
