"""The heat of a disc lies on it in the photo's own file, however that is turned; a real server."""

from __future__ import annotations

import io
import json
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.color_resnet import photo
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, picture

ORIENTATION = 0x0112
OPTIONS = {"target": "red", "outputs": ["mask", "boxes", "overlay"]}
#: The file's size, and a red disc's centre and radius in it.
LANDSCAPE = (451, 300), (168, 200), 80
PORTRAIT = (301, 452), (105, 265), 80
SQUARE = (333, 333), (220, 130), 75
CASES = [
    *((LANDSCAPE, "JPEG", orientation, "original") for orientation in range(1, 9)),
    (PORTRAIT, "JPEG", 6, 700),
    (PORTRAIT, "PNG", 1, "original"),
    (PORTRAIT, "TIFF", 8, "original"),
    (SQUARE, "WEBP", 3, "original"),
    (SQUARE, "PNG", 5, 120),
]


def written(pixels: NDArray[np.uint8], format: str, orientation: int) -> bytes:
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95},
        "PNG": {},
        "WEBP": {"lossless": True},
        # In several strips.
        "TIFF": {"compression": "tiff_lzw", "strip_size": 8192},
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, exif=exif, **options[format])
    return file.getvalue()


@pytest.mark.parametrize(
    ("scene", "format", "orientation", "size", "way"),
    # By turns.
    [(*case, ("form", "header")[n % 2]) for n, case in enumerate(CASES)],
)
def test_disc_is_found_in_the_files_pixels(
    server: Client, scene: Any, format: str, orientation: int, size: str | int, way: str
) -> None:
    (width, height), (x, y), radius = scene
    stored = photo(("red", (x, y), radius), width=width, height=height)
    data, options = written(stored, format, orientation), {**OPTIONS, "size": size}
    path = f"/predictions/{COLOR_MODEL}"
    if way == "form":
        fields = {"options": json.dumps(options)}
        response = server.http.post(path, files={"data": data}, data=fields)
    else:
        headers = {"X-Explain": json.dumps(options), "Content-Type": "application/octet-stream"}
        response = server.http.post(path, content=data, headers=headers)
    assert response.status_code == 200, response.text
    reply = response.json()

    about = reply["image"]
    assert [about[key] for key in ("width", "height", "orientation")] == [
        width,
        height,
        orientation,
    ]
    (explanation,) = reply["explanations"]
    left, top, right, bottom = explanation["boxes"][0]["box"]
    assert left < x < right
    assert top < y < bottom
    # About it: the network's map has 7 cells a side, and tells of each cell's first pixel.
    x0, y0, x1, y1 = about["seen"]
    assert abs((left + right) / 2 - x) < 1.1 * (x1 - x0) / 7
    assert abs((top + bottom) / 2 - y) < 1.1 * (y1 - y0) / 7

    scale = 1 if size == "original" else int(size) / max(width, height)
    drawn = round(width * scale), round(height * scale)
    mask = picture(explanation["mask"])[..., 0]
    assert mask.shape == drawn[::-1]
    assert mask[int(y * scale), int(x * scale)] > 170
    across = (np.arange(drawn[0]) + 0.5) * width / drawn[0]
    down = (np.arange(drawn[1]) + 0.5) * height / drawn[1]
    # ``seen`` is rounded to thousandths.
    assert not mask[:, (across < x0 - 0.001) | (across > x1 + 0.001)].any()
    assert not mask[(down < y0 - 0.001) | (down > y1 + 0.001)].any()

    jet = np.ascontiguousarray(cv2.applyColorMap(mask, cv2.COLORMAP_JET)[..., ::-1])
    raster = cv2.resize(stored, drawn, interpolation=cv2.INTER_AREA)
    expected = cv2.addWeighted(jet, 0.3, raster, 0.7, 0)
    # Coding and scaling change a disc's rim.
    assert np.abs(picture(explanation["overlay"]).astype(int) - expected).mean() < 2
