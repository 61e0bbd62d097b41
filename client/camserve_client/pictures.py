"""The pictures and maps in a reply."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from camserve_client.errors import InvalidReplyError
from camserve_client.json_node import JsonNode

_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Picture:
    """An encoded picture: a heatmap, an overlay or a mask.

    Attributes:
        data: the bytes of an image file.
        media_type: ``image/png``, ``image/jpeg`` or ``image/webp``.
        width, height: in pixels.
        grey: whether it has one channel, as a mask does, even if the file format stores three.

    Example:
        >>> overlay = reply.explanations[0].overlay
        >>> overlay.numpy().shape
        (224, 224, 3)
        >>> overlay.save("cat-tabby.jpg")
    """

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    grey: bool = False

    @classmethod
    def from_json(cls, node: JsonNode, grey: bool = False) -> Picture:
        """Read a picture's JSON.

        Raises:
            InvalidReplyError: the JSON does not match the schema.
        """
        encoded = node.required("b64")
        try:
            data = base64.b64decode(encoded.string(), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidReplyError(f"{encoded.path} is broken base64: {error}") from None
        return cls(
            data,
            node.required("media_type").string(),
            node.required("width").integer(1),
            node.required("height").integer(1),
            grey,
        )

    def pil(self) -> Image.Image:
        """Decode to a PIL image of mode ``L`` if the picture is grey, else ``RGB``.

        Raises:
            InvalidReplyError: the data is not a valid image.
        """
        try:
            with Image.open(BytesIO(self.data)) as image:
                return image.convert("L" if self.grey else "RGB")
        except OSError as error:
            raise InvalidReplyError(f"the picture cannot be decoded: {error}") from error

    def numpy(self) -> NDArray[np.uint8]:
        """Decode to uint8 pixels of shape (h, w) if the picture is grey, else RGB of (h, w, 3).

        Raises:
            InvalidReplyError: the data is not a valid image.
        """
        return np.array(self.pil())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """What :func:`numpy.asarray` calls: the pixels of :meth:`numpy`.

        Raises:
            ValueError: ``copy`` is False; decoding always makes a new array.
            InvalidReplyError: the data is not a valid image.
        """
        return _new_array(self.numpy(), dtype, copy)

    def save(self, path: str | PathLike[str], orientation: int = 1) -> None:
        """Write the picture to a file, in the format of :attr:`media_type`, whatever the suffix.

        Args:
            path: the file's path; its folder must exist.
            orientation: the EXIF orientation (1 to 8) to write. Pictures of any ``size`` but
                ``model`` have the orientation of the pixels in the photo's file; with
                ``reply.image.orientation`` here, viewers rotate them as they rotate the photo.

        Raises:
            OSError: the file cannot be written.
            InvalidReplyError: the data is not a valid image.
        """
        Path(path).write_bytes(
            self.data if orientation == 1 else self._with_orientation(orientation)
        )

    def _with_orientation(self, orientation: int) -> bytes:
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = orientation
        if self.media_type == "image/jpeg":
            # An APP1 segment after the SOI marker (Exif 2.32, 4.5.4): nothing is encoded again.
            segment = exif.tobytes()
            length = (len(segment) + 2).to_bytes(2, "big")
            return self.data[:2] + b"\xff\xe1" + length + segment + self.data[2:]
        file = BytesIO()
        try:
            with Image.open(BytesIO(self.data)) as image:
                # Encoded again: lossless for PNG, a small loss for WebP.
                image.save(file, image.format, exif=exif, quality=95)
        except OSError as error:
            raise InvalidReplyError(f"the picture cannot be decoded: {error}") from error
        return file.getvalue()


@dataclass(frozen=True)
class Map:
    """A map as numbers in [0, 1], on the grid of the target layer; of several layers, the finest.

    Attributes:
        shape: (h, w).
        values: the h * w values, row by row.

    Example:
        >>> reply.explanations[0].map.numpy().shape
        (7, 7)
    """

    shape: tuple[int, int]
    values: tuple[float, ...] = field(repr=False)

    @classmethod
    def from_json(cls, node: JsonNode) -> Map:
        """Read a map's JSON.

        Raises:
            InvalidReplyError: the JSON does not match the schema.
        """
        height, width = (side.integer(1) for side in node.required("shape").list_of_length(2))
        values = node.required("values").list_of_length(height * width)
        return cls((height, width), tuple(value.number() for value in values))

    def numpy(self) -> NDArray[np.float32]:
        """The values as float32 of shape (h, w)."""
        return np.array(self.values, np.float32).reshape(self.shape)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """What :func:`numpy.asarray` calls: the values of :meth:`numpy`.

        Raises:
            ValueError: ``copy`` is False; there is no array that could be shared.
        """
        return _new_array(self.numpy(), dtype, copy)


def _new_array(array: NDArray[Any], dtype: DTypeLike | None, copy: bool | None) -> NDArray[Any]:
    """An array of nobody else's as NumPy's protocol wants it."""
    if copy is False:
        raise ValueError("the array is decoded anew, so copy=False is not possible")
    return array if dtype is None else array.astype(dtype, copy=False)
