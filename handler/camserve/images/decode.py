"""A photo's file -> its pixels, upright.

OpenCV decodes: on damaged and hostile files it returns nothing where other decoders crash. Of a
GIF, Pillow decodes the one frame that is cut out of it.
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
from camserve.images.geometry import Box, Pixels, apply_orientation, upright_box, upright_size
from camserve.images.header import ImageHeader, damaged

# As the file stores it: how it is turned is decided in one place, by the header.
_STORED: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# These keep the transparency.
_WITH_ALPHA: Final = (
    cv2.IMREAD_COLOR | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
)
# JPEG's own steps of decoding at a part of the size, which leave most of the work undone.
REDUCTIONS: Final = {
    # Without the bit for BGR, which would contradict that for RGB.
    step: flag & ~cv2.IMREAD_COLOR
    for step, flag in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    )
}

# A damaged file is the caller's error and answered as one; the worker's log needs no line of it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# A batch's photos are decoded side by side; threads within each would only stand in the way.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class DecodedPhoto:
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


def decode_photo(data: bytes | bytearray, header: ImageHeader, reduced: int = 1) -> DecodedPhoto:
    """Decode a photo and turn it upright.

    16 bits are scaled to 8, transparency lies on white (but where OpenCV does not read it: a grey
    TIFF's, and the one transparent level of a grey PNG), an animation is its first frame, on white
    where that leaves its screen free.

    Args:
        data: the file.
        header: that :func:`~camserve.images.header.read_header` read of it.
        reduced: what :func:`~camserve.images.preprocess.downscale_factor` says.

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
                stored = _decode(tiff.clear_orientation(data), header, reduced)
            case _:
                stored = _decode(data, header, reduced)
    except (ValueError, SyntaxError, OSError, EOFError, MemoryError, cv2.error):
        raise damaged(header.format) from None
    upright = apply_orientation(stored, header.orientation)
    size = upright_size(header.width, header.height, header.orientation) if reduced > 1 else None
    return DecodedPhoto(upright, header.orientation, size, reduced)


def _decode(data: bytes | bytearray, header: ImageHeader, reduced: int) -> Pixels:
    if header.transparent:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), _WITH_ALPHA)
        if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
            return _on_white(stored, header.premultiplied)
    return _opaque(data, reduced)


def _first_frame(frame: gif.FirstFrame, header: ImageHeader) -> Pixels:
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
    photo = cv2.imdecode(encoded, _STORED | REDUCTIONS.get(reduced, 0))
    if photo is None:
        raise ValueError("it does not decode")
    return cast(Pixels, photo)


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
