"""A photo decoded in one step, as large as it is."""

from __future__ import annotations

from camserve import pictures
from camserve.settings import Limits


def decode(data: bytes | bytearray, limits: Limits, pixels: int) -> pictures.Photo:
    """The photo, held to the limits and to ``pixels``."""
    return pictures.decode(data, pictures.inspect(data, limits, pixels))
