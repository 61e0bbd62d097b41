"""The first frame of every GIF of the tests is what a real Chromium shows."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.browser import page_server, report_of_page
from tests.support.gif_files import (
    CANVAS,
    COMMENT,
    GLOBAL,
    INDICES,
    LOCAL,
    LOOP,
    PLAIN_TEXT,
    animation,
    control,
    image,
)
from tests.support.image_files import decode_default

pytestmark = pytest.mark.env

#: Draws each file on white, and tells the pixels, red, green, blue and alpha of each.
PAGE = """<script>
const files = %s;
(async () => {
  const found = {};
  for (const [name, text] of Object.entries(files)) {
    const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
    try {
      const bitmap = await createImageBitmap(new Blob([bytes], {type: "image/gif"}));
      const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      const context = canvas.getContext("2d");
      context.fillStyle = "white";
      context.fillRect(0, 0, bitmap.width, bitmap.height);
      context.drawImage(bitmap, 0, 0);
      const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
      found[name] = {width: bitmap.width, pixels: Array.from(pixels)};
    } catch (failure) { found[name] = {failure: failure.name}; }
  }
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


def gif_files() -> dict[str, bytes]:
    files = {}
    for first, later, disposal in itertools.product((None, 1), (None, 1, 2), range(4)):
        for corner, local, interlaced in itertools.product(
            ((0, 0), (2, 3)), ((), LOCAL), (False, True)
        ):
            indices = INDICES[corner[1] :, corner[0] :]
            name = f"first {first}, later {later}, disposal {disposal}, at {corner}"
            files[f"{name}, {len(local)} local colours, interlaced {interlaced}"] = animation(
                LOOP,
                control(first, disposal),
                image(indices, corner, local, interlaced),
                control(later, disposal),
                image(np.flipud(INDICES)),
            )
    controls = {
        "with, without": (control(1), control()),
        "without, with": (control(), control(1)),
        "three": (control(2), control(1, 3), control(None, 2)),
        "text between": (control(1), PLAIN_TEXT),
        "comment between": (control(1), COMMENT),
        "none": (),
    }
    for name, blocks in controls.items():
        data = animation(*blocks, image(INDICES), table=GLOBAL)
        files[name] = data
        files[f"{name}, without its last byte"] = data[:-1]
    return files


def test_chromium_shows_the_same_first_frame(chromium: list[str | Path], tmp_path: Path) -> None:
    files = gif_files()
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    with page_server() as server:
        found = report_of_page(server, PAGE % json.dumps(encoded), chromium, tmp_path)
    assert found.keys() == files.keys()
    differing = {}
    for name, data in files.items():
        shown = np.array(found[name].get("pixels", []), np.uint8).reshape(-1, CANVAS[0], 4)
        ours = decode_default(data).upright
        if shown.shape[:2] != ours.shape[:2] or not np.array_equal(shown[..., :3], ours):
            differing[name] = found[name]
    assert differing == {}
