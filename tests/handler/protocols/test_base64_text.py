"""Base64 as callers write it: read where it is unambiguous, else named for what it looks like."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable

import numpy as np
import pytest

from camserve.errors import RequestError
from camserve.protocols.base64_text import decode_base64, is_base64_text

PHOTOS = {
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "JPEG with Exif": b"\xff\xd8\xff\xe1\x3f\xffExif",
    "JPEG, bare": b"\xff\xd8\xff\xdb\x00\x43",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00",
    "GIF": b"GIF89a\x01\x00",
    "older GIF": b"GIF87a\x01\x00",
    "WebP": b"RIFF\x24\x00\x00\x00WEBP",
    "TIFF": b"II*\x00\x08\x00",
    "TIFF, big endian": b"MM\x00*\x00\x00",
    "BMP": b"BM\xf6\xff\x00\x00",
    "HEIC": b"\x00\x00\x00\x18ftypheic",
    "AVIF": b"\x00\x00\x00\x20ftypavif",
}
# Of all residues of three, so that padding is of all kinds, and long enough for several lines.
CONTENTS = {
    name: photo + bytes(range(256)) + bytes(n % 3) for n, (name, photo) in enumerate(PHOTOS.items())
}
WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "without padding": lambda text: text.rstrip("="),
    "with too much padding": lambda text: text + "==",
    "lines": lambda text: "\n".join(textwrap.wrap(text, 76)) + "\n",
    "lines of Windows": lambda text: "\r\n".join(textwrap.wrap(text, 64)),
    "indented lines": lambda text: "\n    ".join(textwrap.wrap(text, 60)),
    "white space around": lambda text: f" \n{text}\t ",
    "URL-safe": lambda text: text.translate(str.maketrans("+/", "-_")),
    "URL-safe without padding": lambda text: text.translate(str.maketrans("+/", "-_")).rstrip("="),
    "data URL": lambda text: f"data:image/jpeg;base64,{text}",
    "data URL without type": lambda text: f"data:;base64,{text}",
    "data URL with parameters": lambda text: f"DATA:image/png;name=a.png;BASE64,{text}",
    "data URL with escapes": lambda text: (
        "data:image/png;base64," + text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
    ),
    "data URL in lines": lambda text: "data:image/png;base64,\n" + "\n".join(textwrap.wrap(text)),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_unambiguous_is_read(content: str, written: str) -> None:
    text = WRITTEN[written](base64.b64encode(CONTENTS[content]).decode())
    assert decode_base64(text) == CONTENTS[content]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("content", CONTENTS)
def test_a_photos_base64_is_told_from_its_file(content: str, written: str) -> None:
    text = WRITTEN[written](base64.b64encode(CONTENTS[content]).decode()).strip()
    assert is_base64_text(bytearray(text.encode()))
    assert not is_base64_text(CONTENTS[content])


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2)))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.zeros((2, 2)))
    return file.getvalue()


TEXT = base64.b64encode(CONTENTS["JPEG"]).decode()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("https://example.com/cat.jpg", "is a URL, which is not fetched"),
        ("s3://bucket/cat", "is a URL"),
        ("file:///srv/cat.png", "is a URL"),
        ("/srv/photos/cat.jpg", "is the name of a file"),
        ("C:\\photos\\my cat.JPG", "is the name of a file"),
        ("./cat.webp", "is the name of a file"),
        ("cat.jpeg", "is the name of a file"),
        ("~/photo-1.heic", "is the name of a file"),
        (TEXT[:21] + "=" + TEXT[21:], "has padding inside"),
        (f"{TEXT[:40]} {TEXT[40:]}", "holds ' '"),
        (f"é{TEXT}", "holds 'é'"),
        (TEXT.rstrip("=")[:41], "is cut short"),
        ("-_-_" + TEXT + "+/", "mixes the standard and URL-safe alphabets"),
        (f"b'{TEXT}'", "is Python's text for bytes"),
        (f'b"{TEXT}"', "is Python's text for bytes"),
        (str(CONTENTS["JPEG"]), "is Python's text for bytes"),
        (base64.b64encode(TEXT.encode()).decode(), "is base64 of base64"),
        (base64.b64encode(npy()).decode(), "holds a NumPy file (.npy)"),
        (base64.b64encode(npz()).decode(), "holds a ZIP archive, as .npz"),
        ("data:image/svg+xml,<svg/>", "is a data: URL without ;base64"),
        ("<html><body>Not found</body></html>", "begins with '<'"),
        ('{"b64": "abc"}', "begins with '{'"),
        ("data:image/png;base64,http://example.com", "is a URL"),
    ],
)
def test_what_is_none_is_named_for_what_it_looks_like(text: str, named: str) -> None:
    with pytest.raises(RequestError) as error:
        decode_base64(text)
    assert error.value.code == "invalid_base64"
    assert named in error.value.message
    assert "accepted: the base64 of a photo's file" in error.value.message
