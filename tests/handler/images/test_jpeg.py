"""The count of a JPEG's scans: never less than what a decoder decodes."""

from __future__ import annotations

import io
import random
import time
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from camserve.images import jpeg

SCAN = b"\xff\xda"


def photo(mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def insert(data: bytes, content: bytes, offset: int = 2) -> bytes:
    """``content`` inserted, by default where the first segment begins."""
    return data[:offset] + content + data[offset:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def without_two_components(data: bytes) -> bytes:
    """A colour photo whose first scan says that it has but one of the three colours."""
    offset = data.index(SCAN)
    return data[:offset] + LATER + data[offset + 14 :]


def with_coarse_quantisation(data: bytes) -> bytes:
    """With a quantisation table in which 255 stands before 218, as coarse ones may have it."""
    offset = data.index(b"\xff\xdb") + 5
    return data[:offset] + 20 * SCAN + data[offset + 40 :]


def decoded(data: bytes | bytearray) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def shape_and_pixels(data: bytes | bytearray) -> tuple[tuple[int, ...], bytes] | None:
    """A photo's shape and pixels; None where the decoder finds no photo."""
    pixels = decoded(data)
    return None if pixels is None else (pixels.shape, pixels.tobytes())


PHOTO = photo()
HEADER = PHOTO[PHOTO.index(SCAN) : PHOTO.index(SCAN) + 14]
PROGRESSIVE = photo(progressive=True)
LATER = segment(0xDA, b"\1\1\0\0\x3f\0")
THUMBNAIL = segment(0xE1, b"Exif\0\0" + photo())
RESTARTS = photo(progressive=True, restart_marker_rows=1)
MPO = io.BytesIO()
Image.open(io.BytesIO(PROGRESSIVE)).save(
    MPO, "MPO", save_all=True, append_images=[Image.open(io.BytesIO(PHOTO))], progressive=True
)
TEN = PROGRESSIVE.count(SCAN)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(PHOTO, 1, id="colour"),
        pytest.param(photo("L"), 1, id="grey"),
        pytest.param(photo("CMYK"), 1, id="cmyk"),
        pytest.param(photo(restart_marker_rows=1), 1, id="restarts"),
        pytest.param(insert(PHOTO, THUMBNAIL), 1, id="thumbnail"),
        pytest.param(PHOTO + PHOTO, 1, id="another-behind-it"),
        pytest.param(PROGRESSIVE, TEN, id="progressive"),
        pytest.param(RESTARTS, TEN, id="progressive-restarts"),
        pytest.param(insert(PROGRESSIVE, segment(0xE2, 60 * SCAN)), TEN, id="in-a-profile"),
        pytest.param(insert(PROGRESSIVE, segment(0xFE, 60 * SCAN)), TEN, id="in-a-comment"),
        pytest.param(insert(PROGRESSIVE, THUMBNAIL), TEN, id="in-a-thumbnail"),
        pytest.param(with_coarse_quantisation(PROGRESSIVE), TEN, id="in-a-table"),
        pytest.param(PROGRESSIVE + 60 * SCAN, TEN, id="behind-the-end"),
        pytest.param(PROGRESSIVE + PROGRESSIVE, TEN, id="another-progressive-behind-it"),
        pytest.param(MPO.getvalue(), TEN, id="mpo"),
        pytest.param(
            PROGRESSIVE.replace(SCAN, segment(0xE2, 60 * SCAN) + SCAN), TEN, id="before-each-scan"
        ),
        pytest.param(PROGRESSIVE.replace(SCAN, b"\xff\xff" + SCAN), TEN, id="fill-bytes"),
        pytest.param(PROGRESSIVE[:-2], TEN, id="no-end-of-image"),
        pytest.param(
            without_two_components(PHOTO)[:-2] + HEADER * 9 + PHOTO[-2:], 10, id="colour-by-colour"
        ),
        pytest.param(
            without_two_components(PHOTO) + HEADER * 9, 1, id="one-colour-and-more-behind-it"
        ),
        # Inside a scan, libjpeg reads on behind what is no marker that it knows.
        pytest.param(PROGRESSIVE[:-2] + b"\xff\x02" + LATER * 60, TEN + 60, id="reserved"),
        pytest.param(PROGRESSIVE[:-2] + b"\xff\xd3" + LATER * 60, TEN + 60, id="wrong-restart"),
        pytest.param(PROGRESSIVE[:-2] + b"\xff\0\0" + LATER * 60, TEN + 60, id="stuffing"),
        # A second beginning, which decoders take for an error or for none.
        pytest.param(PROGRESSIVE[:-2] + PROGRESSIVE, 2 * TEN, id="another-inside-it"),
        # A marker without a length, after which a decoder reads on where this must not.
        pytest.param(insert(PHOTO, b"\xff\x01" + 8 * SCAN), 9, id="bare-marker"),
        pytest.param(insert(PHOTO, b"\xff\xd0" + 8 * SCAN), 9, id="restart-first"),
        pytest.param(insert(PHOTO, b"\xff\xff"), 1, id="padded"),
        pytest.param(insert(PHOTO, b"\0" + 8 * SCAN), 9, id="junk"),
        pytest.param(insert(PHOTO, b"\xff\xe0\0\0" + 8 * SCAN), 9, id="no-length"),
        pytest.param(insert(PHOTO, b"\xff\xe0\0\1" + 8 * SCAN), 9, id="length-of-1"),
        pytest.param(insert(PHOTO, b"\xff\xda\0\3\1\xff\xd9"), 2, id="end-inside-a-scans-header"),
        pytest.param(PHOTO[:30], 0, id="cut-short"),
        pytest.param(b"\xff\xd8\xff", 0, id="three-bytes"),
    ],
)
def test_scans_are_counted(data: bytes, expected: int) -> None:
    assert jpeg.count_scans(data) == jpeg.count_scans(bytearray(data)) == expected


