"""A JPEG's scans: few in what cameras write, and never fewer than a decoder is led through."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from camserve import jpeg

SCAN = b"\xff\xda"


def photo(mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def after(data: bytes, what: bytes, at: int = 2) -> bytes:
    """Something put in, by default where the first segment begins."""
    return data[:at] + what + data[at:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def separate(data: bytes) -> bytes:
    """A colour photo whose first scan says that it has but one of the three colours."""
    at = data.index(SCAN)
    return data[:at] + LATER + data[at + 14 :]


def decoded(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


PHOTO = photo()
HEADER = PHOTO[PHOTO.index(SCAN) : PHOTO.index(SCAN) + 14]
PROGRESSIVE = photo(progressive=True)
LATER = segment(0xDA, b"\1\1\0\0\x3f\0")
THUMBNAIL = segment(0xE1, b"Exif\0\0" + photo())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(PHOTO, 1, id="colour"),
        pytest.param(photo("L"), 1, id="grey"),
        pytest.param(photo("CMYK"), 1, id="cmyk"),
        pytest.param(photo(restart_marker_rows=1), 1, id="restarts"),
        pytest.param(after(PHOTO, THUMBNAIL), 1, id="thumbnail"),
        pytest.param(PHOTO + PHOTO, 1, id="another-behind-it"),
        pytest.param(PROGRESSIVE, PROGRESSIVE.count(SCAN), id="progressive"),
        pytest.param(separate(PHOTO) + HEADER * 9, 10, id="colour-by-colour"),
        # A marker without a length, after which a decoder reads on where this must not.
        pytest.param(after(PHOTO, b"\xff\x01" + 8 * SCAN), 9, id="bare-marker"),
        pytest.param(after(PHOTO, b"\xff\xd0" + 8 * SCAN), 9, id="restart-first"),
        pytest.param(after(PHOTO, b"\xff\xff"), 1, id="padded"),
        pytest.param(after(PHOTO, b"\0" + 8 * SCAN), 9, id="junk"),
        pytest.param(after(PHOTO, b"\xff\xe0\0\0" + 8 * SCAN), 9, id="no-length"),
        pytest.param(PHOTO[:30], 0, id="cut-short"),
        pytest.param(b"\xff\xd8\xff", 0, id="three-bytes"),
    ],
)
def test_scans_are_counted(data: bytes, expected: int) -> None:
    assert jpeg.scans(data) == jpeg.scans(bytearray(data)) == expected


def test_a_decoder_takes_no_scan_after_one_that_has_all() -> None:
    whole = PHOTO[:-2] + HEADER * 3000 + PHOTO[-2:]
    assert jpeg.scans(whole) == 1
    assert np.array_equal(decoded(whole), decoded(PHOTO))


@pytest.mark.parametrize("value", [0x00, 0x01, 0x03, 0xC2, 0xD8, 0xDA, 0xFF])
def test_a_changed_header_never_hides_scans_from_the_count(value: int) -> None:
    """Where the first scan seems whole in a broken header, libjpeg finds it so, or gives up."""
    hostile = PHOTO[:-2] + LATER * 100 + PHOTO[-2:]
    counted = 0
    for place in range(2, PHOTO.index(SCAN) + 14):
        changed = hostile[:place] + bytes((value,)) + hostile[place + 1 :]
        if jpeg.scans(changed) > 1:
            counted += 1
            continue
        got, expected = decoded(changed), decoded(changed.replace(LATER, b""))
        assert (got is None) == (expected is None)
        assert got is None or np.array_equal(got, expected)
    assert counted
