"""TIFFs of every kind: right to within one grey level, or refused by name."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from camserve.errors import RequestError
from tests.support.image_files import (
    LONG,
    SAMPLE_RGB,
    SAMPLE_RGBA,
    SHORT,
    decode_default,
    max_difference,
    sample_image,
    save_image,
    tiff_directory,
    write_tiff,
)

GREY = SAMPLE_RGB[..., 0]
ALPHA = SAMPLE_RGBA[..., 3]
DEEP = np.random.default_rng(0).integers(0, 65536, (32, 48), np.uint16)


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def bands(*channels: NDArray[Any]) -> Any:
    return np.ascontiguousarray(np.stack(channels, axis=-1))


def grey_rgb(levels: NDArray[Any]) -> NDArray[Any]:
    return np.stack([levels] * 3, axis=-1)


def on_white(rgb: NDArray[Any], alpha: NDArray[Any]) -> Any:
    """Colours, 0 to 255, over white by alpha, 0 to 1."""
    share = alpha[..., None]
    return np.rint(rgb * share + 255 * (1 - share))


def packed_grey(bits: int, *, min_is_white: bool, order: str = "<") -> bytes:
    """SAMPLE_RGB's red at so few bits a level, or at 12, packed without gaps."""
    levels = DEEP >> 4 if bits == 12 else GREY >> (8 - bits)
    if min_is_white:
        levels = (1 << bits) - 1 - levels
    planes = (levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(planes.reshape(32, -1).astype(np.uint8), axis=1)
    fields = [
        (256, SHORT, 48), (257, SHORT, 32), (258, SHORT, bits), (259, SHORT, 1),
        (262, SHORT, 0 if min_is_white else 1), (273, LONG, 0), (277, SHORT, 1), (278, SHORT, 32),
        (279, LONG, rows.nbytes),
    ]  # fmt: skip

    def header(offset: int) -> bytes:
        letters = {SHORT: "H", LONG: "I"}
        tags = [
            (tag, kind, 1, struct.pack(order + letters[kind], offset if tag == 273 else value))
            for tag, kind, value in fields
        ]
        return tiff_directory(*tags, order=order)

    return header(len(header(0))) + rows.tobytes()


def expected_grey(bits: int) -> NDArray[Any]:
    levels = DEEP >> 4 if bits == 12 else GREY >> (8 - bits)
    return grey_rgb(np.rint(levels * (255 / ((1 << bits) - 1))))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("min_is_white", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12])
def test_grey_of_few_bits_and_of_12(bits: int, min_is_white: bool, order: str) -> None:
    data = packed_grey(bits, min_is_white=min_is_white, order=order)
    assert max_difference(decode_default(data).upright, expected_grey(bits)) <= (bits == 12)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_grey_of_16_bits(order: str, white: bool, compression: str | None) -> None:
    data = tiff(
        65535 - DEEP if white else DEEP,
        byteorder=order,
        photometric="miniswhite" if white else "minisblack",
        compression=compression,
    )
    assert max_difference(decode_default(data).upright, grey_rgb(DEEP / 257)) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_alpha_lies_on_white(
    bits: int, kind: str, compression: str | None, order: str
) -> None:
    scale = 1 if bits == 8 else 257
    # Halfway down to black, so that colours multiplied by alpha are known to a level.
    alpha = np.where(ALPHA > 127, 255, 51)
    levels = GREY * (alpha / 255) if kind == "assocalpha" else GREY
    samples = bands(np.rint(levels * float(scale)), alpha * float(scale)).astype(
        f"{order}u{bits // 8}"
    )
    data = tiff(
        samples,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[kind],
        compression=compression,
        byteorder=order,
    )
    assert max_difference(decode_default(data).upright, on_white(grey_rgb(GREY), alpha / 255)) <= 1


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_with_alpha_lies_on_white(bits: int, planes: str) -> None:
    samples = SAMPLE_RGBA.astype(f"u{bits // 8}") * (1 if bits == 8 else 257)
    data = tiff(
        samples if planes == "contig" else np.moveaxis(samples, -1, 0),
        photometric="rgb",
        planarconfig=planes,
        extrasamples=["unassalpha"],
    )
    assert max_difference(decode_default(data).upright, on_white(SAMPLE_RGB, ALPHA / 255)) <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_without_black_is_the_inverse_of_rgb(bits: int) -> None:
    samples = bands(*np.moveaxis(255 - SAMPLE_RGB, -1, 0), np.zeros_like(GREY))
    deep = samples.astype(f"u{bits // 8}") * (1 if bits == 8 else 257)
    data = tiff(deep, photometric="separated")
    assert max_difference(decode_default(data).upright, SAMPLE_RGB) <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
@pytest.mark.parametrize(
    "compression",
    ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd"],
)
def test_every_lossless_compression(compression: str, mode: str) -> None:
    image = sample_image(mode)
    data = save_image(image, "TIFF", compression=compression)
    assert np.array_equal(decode_default(data).upright, np.asarray(image.convert("RGB")))


