"""A file's format is found by its first bytes; what is not read is refused by its name."""

from __future__ import annotations

import io
import struct
import sys
import time
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from camserve.errors import RequestError, SettingsError
from camserve.images import decode_photo, enable_decoders, read_header
from camserve.images.formats import identify
from camserve.settings import DEFAULT_FORMATS, Limits, PhotoFormat, Settings
from tests.support.image_files import (
    LIMITS,
    SAMPLE_RGB,
    decode_with_pillow,
    max_difference,
    orientation_exif,
    sample_image,
    save_image,
)

EVERY: tuple[PhotoFormat, ...] = get_args(PhotoFormat)
enable_decoders(EVERY)


def read(data: bytes, formats: tuple[PhotoFormat, ...] = EVERY, **options: Any) -> Any:
    header = read_header(data, LIMITS, LIMITS.pixels, formats)
    return decode_photo(data, header, **options)


def box(brand: bytes, *compatible: bytes) -> bytes:
    """The first box of an ISO base media file."""
    content = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 4 + len(content)) + content + bytes(64)


def numpy_file() -> bytes:
    file = io.BytesIO()
    np.save(file, SAMPLE_RGB)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\xff\x0a" + bytes(20), "a JPEG XL file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "a JPEG XL file"),
        (save_image(sample_image(), "JPEG2000"), "a JPEG 2000 file"),
        (save_image(sample_image(), "JPEG2000", no_jp2=True), "a JPEG 2000 file"),
        (b"II\xbc\x01" + bytes(20), "a JPEG XR file"),
        (b"8BPS\0\x01" + bytes(20), r"a Photoshop file \(PSD\)"),
        (b"%PDF-1.7\n", "a PDF file"),
        (b"\n\n%PDF-1.4\n", "a PDF file"),
        (save_image(sample_image(), "EPS"), "a PostScript file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a -->\n<!DOCTYPE svg PUBLIC "x">\n<svg>', "SVG"),
        (b"<?xml version='1.0'?><rss/>", "an XML file"),
        (b"<!DOCTYPE html>\n<html>", r"a web page \(HTML\)"),
        (b"\n <html lang=de>", r"a web page \(HTML\)"),
        (save_image(sample_image(), "ICO"), r"an icon \(ICO\)"),
        (save_image(sample_image().resize((16, 16)), "ICNS"), r"an icon \(ICNS\)"),
        (save_image(sample_image(), "PPM"), "a Netpbm file"),
        (save_image(sample_image(), "DDS"), "a DDS file"),
        (save_image(sample_image(), "PCX"), "a PCX file"),
        (b"qoif" + bytes(20), "a QOI file"),
        (b"\x76\x2f\x31\x01\x02\0\0\0", "an OpenEXR file"),
        (b"#?RADIANCE\n", "a Radiance HDR file"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b"SIMPLE  =   T", "a FITS file"),
        (b"gimp xcf v011", r"a GIMP file \(XCF\)"),
        (numpy_file(), "a NumPy file"),
        (b"PK\x03\x04" + bytes(30), "an archive"),
        (b"\x1f\x8b\x08" + bytes(30), "an archive"),
        (b"IIU\0" + bytes(30), "a camera's raw photo"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw photo"),
        (box(b"crx ", b"crx ", b"isom"), "a camera's raw photo"),
        (box(b"isom", b"isom", b"iso2", b"avc1", b"mp41"), "a video"),
        (box(b"qt  ", b"qt  "), "a video"),
        (b"\x1aE\xdf\xa3" + bytes(30), "a video"),
        (box(b"mif1", b"mif1", b"jpeg"), "a HEIF file whose codec is neither"),
        (b"not a photo", "the photo's format is not recognised"),
        (b"\0" * 100, "the photo's format is not recognised"),
        (b" " * 4000, "the photo's format is not recognised"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(RequestError, match=named) as error:
        identify(data, EVERY)
    assert error.value.code == "unsupported_format"
    assert error.value.message.endswith("accepted: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC or AVIF")


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (save_image(sample_image(), "JPEG"), "jpeg"),
        (save_image(sample_image(), "MPO"), "jpeg"),
        (save_image(sample_image(), "PNG"), "png"),
        (save_image(sample_image(), "WEBP"), "webp"),
        (save_image(sample_image(), "GIF"), "gif"),
        (save_image(sample_image(), "BMP"), "bmp"),
        (save_image(sample_image(), "TIFF"), "tiff"),
        (save_image(sample_image(), "TIFF", big_tiff=True), "tiff"),
        (save_image(sample_image(), "HEIF"), "heic"),
        (save_image(sample_image(), "AVIF"), "avif"),
        (box(b"mif1", b"mif1", b"heic", b"miaf"), "heic"),
        (box(b"msf1", b"hevc"), "heic"),
        (box(b"mif1", b"avif", b"miaf"), "avif"),
        (box(b"avis", b"msf1"), "avif"),
    ],
)
def test_formats_are_recognised(data: bytes, format: str) -> None:
    assert identify(data, EVERY) == format
    assert identify(bytearray(data), EVERY) == format


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_heic_and_avif_are_refused_by_name_unless_enabled(name: str) -> None:
    shown = {"HEIF": "a HEIC file", "AVIF": "an AVIF file"}[name]
    with pytest.raises(
        RequestError, match=f"{shown}, which the server's operator has not"
    ) as error:
        read(save_image(sample_image(), name), DEFAULT_FORMATS)
    assert error.value.code == "unsupported_format"
    assert error.value.message.endswith("accepted: JPEG, PNG, WebP, GIF, BMP or TIFF")


def test_an_operator_may_read_fewer_formats() -> None:
    with pytest.raises(RequestError, match=r"a PNG file, .*; accepted: JPEG$"):
        read(save_image(sample_image(), "PNG"), ("jpeg",))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_heic_and_avif_as_pillow_reads_them(name: str, mode: str) -> None:
    data = save_image(sample_image(mode), name, quality=95)
    rgba = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    expected = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    assert np.abs(read(data).upright.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_heic_and_avif_are_upright(name: str, orientation: int) -> None:
    # Both formats turn photos by boxes of their own, whatever EXIF says: Pillow writes AVIF's.
    data = save_image(sample_image(), name, quality=95, exif=orientation_exif(orientation))
    assert max_difference(read(data).upright, decode_with_pillow(data)) <= 1


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_limits_apply_before_heic_and_avif_are_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_image(sample_image(), name)

    def load(image: Image.Image) -> None:
        pytest.fail("the decoder was called")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(RequestError, match="48 x 32; accepted: sides of up to 47"):
        read_header(data, Limits(side=47), LIMITS.pixels, EVERY)


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_a_file_cut_short_is_refused(name: str, part: float) -> None:
    data = save_image(sample_image(), name, quality=95)
    with pytest.raises(RequestError) as error:
        read(data[: int(len(data) * part)])
    assert error.value.code == "invalid_image"


def test_a_file_of_blanks_is_refused_at_once() -> None:
    before = time.process_time()
    for letter in (b" ", b"<!-- -->", b"<?xml?>", b"<!--"):
        with pytest.raises(RequestError):
            identify(letter * 20_000, EVERY)
    assert time.process_time() - before < 1


def test_a_setting_takes_names_in_any_case() -> None:
    settings = Settings.from_yaml({"handler": {"formats": ["JPEG", "Heic"]}})
    assert settings.formats == ("jpeg", "heic")


@pytest.mark.parametrize("value", [[], ["svg"], "jpeg", [1]])
def test_a_setting_of_other_formats_is_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"handler\.formats: .*accepted: a list of the formats"):
        Settings.from_yaml({"handler": {"formats": value}})


def test_heic_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(SettingsError, match="'heic' needs the package pillow-heif"):
        enable_decoders(("jpeg", "heic"))
    enable_decoders(("jpeg", "avif"))
