"""A photo in any of the forms that a caller has it in -> the bytes to send."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Encoded bytes, the path of a file, RGB pixels of shape (h, w, 3), or a PIL image.
Photo = bytes | str | PathLike[str] | NDArray[np.uint8] | Image.Image

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def encoded(photo: Photo) -> bytes:
    """The photo as the bytes of an image file.

    A file is sent as it is, and is the cheapest to send; pixels become a PNG.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: it is none of a photo's forms, or pixels of another shape or type.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | PathLike):
        return Path(photo).read_bytes()
    if isinstance(photo, np.ndarray):
        return _png(_image(photo))
    if isinstance(photo, Image.Image):
        return _png(photo)
    raise TypeError(
        f"a photo is bytes, a path, a numpy array or a PIL image, not {type(photo).__name__}"
    )


def _image(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"pixels must be uint8 of shape (h, w, 3), RGB, not {pixels.dtype} of {pixels.shape}"
        )
    return Image.fromarray(pixels)


def _png(image: Image.Image) -> bytes:
    # PNG knows neither CMYK nor floats, and holds no more than 16 bits.
    suited = image if image.mode in _PNG_MODES else image.convert("RGB")
    file = BytesIO()
    # With its EXIF, so that an image opened from a turned photo is explained as its file would be.
    # The fastest compression: it takes longer to press a photo than to send it.
    suited.save(file, "PNG", exif=image.getexif(), compress_level=1)
    return file.getvalue()