def test_old_style_jpeg() -> None:
    jpeg = save_image(sample_image(), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(jpeg)))

    def header(offset: int) -> bytes:
        fields = [
            (256, SHORT, [48]), (257, SHORT, [32]), (258, SHORT, [8] * 3), (259, SHORT, [6]),
            (262, SHORT, [6]), (273, LONG, [offset]), (277, SHORT, [3]), (278, SHORT, [32]),
            (279, LONG, [len(jpeg)]), (513, LONG, [offset]), (514, LONG, [len(jpeg)]),
            (530, SHORT, [2, 2]),
        ]  # fmt: skip
        letters = {SHORT: "H", LONG: "I"}
        return tiff_directory(
            *(
                (tag, kind, len(values), struct.pack(f"<{len(values)}{letters[kind]}", *values))
                for tag, kind, values in fields
            )
        )

    data = header(len(header(0))) + jpeg
    # libtiff takes colours of a pixel from one sample, where JPEG decoders mean over neighbours.
    difference = np.abs(decode_default(data).upright.astype(int) - expected)
    assert difference.mean() < 1.5
    assert difference.max() < 16


def lab_tiff() -> bytes:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(sample_image(), *profiles, outputMode="LAB")
    assert lab is not None
    return save_image(lab, "TIFF")


def with_tag(tag: int, value: int, *, next_offset: int = 0) -> bytes:
    """The sample with a further tag in its directory."""
    data = write_tiff(SAMPLE_RGB, (tag, LONG, 1, struct.pack("<I", value)))
    at = 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0]
    return data[:at] + struct.pack("<I", next_offset) + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        pytest.param(tiff(GREY.astype(np.int8)), "signed 8-bit integers", id="int8"),
        pytest.param(tiff(GREY.astype(np.int16) * 9), "signed 16-bit integers", id="int16"),
        pytest.param(tiff(GREY.astype(np.int32)), "signed 32-bit integers", id="int32"),
        pytest.param(tiff(GREY.astype(np.uint32)), "32-bit grey", id="uint32"),
        pytest.param(tiff(GREY.astype(np.uint64)), "64-bit grey", id="uint64"),
        pytest.param(tiff(GREY.astype(np.float16)), "16-bit floats", id="float16"),
        pytest.param(tiff((GREY / 255).astype(np.float32)), "32-bit floats", id="float32"),
        pytest.param(tiff(GREY / 255), "64-bit floats", id="float64"),
        pytest.param(
            tiff((SAMPLE_RGB / 255).astype(np.float32), photometric="rgb"),
            "32-bit floats",
            id="rgb-float32",
        ),
        pytest.param(tiff(GREY.astype(np.complex64)), "complex numbers", id="complex"),
        pytest.param(
            tiff(SAMPLE_RGB.astype(np.uint32), photometric="rgb"), "32-bit RGB", id="rgb-uint32"
        ),
        pytest.param(
            tiff(bands(*np.moveaxis(SAMPLE_RGBA, -1, 0), GREY), photometric="rgb"),
            "5 bands",
            id="5-bands",
        ),
        pytest.param(
            tiff(
                np.stack([*np.moveaxis(SAMPLE_RGBA, -1, 0), GREY]),
                photometric="rgb",
                planarconfig="separate",
            ),
            "5 bands",
            id="5-planes",
        ),
        pytest.param(
            tiff(SAMPLE_RGB, photometric="minisblack", planarconfig="contig"),
            "3 bands",
            id="3-bands-of-grey",
        ),
        pytest.param(
            tiff(
                DEEP,
                photometric="palette",
                colormap=np.tile(np.arange(65536, dtype=np.uint16), (3, 1)),
            ),
            "16-bit palette colours",
            id="palette16",
        ),
        pytest.param(lab_tiff(), "Lab colours", id="lab"),
        pytest.param(with_tag(50706, 0x0101), r"a camera's raw photo \(DNG\)", id="dng"),
        pytest.param(with_tag(254, 1, next_offset=8), "small copy", id="thumbnail-first"),
    ],
)
def test_other_kinds_are_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(RequestError, match=named) as error:
        decode_default(data)
    assert error.value.code == "unsupported_format"
    assert "accepted: a TIFF of unsigned integers, 8 or 16 bits each" in error.value.message


@pytest.mark.parametrize(("photometric", "samples"), [(32803, 1), (34892, 3)])
def test_what_a_sensor_saw_is_refused_by_name(photometric: int, samples: int) -> None:
    pixels = GREY if samples == 1 else SAMPLE_RGB
    data = bytearray(write_tiff(pixels))
    at = data.index(struct.pack("<HHI", 262, SHORT, 1)) + 8
    struct.pack_into("<H", data, at, photometric)
    with pytest.raises(RequestError, match="a camera's raw photo"):
        decode_default(data)


def test_a_canon_raw_photo_is_refused_by_name() -> None:
    data = bytearray(write_tiff(SAMPLE_RGB))
    # Its directory begins behind a mark of eight bytes.
    directory = data[8:]
    data = data[:4] + struct.pack("<I", 16) + b"CR\x02\0" + bytes(4) + directory
    with pytest.raises(RequestError, match="a camera's raw photo"):
        decode_default(data)


