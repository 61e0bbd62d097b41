"""The pictures and maps of a reply."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camserve_client.errors import ReplyError
from camserve_client.parsing import Node

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        data: the bytes of an image file.
        media_type: ``image/png``, ``image/jpeg`` or ``image/webp``.
        width, height: in pixels.
        grey: whether it is one, as a mask is, whatever its format makes of that.
    """

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    grey: bool = False

    @classmethod
    def from_json(cls, node: Node, grey: bool = False) -> Picture:
        """Raises ReplyError where it is not as agreed."""
        encoded = node.get("b64")
        try:
            data = base64.b64decode(encoded.text(), validate=True)
        except (binascii.Error, ValueError) as failure:
            raise ReplyError(f"{encoded.where} is broken base64: {failure}") from None
        return cls(
            data,
            node.get("media_type").text(),
            node.get("width").whole(1),
            node.get("height").whole(1),
            grey,
        )

    def pil(self) -> Image.Image:
        """Decoded: mode ``L`` where it is grey, else ``RGB``.

        Raises:
            ReplyError: the data are no image.
        """
        try:
            with Image.open(BytesIO(self.data)) as image:
                return image.convert("L" if self.grey else "RGB")
        except OSError as failure:
            raise ReplyError(f"the picture cannot be decoded: {failure}") from failure

    def numpy(self) -> NDArray[np.uint8]:
        """Decoded: uint8, (h, w) where it is grey, else RGB (h, w, 3). Raises as :meth:`pil`."""
        return np.array(self.pil())

    def save(self, path: str | PathLike[str], orientation: int = 1) -> None:
        """Write the picture to a file, in the format it came in whatever the file's suffix.

        Args:
            path: of the file; its folder must be there.
            orientation: the EXIF orientation (1 to 8) to give it. Of any size but ``model``, a
                picture lies as the pixels of the photo's file do; with that photo's
                ``reply.image.orientation``, viewers turn it as they turn the photo.

        Raises:
            OSError: the file cannot be written.
            ReplyError: the data are no image.
        """
        Path(path).write_bytes(self.data if orientation == 1 else self._turned(orientation))

    def _turned(self, orientation: int) -> bytes:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        if self.media_type == "image/jpeg":
            # A segment after the marker that starts the file (Exif 2.32, 4.5.4).
            segment = exif.tobytes()
            length = (len(segment) + 2).to_bytes(2, "big")
            return self.data[:2] + b"\xff\xe1" + length + segment + self.data[2:]
        file = BytesIO()
        try:
            with Image.open(BytesIO(self.data)) as image:
                # Written anew, a PNG loses nothing and a WebP little.
                image.save(file, image.format, exif=exif, quality=95)
        except OSError as failure:
            raise ReplyError(f"the picture cannot be decoded: {failure}") from failure
        return file.getvalue()


@dataclass(frozen=True)
class Map:
    """A map as numbers in [0, 1].

    Attributes:
        shape: (h, w).
        values: h * w of them, row by row.
    """

    shape: tuple[int, int]
    values: tuple[float, ...] = field(repr=False)

    @classmethod
    def from_json(cls, node: Node) -> Map:
        """Raises ReplyError where it is not as agreed."""
        height, width = (side.whole(1) for side in node.get("shape").exactly(2))
        values = node.get("values").exactly(height * width)
        return cls((height, width), tuple(value.number() for value in values))

    def numpy(self) -> NDArray[np.float32]:
        """float32 of shape (h, w)."""
        return np.array(self.values, np.float32).reshape(self.shape)