def test_a_decoder_takes_no_scan_after_one_that_has_all() -> None:
    repeated = PHOTO[:-2] + HEADER * 3000 + PHOTO[-2:]
    assert jpeg.count_scans(repeated) == 1
    assert np.array_equal(decoded(repeated), decoded(PHOTO))


@pytest.mark.parametrize("value", [0x00, 0x01, 0x03, 0xC2, 0xD8, 0xDA, 0xFF])
def test_a_changed_header_never_hides_scans_from_the_count(value: int) -> None:
    """Where the first scan seems whole in a broken header, libjpeg finds it so, or gives up."""
    hostile = PHOTO[:-2] + LATER * 100 + PHOTO[-2:]
    counted = 0
    for offset in range(2, PHOTO.index(SCAN) + 14):
        changed = hostile[:offset] + bytes((value,)) + hostile[offset + 1 :]
        if jpeg.count_scans(changed) > 1:
            counted += 1
            continue
        assert shape_and_pixels(changed) == shape_and_pixels(changed.replace(LATER, b""))
    assert counted


def split_scans(data: bytes) -> tuple[bytes, list[bytes]]:
    """A progressive JPEG: all before its first scan, and each scan with what comes before the next.

    Tables that a scan needs stand at the end of the one before it.
    """
    head, *scans = data.removesuffix(b"\xff\xd9").split(SCAN)
    return head, [SCAN + scan for scan in scans]


def ignored_segment(rng: random.Random) -> bytes:
    """Segments and fill bytes that say nothing of the photo, with the look of scans in them."""
    content = rng.choice((SCAN * 60, LATER * 9, b"\xff\xd9" + SCAN, b"\xff", b"", PROGRESSIVE))
    marker = rng.choice((*range(0xE1, 0xEE), 0xEF, 0xFE, 0xDC))
    return b"\xff" * rng.randrange(3) + segment(marker, content)


def junk(rng: random.Random) -> bytes:
    """What libjpeg passes over on its way to the next marker."""
    restart = bytes((0xFF, rng.randrange(0xD0, 0xD8)))
    empty = b"\xff" + bytes((rng.choice((0xE5, 0xFE, 0xDC)), 0, rng.randrange(2)))
    return rng.choice((b"\0", b"\xff\0", b"\xff\x01", restart, restart * 9, empty, b"\xda"))


@pytest.mark.parametrize("source", [PROGRESSIVE, RESTARTS, photo("L", progressive=True)])
@pytest.mark.parametrize("seed", range(20))
def test_scans_of_a_file_put_together_are_counted(source: bytes, seed: int) -> None:
    rng = random.Random(seed)
    head, scans = split_scans(source)
    # libjpeg draws a scan of refinements as often as it comes.
    scans += [scans[-1]] * rng.randrange(80)
    plain = head + b"".join(scans) + b"\xff\xd9"
    dressed = head + b"".join(ignored_segment(rng) * rng.randrange(3) + scan for scan in scans)
    dressed += b"\xff\xd9" + rng.choice((b"", SCAN * 60, PROGRESSIVE))
    loose = head + b"".join(junk(rng) * rng.randrange(3) + scan for scan in scans) + b"\xff\xd9"
    assert jpeg.count_scans(plain) == jpeg.count_scans(dressed) == len(scans)
    assert jpeg.count_scans(loose) >= len(scans)
    assert np.array_equal(decoded(dressed), decoded(plain))


def test_a_changed_byte_never_hides_scans_that_a_decoder_reads() -> None:
    """What the count passes over as no scans may as well be zeros, for all that libjpeg sees."""
    hidden = insert(PROGRESSIVE, segment(0xE2, LATER * 100)) + LATER * 100
    offsets = [n for n in range(2, len(hidden) - len(LATER) * 100) if 0xFF in hidden[n - 5 : n + 5]]
    rng = random.Random(0)
    counted = compared = 0
    for offset in rng.choices(offsets, k=1500):
        changed = bytearray(hidden)
        changed[offset] = rng.choice((0, 1, 0xC2, 0xD8, 0xD9, 0xDA, 0xE0, 0xFF, rng.randrange(256)))
        if jpeg.count_scans(changed) > 50:
            counted += 1
            continue
        got = shape_and_pixels(changed)
        assert got == shape_and_pixels(changed.replace(LATER, bytes(len(LATER))))
        compared += got is not None
    assert counted > 20
    assert compared > 200


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"\xff" * 3_400_000, id="fill-bytes"),
        pytest.param(b"\xff\0" * 1_700_000, id="stuffing"),
        pytest.param(b"\xff\xd0" * 1_700_000, id="restarts"),
        pytest.param(b"\xff\xbf" * 1_700_000, id="reserved"),
        pytest.param(b"\xff\xe0\0\2" * 850_000, id="tiny-segments"),
        pytest.param(LATER * 340_000, id="tiny-scans"),
        pytest.param(np.random.default_rng(0).bytes(3_400_000), id="noise"),
    ],
)
@pytest.mark.parametrize("where", ["header", "scan"])
def test_counting_is_quick_whatever_the_file(where: str, hostile: bytes) -> None:
    offset = 2 if where == "header" else PROGRESSIVE.index(SCAN) + 14
    data = insert(PROGRESSIVE, hostile, offset)
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        jpeg.count_scans(data)
        seconds.append(time.thread_time() - start)
    # A tenth of that on an idle machine; a look at each byte in Python takes longer.
    assert min(seconds) < 0.15
