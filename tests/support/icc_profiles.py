"""ICC profiles whose conversion to sRGB is known by construction. ICC.1:2022."""

from __future__ import annotations

import itertools
import struct

from PIL import ImageCms

#: Of the primaries of sRGB, adapted to D50.
_RED, _GREEN, _BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
_WHITE = (0.9642, 1.0, 0.8249)
_LAB_WHITE, _LAB_BLACK, _LAB_RED = (255, 128, 128), (0, 128, 128), (138, 208, 195)


def rgb_profile(name: str = "Swapped", *, gamma: float = 2.2) -> bytes:
    """RGB of sRGB's primaries, red and green exchanged, so that (r, g, b) is (g, r, b)."""
    curve = _curve(gamma)
    return _profile(
        b"RGB ",
        b"XYZ ",
        {
            b"desc": _text(name), b"wtpt": _xyz(_WHITE),
            b"rXYZ": _xyz(_GREEN), b"gXYZ": _xyz(_RED), b"bXYZ": _xyz(_BLUE),
            b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
        },
    )  # fmt: skip


def grey_profile(name: str = "Linear grey") -> bytes:
    """Grey whose levels are proportional to light."""
    return _profile(
        b"GRAY", b"XYZ ", {b"desc": _text(name), b"wtpt": _xyz(_WHITE), b"kTRC": _curve(1.0)}
    )


def cmyk_profile(name: str = "Red cyan") -> bytes:
    """CMYK in which paper is white, cyan ink is red, and any other ink is black."""
    # The grid's last input varies fastest: cyan, magenta, yellow, black, each 0 or 1.
    corners = [
        (_LAB_RED if cyan else _LAB_WHITE) if not any(others) else _LAB_BLACK
        for cyan, *others in itertools.product((0, 1), repeat=4)
    ]
    identity = bytes(range(256))
    table = struct.pack(">4sIBBBx9i", b"mft1", 0, 4, 3, 2, *(65536 * n for n in _IDENTITY))
    table += identity * 4 + bytes(itertools.chain.from_iterable(corners)) + identity * 3
    return _profile(
        b"CMYK", b"Lab ", {b"desc": _text(name), b"wtpt": _xyz(_WHITE), b"A2B0": table}, b"prtr"
    )


def lab_profile() -> bytes:
    """A profile of a space that no photo is in."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def _fixed(number: float) -> int:
    return round(number * 65536)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, values))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    header = struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28)
    return b"mluc\0\0\0\0" + header + encoded


def _profile(
    space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr"
) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, offset + len(data), len(content))
        data += padded
    size = offset + len(data)
    header = struct.pack(
        ">I4sI4s4s4s12s4s40x3i48x", size, b"none", 0x04200000, kind, space, connection,
        bytes(12), b"acsp", *map(_fixed, _WHITE),
    )  # fmt: skip
    header = header[:68] + struct.pack(">3i", *map(_fixed, _WHITE)) + header[80:]
    return header[:128] + table + data
