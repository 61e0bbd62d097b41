"""The pictures of the page that need no photo: mean maps, and the reliability diagram."""

from __future__ import annotations

import base64
from io import BytesIO

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from camserve_cli.report.explained_photos import Floats
from camserve_cli.report.figures.calibration import Calibration

_SIDE = 112


def heat_picture(heat: Floats) -> str:
    """A map (h, w) in JET, scaled to its maximum, as a ``data:`` URL of a WebP."""
    peak = float(heat.max(initial=0))
    scaled = np.zeros(heat.shape) if peak <= 0 else heat / peak
    fine = cv2.resize(scaled.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((fine.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_JET)
    file = BytesIO()
    Image.fromarray(colours[..., ::-1]).save(file, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def pack_map(heat: NDArray[np.floating]) -> str:
    """A map in [0, 1] as base64 of a byte for each cell, row by row."""
    return base64.b64encode(map_bytes(heat)).decode()


def map_bytes(heat: NDArray[np.floating]) -> bytes:
    """Maps in [0, 1], a byte for each cell."""
    return np.round(np.asarray(heat, np.float32).clip(0, 1) * 255).astype(np.uint8).tobytes()


def reliability_diagram(calibration: Calibration) -> Markup:
    """Accuracy over confidence, a bar for each tenth, as SVG."""
    side, parts = 200, []
    for one in calibration.bins:
        if one.count == 0:
            continue
        left, width = one.low * side, (one.high - one.low) * side
        height = one.accuracy * side
        label = (
            f"{one.low:.0%} to {one.high:.0%}: {one.count} predictions, mean confidence "
            f"{one.confidence:.0%}, {one.accuracy:.0%} right"
        )
        parts.append(
            Markup(
                '<g><title>{}</title><rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" '
                'height="{:.1f}"/><circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"/></g>'
            ).format(
                label, left + 1, side - height, width - 2, height,
                one.confidence * side, side - height,
            )
        )  # fmt: skip
    return Markup(
        '<svg class="reliability" viewBox="-36 -8 246 244" role="img" aria-label="{}">'
        '<rect class="frame" width="{side}" height="{side}"/>{}'
        '<line class="ideal" x1="0" y1="{side}" x2="{side}" y2="0"/>'
        '<text x="0" y="216">0%</text><text x="200" y="216" text-anchor="end">100%</text>'
        '<text x="100" y="232" text-anchor="middle">confidence</text>'
        '<text x="-6" y="200" text-anchor="end">0%</text>'
        '<text x="-6" y="10" text-anchor="end">100%</text>'
        '<text x="-14" y="100" text-anchor="middle" transform="rotate(-90 -14 100)">right</text>'
        "</svg>"
    ).format(
        "How many predictions are right, by confidence. The line is a model that is as often "
        "right as it is sure.",
        Markup("").join(parts),
        side=side,
    )
