"""Files that are damaged but show something: answered with a warning, or refused."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camserve.errors import RequestError, SettingsError
from camserve.images import DecodedPhoto, decode_photo, read_header
from camserve.settings import Settings
from tests.support.image_files import (
    LIMITS,
    decode_default,
    noise,
    save_image,
)

PICTURE = Image.fromarray(noise(96, 128, 3)).resize((512, 384))


def jpeg(**options: Any) -> bytes:
    return save_image(PICTURE, "JPEG", quality=92, **options)


def with_hole(data: bytes, at: float = 0.5, length: int = 2000) -> bytes:
    start = int(len(data) * at)
    return data[:start] + bytes(length) + data[start + length :]


def refuse(data: bytes) -> DecodedPhoto:
    return decode_photo(data, read_header(data, LIMITS, LIMITS.pixels), damaged="refuse")


@pytest.mark.parametrize("denominator", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 4}],
    ids=["baseline", "progressive", "444", "restarts"],
)
@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_hole_in_a_jpeg_is_told(options: dict[str, Any], at: float, denominator: int) -> None:
    data = with_hole(jpeg(**options), at)
    photo = decode_photo(data, read_header(data, LIMITS, LIMITS.pixels), denominator)
    assert photo.warnings == ("damaged",)
    assert photo.full_size == (512, 384)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_hole_is_told_in_grey_and_cmyk(mode: str) -> None:
    data = with_hole(save_image(PICTURE.convert(mode), "JPEG", quality=92))
    assert decode_default(data).warnings == ("damaged",)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_whole_jpeg_has_no_warnings(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    for whole in (data, data + b"further bytes", data + data):
        photo = decode_default(whole)
        assert photo.warnings == ()
        assert np.array_equal(photo.upright, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_marker_is_read(cut: int, options: dict[str, Any]) -> None:
    data = jpeg(**options)
    for photo in (decode_default(data[:-cut]), refuse(data[:-cut])):
        assert photo.warnings == ("damaged", "no_end_marker")
        assert np.array_equal(photo.upright, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("cut", [20, 100, 5000])
def test_a_jpeg_that_lacks_pixels_is_refused(cut: int) -> None:
    with pytest.raises(RequestError, match="JPEG file is damaged, incomplete"):
        decode_default(jpeg()[:-cut])


def test_a_progressive_jpeg_is_refused_wherever_it_is_cut() -> None:
    data = save_image(PICTURE.resize((200, 150)), "JPEG", quality=92, progressive=True)
    answered = []
    for cut in range(3, len(data) - 700, 11):
        with suppress(RequestError):
            answered.append((cut, decode_default(data[:-cut]).warnings))
    assert answered == []


def test_damaged_jpegs_print_nothing() -> None:
    code = (
        "import sys; from camserve.images import decode_photo, read_header; "
        "from camserve.settings import Limits; data = sys.stdin.buffer.read(); "
        "print(decode_photo(data, read_header(data, Limits(), 10**7)).warnings)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=with_hole(jpeg()),
        capture_output=True,
        check=True,
        env={"PYTHONPATH": "handler"},
    )
    assert done.stdout == b"('damaged',)\n"
    assert done.stderr == b""


@pytest.mark.parametrize("compression", ["tiff_lzw"])
def test_a_hole_in_a_tiff_is_told(compression: str) -> None:
    data = with_hole(save_image(PICTURE, "TIFF", compression=compression), 0.4)
    assert decode_default(data).warnings == ("damaged",)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_hole(jpeg()), id="jpeg"),
        pytest.param(
            with_hole(save_image(PICTURE, "TIFF", compression="tiff_lzw"), 0.4), id="tiff"
        ),
    ],
)
def test_damaged_files_are_refused_where_the_operator_says_so(data: bytes) -> None:
    with pytest.raises(RequestError, match="accepted: an undamaged file") as error:
        refuse(data)
    assert error.value.code == "invalid_image"


@pytest.mark.parametrize(
    ("bits", "named"), [(12, "a JPEG of 12-bit samples"), (16, "a JPEG of 16-bit samples")]
)
def test_jpegs_of_more_bits_are_refused_by_name(bits: int, named: str) -> None:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = bits
    with pytest.raises(RequestError, match=f"{named}, which is not read") as error:
        decode_default(data)
    assert error.value.code == "unsupported_format"


@pytest.mark.parametrize("marker", [0xC5, 0xC6, 0xC7, 0xCD, 0xCF])
def test_hierarchical_jpegs_are_refused_by_name(marker: int) -> None:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 1] = marker
    with pytest.raises(RequestError, match="a hierarchical JPEG, which is not read"):
        decode_default(data)


@pytest.mark.parametrize("length", [3, 4, 20, 160])
def test_a_jpeg_that_ends_in_its_header_is_refused(length: int) -> None:
    with pytest.raises(RequestError, match="JPEG file is damaged"):
        decode_default(jpeg()[:length])


def test_a_setting_of_neither_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"handler\.damaged: 'ignore' is not accepted"):
        Settings.from_yaml({"handler": {"damaged": "ignore"}})
