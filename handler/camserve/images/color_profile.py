"""A photo's ICC colour profile: its name, the conversion to sRGB, and the profile in pictures.

LittleCMS, through Pillow, reads profiles and converts.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import numpy as np
from PIL import Image, ImageCms

from camserve.images.geometry import Pixels

#: Profiles of displays have some 3 kB, those of printing presses up to 2 MB.
MAX_PROFILE_BYTES: Final = 4_000_000
_MAX_NAME: Final = 100
_Space = Literal["RGB", "GRAY", "CMYK"]
# By the names of LittleCMS; a profile of another space does not fit a photo.
_SPACES: Final[dict[str, _Space]] = {"RGB": "RGB", "GRAY": "GRAY", "CMYK": "CMYK"}
_MODES: Final[dict[_Space, str]] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# A JPEG's segment has up to 65,533 bytes, of which the profile's signature and numbering take 14.
_ICC_SIGNATURE: Final = b"ICC_PROFILE\0"
_JPEG_PART: Final = 65_519
_MAX_JPEG_PARTS: Final = 255
_WEBP_HAS_ICC: Final = 0x20


@dataclass(frozen=True)
class ColorProfile:
    """A colour profile that LittleCMS reads.

    Attributes:
        data: the profile.
        name: its description; may be empty.
        space: of the colours that it describes.
    """

    data: bytes = field(repr=False)
    name: str
    space: _Space


def read_profile(data: bytes | None) -> ColorProfile | None:
    """A profile from a photo's file; None where there is none, or none that can be used."""
    if not data or len(data) > MAX_PROFILE_BYTES:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile
        space, description = profile.xcolor_space.strip(), profile.profile_description or ""
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if space not in _SPACES:
        return None
    printable = "".join(letter for letter in description if letter.isprintable())
    return ColorProfile(bytes(data), printable.strip()[:_MAX_NAME], _SPACES[space])


def convert_to_srgb(image: Image.Image, profile: ColorProfile) -> Pixels:
    """Convert a photo's colours, as the profile describes them, to sRGB.

    The rendering intent is perceptual, LittleCMS's and Pillow's default.

    Args:
        image: in the mode of the profile's space, or RGB whose channels are equal for GRAY.
        profile: of the photo.

    Returns:
        (h, w, 3) RGB, 0 to 255.

    Raises:
        ValueError: the profile describes other colours than the photo has, or cannot be converted
            from.
    """
    mode = _MODES[profile.space]
    if mode == "L" and image.mode == "RGB":
        red, green, blue = image.split()
        if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
            raise ValueError("a profile of grey for a photo in colour")
        image = red
    if image.mode != mode:
        raise ValueError(f"a profile of {profile.space} for a photo of {image.mode}")
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile.data)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
        )
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as failure:
        raise ValueError(f"the profile cannot be converted from: {failure}") from None
    return np.asarray(cast(Image.Image, converted))


def png_chunk_content(profile: bytes) -> bytes:
    """The content of a PNG's iCCP chunk. PNG Specification, third edition, 11.3.2.3."""
    return b"photo\0\0" + zlib.compress(profile)


def embed_profile(data: bytes, profile: bytes) -> bytes:
    """A JPEG or WebP of this wing's own, with a profile. ICC.1:2022, annex B.4; RFC 9649.

    Returns:
        The file; as it was where the profile is larger than a JPEG can hold.
    """
    if data.startswith(b"RIFF"):
        return _embed_in_webp(data, profile)
    parts = [profile[at : at + _JPEG_PART] for at in range(0, len(profile), _JPEG_PART)]
    if len(parts) > _MAX_JPEG_PARTS:
        return data
    segments = b"".join(
        b"\xff\xe2"
        + struct.pack(">H", 2 + len(_ICC_SIGNATURE) + 2 + len(part))
        + _ICC_SIGNATURE
        + bytes((number, len(parts)))
        + part
        for number, part in enumerate(parts, 1)
    )
    # Behind the start of the image and, where there is one, the JFIF segment, which comes first.
    at = 2
    if data[2:4] == b"\xff\xe0":
        at = 4 + int.from_bytes(data[4:6], "big")
    return data[:at] + segments + data[at:]


def _embed_in_webp(data: bytes, profile: bytes) -> bytes:
    """A WebP of one lossy frame, in the extended format that can hold a profile."""
    # The frame's header: three bytes of tag, three of a start code, then 14 bits of each side.
    width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    extended = struct.pack("<BxxxHBHB", _WEBP_HAS_ICC, *_uint24(width - 1), *_uint24(height - 1))
    chunks = _riff_chunk(b"VP8X", extended) + _riff_chunk(b"ICCP", profile) + data[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _uint24(value: int) -> tuple[int, int]:
    return value & 0xFFFF, value >> 16
