"""Valid photos, each with pixels of its own, and damaged files."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from random import Random
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

#: The classes of the tests' constructed network, and the colour of each, RGB.
CLASS_COLORS: Final = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
_SIZE: Final = (96, 72)
_EXIF_ORIENTATION: Final = 274


def valid_photo(number: int) -> tuple[bytes, str, str]:
    """A PNG that is unique to its number: its bytes, the digest of its pixels, its class."""
    name = list(CLASS_COLORS)[number % len(CLASS_COLORS)]
    width, height = _SIZE
    pixels = np.full((height, width, 3), 128, np.uint8)
    cv2.circle(pixels, (width // 2, height // 2), 20 + number % 9, CLASS_COLORS[name], -1)
    # The number itself, as pixels that are outside of the centre crop.
    stamp = np.frombuffer(number.to_bytes(9, "big"), np.uint8)
    pixels[0, :3] = stamp.reshape(3, 3)
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(), pixel_digest(pixels), name


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """A digest of (height, width, 3) RGB, equal where shape and all pixels are equal."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def file_digest(encoded: bytes) -> str:
    """:func:`pixel_digest` of a file's pixels; empty where it cannot be decoded."""
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    return "" if pixels is None else pixel_digest(pixels.astype(np.uint8))


@cache
def valid_files() -> dict[str, bytes]:
    """A small file of each format that the server reads, by name."""
    width, height = _SIZE
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    photo = Image.fromarray(ramp)
    frames = [photo.rotate(angle) for angle in (90, 180)]
    rotated = Image.Exif()
    rotated[_EXIF_ORIENTATION] = 6
    deep = Image.fromarray(ramp[..., 0].astype(np.uint16) * 257)
    with suppress(ImportError):
        # Without this package, no server here reads HEIC either.
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    images: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (photo, "JPEG", {}),
        "progressive jpeg": (photo, "JPEG", {"progressive": True}),
        "cmyk jpeg": (photo.convert("CMYK"), "JPEG", {}),
        "turned jpeg": (photo, "JPEG", {"exif": rotated}),
        "png": (photo, "PNG", {}),
        "palette png": (photo.convert("P"), "PNG", {"transparency": 3}),
        "16-bit png": (deep, "PNG", {}),
        "alpha png": (photo.convert("RGBA"), "PNG", {}),
        "animated png": (photo, "PNG", {"save_all": True, "append_images": frames}),
        "webp": (photo, "WEBP", {}),
        "lossless webp": (photo, "WEBP", {"lossless": True}),
        "animated webp": (photo, "WEBP", {"save_all": True, "append_images": frames}),
        "gif": (photo, "GIF", {}),
        "animated gif": (photo, "GIF", {"save_all": True, "append_images": frames}),
        "bmp": (photo, "BMP", {}),
        "tiff": (photo, "TIFF", {}),
        "lzw tiff": (photo, "TIFF", {"compression": "tiff_lzw"}),
        "deflate tiff": (photo, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "jpeg tiff": (photo, "TIFF", {"compression": "jpeg"}),
        "alpha tiff": (photo.convert("LA"), "TIFF", {}),
        "cmyk tiff": (photo.convert("CMYK"), "TIFF", {"compression": "lzma"}),
        "16-bit tiff": (deep, "TIFF", {"compression": "zstd"}),
        "big tiff": (photo, "TIFF", {"big_tiff": True}),
        "transparent grey png": (photo.convert("L"), "PNG", {"transparency": 7}),
        "profiled jpeg": (photo, "JPEG", {"icc_profile": profile}),
        "profiled png": (photo, "PNG", {"icc_profile": profile, "exif": rotated}),
        "profiled webp": (photo, "WEBP", {"icc_profile": profile}),
        "avif": (photo, "AVIF", {"icc_profile": profile}),
        "alpha avif": (photo.convert("RGBA"), "AVIF", {}),
        "heic": (photo, "HEIF", {}),
        "alpha heic": (photo.convert("RGBA"), "HEIF", {"icc_profile": profile}),
    }
    files = {"bit field bmp": _bit_field_bmp(ramp)}
    for name, (image, format_name, options) in images.items():
        if format_name not in Image.SAVE:
            continue
        buffer = io.BytesIO()
        image.save(buffer, format_name, **options)
        files[name] = buffer.getvalue()
    return files


