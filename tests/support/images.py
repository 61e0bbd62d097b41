"""A photo decoded, and an explanation rendered, in one step each."""

from __future__ import annotations

from camserve.images import decode, render
from camserve.images.geometry import Frame, View
from camserve.options import Options, Output
from camserve.settings import Limits


def decode_photo(data: bytes | bytearray, limits: Limits, pixels: int) -> decode.Photo:
    """The photo at its full size, held to the limits and to ``pixels``."""
    return decode.decode(data, decode.inspect(data, limits, pixels))


def drawn(
    heat: render.Heat, view: View, frame: Frame, side: int, options: Options
) -> dict[Output, render.Drawing]:
    """The outputs of one explanation, rendered and encoded, in the order of the options."""
    steps = render.draw(heat, view, frame, side, options)
    return {output: finish() for output, finish in zip(options.outputs, steps, strict=True)}
