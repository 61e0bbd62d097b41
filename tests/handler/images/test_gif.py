"""A GIF's first frame as a browser shows it first: pixel by pixel, and next to Pillow's."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camserve.errors import RequestError
from camserve.images import gif
from tests.support.gif_files import (
    COMMENT,
    GLOBAL,
    GREYS,
    INDICES,
    LOCAL,
    LOOP,
    PLAIN_TEXT,
    animation,
    control,
    expected_pixels,
    image,
)
from tests.support.image_files import decode_default, decode_with_pillow

FIRST, LATER = (None, 1), (None, 1, 2)
TABLES = ((GLOBAL, ()), ((), LOCAL), (GLOBAL, LOCAL), ((), ()))
CORNERS = ((0, 0), (2, 3))


@pytest.mark.parametrize("disposal", range(4))
@pytest.mark.parametrize("last", LATER, ids="last-transparent-{}".format)
@pytest.mark.parametrize("first", FIRST, ids="first-transparent-{}".format)
def test_the_first_frames_own_transparency_applies(
    first: int | None, last: int | None, disposal: int
) -> None:
    for (table, local), corner, interlaced in itertools.product(TABLES, CORNERS, (False, True)):
        indices = INDICES[corner[1] :, corner[0] :]
        later = image(np.flipud(INDICES), table=local) + control(last) + image(INDICES, table=LOCAL)
        data = animation(
            LOOP,
            control(first, disposal),
            image(indices, corner, local, interlaced),
            control(last, disposal),
            later,
            table=table,
        )
        got = decode_default(data).upright
        assert np.array_equal(got, expected_pixels(indices, local or table or GREYS, first, corner))
        # Pillow fills what the frame leaves free with its first colour where none is transparent.
        filled = np.s_[:] if first is not None else np.s_[corner[1] :, corner[0] :]
        assert np.array_equal(got[filled], decode_with_pillow(data)[filled])


@pytest.mark.parametrize(
    ("data", "transparent"),
    [
        pytest.param(animation(image(INDICES)), None, id="no-control"),
        pytest.param(animation(image(INDICES), control(1)), None, id="control-behind-the-last"),
        pytest.param(
            animation(image(INDICES), control(1), image(INDICES)), None, id="control-behind"
        ),
        pytest.param(animation(control(1), image(INDICES), image(INDICES)), 1, id="only-first"),
        pytest.param(animation(control(2), control(1), image(INDICES)), 1, id="two-controls"),
        pytest.param(animation(control(1), COMMENT, image(INDICES)), 1, id="comment-between"),
        pytest.param(animation(COMMENT, image(INDICES), COMMENT), None, id="comments"),
        pytest.param(animation(control(1), PLAIN_TEXT, image(INDICES)), 1, id="text-between"),
        pytest.param(animation(control(200), image(INDICES)), None, id="index-not-in-the-table"),
        pytest.param(animation(control(1), b"\0\0", image(INDICES)), 1, id="zeros-between"),
        pytest.param(animation(control(1), image(INDICES, block=1)), 1, id="blocks-of-one-byte"),
        pytest.param(animation(image(INDICES), background=200), None, id="background-out-of-range"),
        pytest.param(animation(control(1), image(INDICES), end=b""), 1, id="no-end"),
        pytest.param(animation(image(INDICES), image(INDICES)[:30], end=b""), None, id="cut-later"),
        pytest.param(animation(image(INDICES), b"\xff" * 99), None, id="junk-behind"),
        pytest.param(
            animation(image(INDICES), image(INDICES, (60_000, 60_000))), None, id="later-outside"
        ),
        pytest.param(b"GIF87a" + animation(image(INDICES))[6:], None, id="gif87a"),
    ],
)
def test_only_extensions_before_the_first_frame_apply(data: bytes, transparent: int | None) -> None:
    got = decode_default(data).upright
    assert np.array_equal(got, expected_pixels(INDICES, GLOBAL, transparent))
    assert np.array_equal(got, decode_with_pillow(data))
    assert np.array_equal(got, decode_default(bytearray(data)).upright)


@pytest.mark.parametrize(
    ("controls", "transparent"),
    [
        ((control(1), control()), None),
        ((control(), control(1)), 1),
        ((control(2), control(1, 3), control(None, 2)), None),
        ((control(1), COMMENT, control(), PLAIN_TEXT), None),
    ],
)
def test_the_last_control_applies_as_in_browsers(
    controls: tuple[bytes, ...], transparent: int | None
) -> None:
    # Pillow goes on with the last transparent colour that any of them names.
    got = decode_default(animation(*controls, image(INDICES))).upright
    assert np.array_equal(got, expected_pixels(INDICES, GLOBAL, transparent))


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_the_end_may_be_missing(cut: int) -> None:
    data = animation(control(1), image(INDICES))
    photo = decode_default(data[: len(data) - cut])
    assert np.array_equal(photo.upright, expected_pixels(INDICES, GLOBAL, 1))
    assert photo.warnings == (("damaged", "no_end_marker") if cut else ())


@pytest.mark.parametrize("transparent", [None, 1, 200])
def test_an_index_beyond_the_table_is_black(transparent: int | None) -> None:
    indices = INDICES * 50
    data = animation(control(transparent), image(indices))
    assert np.array_equal(
        decode_default(data).upright, expected_pixels(indices, GLOBAL, transparent)
    )
    assert np.array_equal(decode_default(data).upright, decode_with_pillow(data))


@pytest.mark.parametrize("transparent", [None, 1])
def test_a_first_frame_larger_than_the_canvas_enlarges_it(transparent: int | None) -> None:
    data = animation(control(transparent), image(INDICES, (1, 2)), canvas=(3, 4))
    expected = expected_pixels(INDICES, GLOBAL, transparent, (1, 2), canvas=(7, 11))
    assert np.array_equal(decode_default(data).upright, expected)


@pytest.mark.parametrize("options", [{}, {"disposal": 2}, {"interlace": 0}, {"optimize": True}])
@pytest.mark.parametrize(("first", "last"), [*itertools.product(("RGB", "RGBA"), repeat=2)])
def test_animations_that_pillow_writes(first: str, last: str, options: dict[str, Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 4), np.uint8)
    frames = [
        Image.fromarray(frame_pixels).convert(mode)
        for frame_pixels, mode in zip(pixels, (first, last), strict=True)
    ]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(
        decode_default(file.getvalue()).upright, decode_with_pillow(file.getvalue())
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(animation(image(INDICES)[:40], end=b""), id="cut-inside-the-first-frame"),
        pytest.param(animation(), id="no-image"),
        pytest.param(animation(control(1)), id="only-a-control"),
        pytest.param(animation(image(INDICES[:0])), id="no-rows"),
        pytest.param(animation(image(INDICES)[:11] + b"\0;"), id="no-pixels"),
        pytest.param(animation()[:13], id="only-a-header"),
    ],
)
def test_a_gif_without_a_whole_first_frame_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError) as error:
        decode_default(data)
    assert error.value.code == "invalid_image"


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(image(INDICES, block=1)[:-1] + b"\1\0" * 1_700_000 + b"\0", id="tiny-blocks"),
        pytest.param(image(INDICES) + image(INDICES[:1, :1]) * 200_000, id="frames"),
        pytest.param(b"!\x01" + b"\1\0" * 1_700_000 + b"\0" + image(INDICES), id="long-extension"),
        pytest.param(b"!\xfe\0" * 1_100_000 + image(INDICES), id="tiny-extensions"),
        pytest.param(bytes(3_400_000) + image(INDICES), id="junk"),
    ],
)
def test_the_first_frame_is_cut_out_in_few_steps_whatever_the_file(blocks: bytes) -> None:
    data = CountedReads(animation(blocks))
    with suppress(ValueError):
        gif.first_frame(data)
    # Of files of megabytes, which have millions of blocks.
    assert data.reads < 250_000


class CountedReads(bytearray):
    """Bytes that know how often some of them were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = 0

    def __getitem__(self, key: Any) -> Any:
        self.reads += 1
        return super().__getitem__(key)


PEAK = """
import sys
from pathlib import Path

from camserve.errors import RequestError
from camserve.images import read_header
from camserve.settings import Limits


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


before = peak()
try:
    read_header(sys.stdin.buffer.read(), Limits(), Limits().pixels)
except RequestError as error:
    print(error.code, peak() - before)
"""


@pytest.mark.parametrize("disposal", range(4))
def test_a_first_frame_of_any_claimed_size_takes_no_memory(disposal: int) -> None:
    giant = bytearray(image(INDICES))
    giant[5:9] = struct.pack("<HH", 60_000, 60_000)
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        input=animation(control(1, disposal), bytes(giant), control(2), image(INDICES)),
        env={"PYTHONPATH": str(Path(gif.__file__).parents[2])},
        capture_output=True,
        check=True,
    )
    code, kilobytes = done.stdout.split()
    assert code == b"image_too_large"
    assert int(kilobytes) < 50_000