def _bit_field_bmp(rgb: NDArray[np.uint8]) -> bytes:
    """A BMP of 16 bits a pixel: 5 of red, 6 of green and 5 of blue."""
    red, green, blue = np.moveaxis(rgb.astype(np.uint16), -1, 0)
    pixels: bytes = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3)[::-1].astype("<u2").tobytes()
    height, width = rgb.shape[:2]
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    offset = 14 + len(info) + len(masks)
    start = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    return start + info + masks + pixels


def damaged_file(random: Random) -> tuple[str, bytes]:
    """A file of some format with one to three damages: their names, and its bytes."""
    name = random.choice(list(valid_files()))
    data, names = valid_files()[name], [name]
    for _ in range(random.choice((1, 1, 2, 3))):
        damage = random.choice(_DAMAGES)
        data = damage(data, random)
        names.append(damage.__name__.strip("_"))
    return " ".join(names), data


def _flipped(data: bytes, random: Random) -> bytes:
    copy = bytearray(data)
    for _ in range(random.choice((1, 4, 64)) if copy else 0):
        copy[random.randrange(len(copy))] ^= 1 << random.randrange(8)
    return bytes(copy)


def _truncated(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _length_edited(data: bytes, random: Random) -> bytes:
    copy = bytearray(data)
    if len(copy) > 8:
        position = random.randrange(min(len(copy) - 4, 400))
        copy[position : position + 4] = random.choice(
            (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
        )
    return bytes(copy)


def with_claimed_size(data: bytes, width: int, height: int) -> bytes:
    """A file with another size in its header; unchanged where its format is not known here."""
    copy = bytearray(data)
    if data.startswith(b"\x89PNG"):
        copy[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        copy[29:33] = zlib.crc32(copy[12:29]).to_bytes(4, "big")
    elif data.startswith(b"GIF8"):
        copy[6:10] = (width % 65536).to_bytes(2, "little") + (height % 65536).to_bytes(2, "little")
    elif data.startswith(b"BM"):
        copy[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    elif data.startswith(b"\xff\xd8"):
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            position = data.find(marker)
            if position >= 0:
                size = (height % 65536).to_bytes(2, "big") + (width % 65536).to_bytes(2, "big")
                copy[position + 5 : position + 9] = size
    elif data[8:16] == b"WEBPVP8X":
        copy[24:27] = ((width - 1) % 2**24).to_bytes(3, "little")
        copy[27:30] = ((height - 1) % 2**24).to_bytes(3, "little")
    elif data[8:15] == b"WEBPVP8":
        copy[26:30] = (width % 2**14).to_bytes(2, "little") + (height % 2**14).to_bytes(2, "little")
    return bytes(copy)


def _giant(data: bytes, random: Random) -> bytes:
    sides = (0, 1, 6000, 20_000, 30_000, 65_535, 2**31 - 1)
    return with_claimed_size(data, random.choice(sides), random.choice(sides))


def _spliced(data: bytes, random: Random) -> bytes:
    other = random.choice(list(valid_files().values()))
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other)) :]


def _repeated(data: bytes, random: Random) -> bytes:
    position = random.randrange(len(data) + 1)
    return (
        data[:position] + data[position : position + 64] * random.randrange(2, 50) + data[position:]
    )


def _trailed(data: bytes, random: Random) -> bytes:
    return data + random.randbytes(random.choice((1, 100, 10_000)))


def _zeroed(data: bytes, random: Random) -> bytes:
    position = random.randrange(len(data) + 1)
    return data[:position] + bytes(min(64, len(data) - position)) + data[position + 64 :]


def _emptied(data: bytes, random: Random) -> bytes:
    return random.choice((b"", bytes(len(data)), random.randbytes(200)))


_DAMAGES: Final[tuple[Callable[[bytes, Random], bytes], ...]] = (
    _flipped, _truncated, _length_edited, _giant, _spliced, _repeated, _trailed, _zeroed, _emptied,
)  # fmt: skip
