"""Image files for tests: written by Pillow or by hand, with the metadata that a test wants."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from camserve.images import DecodedPhoto, EncodedImage, Pixels, RenderedOutput
from camserve.settings import Limits
from tests.support.images import decode_full_size

LIMITS: Final = Limits()
ORIENTATION: Final = 0x0112

#: A tag of a TIFF directory, the form that EXIF has too: number, type, count, value.
Tag = tuple[int, int, int, bytes]
BYTE, TEXT, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, FLOAT, DOUBLE, IFD = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13,
)  # fmt: skip


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _gradient(width: int = 48, height: int = 32) -> Pixels:
    """(height, width, 4) RGBA in which no two corners and no two channels are alike."""
    y, x = np.mgrid[:height, :width] / [[[height - 1]], [[width - 1]]]
    channels = np.stack([x, y, (x + y) / 2, 1 - x], -1)
    return cast(Pixels, np.rint(channels * 255).astype(np.uint8))


SAMPLE_RGBA: Final = _gradient()
SAMPLE_RGB: Final = np.ascontiguousarray(SAMPLE_RGBA[..., :3])


def sample_image(mode: str = "RGB") -> Image.Image:
    """48 x 32 pixels, with transparency where the mode has any."""
    return Image.fromarray(SAMPLE_RGBA if mode in ("LA", "RGBA") else SAMPLE_RGB).convert(mode)


def save_image(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def decode_default(data: bytes | bytearray) -> DecodedPhoto:
    """The photo at its full size, within the default limits."""
    return decode_full_size(data, LIMITS, LIMITS.pixels)


def decode_with_pillow(data: bytes | bytearray) -> Pixels:
    """The upright photo on white, the first frame of an animation, as Pillow decodes it."""
    image = Image.open(io.BytesIO(data))
    upright = (ImageOps.exif_transpose(image) or image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def decode_with_opencv(data: bytes | bytearray, flags: int = cv2.IMREAD_UNCHANGED) -> Pixels:
    """As OpenCV decodes it; RGB with the default flags, unless it is grey."""
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert pixels is not None
    in_bgr = flags == cv2.IMREAD_UNCHANGED and pixels.ndim == 3
    decoded: Pixels = pixels[..., ::-1] if in_bgr else pixels
    return decoded


def decode_output(output: RenderedOutput) -> Pixels:
    """The pixels of a rendered picture: (h, w) grey or (h, w, 3) RGB."""
    assert isinstance(output, EncodedImage)
    return decode_with_opencv(output.data)


def encode_with_opencv(extension: str, pixels: NDArray[Any]) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def max_difference(actual: NDArray[Any], expected: NDArray[Any]) -> int:
    """Of two images of one shape, the largest difference of a value."""
    assert actual.shape == expected.shape
    assert actual.dtype == np.uint8
    return int(np.ceil(np.abs(actual.astype(float) - expected).max()))


def png_chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    """A chunk; ``length`` is written instead of its own."""
    size = len(content) if length is None else length
    return struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def insert_png_chunk(png: bytes, before: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with a chunk inserted before the first one of type ``before``."""
    offset = png.index(before) - 4
    return png[:offset] + png_chunk(kind, content) + png[offset:]


def tiff_directory(
    *tags: Tag, order: str = "<", next_offset: int = 0, count: int | None = None
) -> bytes:
    """A TIFF header and a directory; values of more than four bytes follow it.

    Args:
        order: of bytes, as :mod:`struct` has it.
        next_offset: of the next directory.
        count: of the entries, written instead of their number.
    """
    entries, values = b"", b""
    for number, kind, length, value in tags:
        if len(value) > 4:
            offset, values = 8 + 2 + 12 * len(tags) + 4 + len(values), values + value
            value = struct.pack(f"{order}I", offset)
        entries += struct.pack(f"{order}HHI", number, kind, length) + value.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    entry_count = struct.pack(f"{order}H", len(tags) if count is None else count)
    return header + entry_count + entries + struct.pack(f"{order}I", next_offset) + values


def orientation_tag(kind: int, *values: float, letter: str = "H", order: str = "<") -> Tag:
    """An orientation of some type, whose values :mod:`struct` writes by ``letter``."""
    content = struct.pack(f"{order}{len(values)}{letter}", *values)
    return ORIENTATION, kind, len(values) // (2 if kind == RATIONAL else 1), content


def write_tiff(
    pixels: NDArray[Any],
    *orientations: Tag,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
) -> bytes:
    """(h, w) or (h, w, 3), of 8 or 16 bits -> a TIFF in strips of some rows, or in tiles."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if tile:
        tile_width, tile_height = tile
        margins = ((0, -height % tile_height), (0, -width % tile_width), (0, 0))[: pixels.ndim]
        padded = np.pad(pixels, margins)
        pieces = [
            padded[y : y + tile_height, x : x + tile_width].tobytes()
            for y in range(0, height, tile_height)
            for x in range(0, width, tile_width)
        ]
        layout = [(322, SHORT, [tile_width]), (323, SHORT, [tile_height])]
        offsets_tag, sizes_tag = 324, 325
    else:
        rows = rows or height
        pieces = [pixels[y : y + rows].tobytes() for y in range(0, height, rows)]
        layout, offsets_tag, sizes_tag = [(278, SHORT, [rows])], 273, 279
    letters = {SHORT: "H", LONG: "I"}

    def header(offsets: list[int]) -> bytes:
        fields = [
            (256, SHORT, [width]), (257, SHORT, [height]),
            (258, SHORT, [8 * pixels.itemsize] * channels), (259, SHORT, [1]),
            (262, SHORT, [1 if channels == 1 else 2]), (277, SHORT, [channels]), *layout,
            (offsets_tag, LONG, offsets), (sizes_tag, LONG, [len(piece) for piece in pieces]),
        ]  # fmt: skip
        tags = [
            (number, kind, len(values), struct.pack(f"<{len(values)}{letters[kind]}", *values))
            for number, kind, values in fields
        ]
        return tiff_directory(*sorted([*tags, *orientations], key=lambda tag: tag[0]))

    start = len(header([0] * len(pieces)))
    offsets = [start + sum(map(len, pieces[:n])) for n in range(len(pieces))]
    return header(offsets) + b"".join(pieces)


def save_with_exif(pixels: Pixels, format: str, exif: bytes = b"", **options: Any) -> bytes:
    """A JPEG, PNG or WebP whose EXIF block is this one, valid or not."""
    image = Image.fromarray(pixels)
    if format == "WEBP":
        return save_image(image, format, lossless=True, exif=b"Exif\0\0" + exif)
    data = save_image(image, format, **options)
    if format == "PNG":
        return insert_png_chunk(data, b"IDAT", b"eXIf", exif)
    block = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def png_with_size(width: int, height: int, length: int | None = None) -> bytes:
    """A PNG of 65 bytes: its header claims a size, its only data chunk a length."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(b""), length)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")