@pytest.mark.parametrize(
    ("compression", "name"), [(50001, "WebP"), (34712, "JPEG 2000"), (34887, "LERC")]
)
def test_other_compressions_are_refused_by_name(compression: int, name: str) -> None:
    data = bytearray(write_tiff(SAMPLE_RGB))
    at = data.index(struct.pack("<HHI", 259, SHORT, 1)) + 8
    struct.pack_into("<H", data, at, compression)
    with pytest.raises(RequestError, match=f"{name} compression"):
        decode_default(data)


def test_bigtiff() -> None:
    data = tiff(SAMPLE_RGB, photometric="rgb", bigtiff=True)
    assert np.array_equal(decode_default(data).upright, SAMPLE_RGB)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("kind", ["unassalpha", "unspecified"])
def test_grey_of_8_bits_with_another_band_where_0_is_white(
    kind: str, tile: tuple[int, int] | None
) -> None:
    data = tiff(
        bands(255 - GREY, ALPHA),
        photometric="miniswhite",
        planarconfig="contig",
        extrasamples=[kind],
        tile=tile,
    )
    plain = grey_rgb(GREY)
    expected = on_white(plain, ALPHA / 255) if kind == "unassalpha" else plain
    assert max_difference(decode_default(data).upright, expected) <= 1


@pytest.mark.parametrize(
    "pixels",
    [
        GREY,
        DEEP,
        SAMPLE_RGB,
        SAMPLE_RGB.astype(np.uint16) * 257,
        SAMPLE_RGBA,
        SAMPLE_RGBA.astype(np.uint16) * 257,
    ],
    ids=["grey", "grey16", "rgb", "rgb16", "rgba", "rgba16"],
)
def test_bits_in_the_other_order(pixels: NDArray[Any]) -> None:
    alpha = [(338, SHORT, 1, struct.pack("<H", 2))] if pixels.shape[2:] == (4,) else []
    bits = np.unpackbits(pixels.view(np.uint8))
    turned = np.packbits(bits, bitorder="little").view(pixels.dtype).reshape(pixels.shape)
    data = write_tiff(turned, (266, SHORT, 1, struct.pack("<H", 2)), *alpha)
    plain = decode_default(write_tiff(pixels, *alpha)).upright
    assert np.array_equal(decode_default(data).upright, plain)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        pytest.param(
            tiff(np.stack([GREY, ALPHA]), planarconfig="separate", extrasamples=["unassalpha"]),
            "2 bands in planes",
            id="grey-alpha-planes",
        ),
        pytest.param(
            tiff(SAMPLE_RGB, photometric="rgb", bigtiff=True, byteorder=">"),
            "a big-endian BigTIFF",
            id="big-endian-bigtiff",
        ),
    ],
)
def test_what_the_decoders_read_wrong_is_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        decode_default(data)


def test_12_bits_in_another_compression_are_refused_by_name() -> None:
    data = bytearray(packed_grey(12, min_is_white=False))
    at = data.index(struct.pack("<HHI", 259, SHORT, 1)) + 8
    struct.pack_into("<H", data, at, 50000)
    with pytest.raises(RequestError, match="12-bit grey with Zstandard compression"):
        decode_default(data)


@pytest.mark.parametrize("size", [(0, 32), (48, 0)])
def test_a_photo_of_no_size_is_refused(size: tuple[int, int]) -> None:
    data = bytearray(write_tiff(SAMPLE_RGB))
    for tag, side in zip((256, 257), size, strict=True):
        struct.pack_into("<H", data, data.index(struct.pack("<HHI", tag, SHORT, 1)) + 8, side)
    with pytest.raises(RequestError, match="TIFF file is damaged"):
        decode_default(data)


@pytest.mark.parametrize("tag", [256, 258, 262, 277])
def test_a_tag_that_is_no_whole_number_is_refused(tag: int) -> None:
    data = bytearray(write_tiff(GREY))
    at = data.index(struct.pack("<HHI", tag, SHORT, 1))
    struct.pack_into("<HHIf", data, at, tag, 11, 1, 8.0)
    with pytest.raises(RequestError, match="TIFF file is damaged"):
        decode_default(data)


def test_samples_of_different_bits_are_refused_by_name() -> None:
    data = bytearray(write_tiff(SAMPLE_RGB))
    at = data.index(struct.pack("<3H", 8, 8, 8))
    struct.pack_into("<3H", data, at, 5, 6, 5)
    with pytest.raises(RequestError, match="samples of 5, 6, 5 bits"):
        decode_default(data)


@pytest.mark.parametrize("head", [b"II*\0", b"MM\0*", b"II+\0"])
@pytest.mark.parametrize("rest", [b"", b"\0" * 4, b"\xff" * 12, b"\x08\0\0\0\xff\xff"])
def test_a_directory_that_is_none_is_refused(head: bytes, rest: bytes) -> None:
    with pytest.raises(RequestError, match="TIFF file is damaged"):
        decode_default(head + rest)
