"""A photo decoded, and an explanation rendered, in one step each."""

from __future__ import annotations

from camserve.images import decode, header, heatmap, render
from camserve.images.geometry import Background, InputFrame
from camserve.options import Options, Output
from camserve.preprocess_settings import InputSize
from camserve.settings import Limits


def decode_full_size(data: bytes | bytearray, limits: Limits, pixels: int) -> decode.DecodedPhoto:
    """The photo at its full size, held to the limits and to ``pixels``."""
    return decode.decode_photo(data, header.read_header(data, limits, pixels))


def drawn(
    heat: heatmap.Heatmap,
    view: Background,
    frame: InputFrame,
    input_size: InputSize,
    options: Options,
) -> dict[Output, render.RenderedOutput]:
    """The outputs of one explanation, rendered and encoded, in the order of the options."""
    steps = render.render_outputs(heat, view, frame, input_size, options)
    return {output: finish() for output, finish in zip(options.outputs, steps, strict=True)}
