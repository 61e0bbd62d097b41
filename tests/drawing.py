"""What a request asks for of one explanation, drawn and encoded in one step."""

from __future__ import annotations

from camserve import render
from camserve.geometry import Frame, View
from camserve.options import Options, Output


def drawn(
    heat: render.Heat, view: View, frame: Frame, side: int, options: Options
) -> dict[Output, render.Drawing]:
    """The outputs, in the order of the options."""
    steps = render.draw(heat, view, frame, side, options)
    return {output: finish() for output, finish in zip(options.outputs, steps, strict=True)}
