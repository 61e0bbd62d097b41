"""Base64 as callers write it: what is unambiguous is decoded, what is none is named."""

from __future__ import annotations

import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

import pybase64

from camserve.errors import RequestError, short_repr

_LINE_BREAKS: Final = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/]")
#: RFC 2397; the media type may have parameters.
_DATA_URL: Final = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
_URL_SAFE: Final = str.maketrans("-_", "+/")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]{1,10}://", re.IGNORECASE)
_FILE_NAME: Final = re.compile(
    r"(~|\.{1,2}|[A-Za-z]:)?[\\/]?[^\n]{0,4000}\.[A-Za-z][A-Za-z0-9]{1,4}", re.DOTALL
)
_PYTHON_BYTES: Final = re.compile(r"""b(['"]).*\1""", re.DOTALL)
_ACCEPTED: Final = (
    "accepted: the base64 of a photo's file, with or without padding, line breaks, a data: prefix "
    "or the URL-safe alphabet; binary needs no base64 but an image content type"
)
#: By the first bytes of what was decoded.
_NO_PHOTOS: Final = {b"\x93NUMPY": "a NumPy file (.npy)", b"PK\x03\x04": "a ZIP archive, as .npz"}
#: The first bytes of a photo's file in base64: JPEG, PNG, GIF, WebP, TIFF, BMP, and HEIC or AVIF.
_ENCODED_PHOTO: Final = re.compile(
    rb"[/_]9j[/_]|iVBORw0KGgo|R0lGOD[dl]|UklGR|SUkqA|TU0AK|Qk[0-3]|AAAA.GZ0eX"
)
_BASE64_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_= \t\r\n"


def decode_base64(text: str) -> bytes:
    """Decode the base64 of a photo's file.

    The alphabet is the standard one or the URL-safe one (RFC 4648). Padding may be missing, lines
    may be broken, and a data: URL is read.

    Raises:
        RequestError: ``invalid_base64``; the message says what the text looks like.
    """
    try:
        decoded = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        decoded = _decode_leniently(text)
    for signature, name in _NO_PHOTOS.items():
        if decoded.startswith(signature):
            raise _not_base64(f"holds {name}: encode the pixels as a PNG or a JPEG file first")
    if _ENCODED_PHOTO.match(decoded):
        raise _not_base64("is base64 of base64: encode the photo once")
    return decoded


def is_base64_text(content: bytes | bytearray) -> bool:
    """Whether bytes are a photo's base64 rather than its file.

    A photo's file begins with, or soon has, bytes that are no text.
    """
    if content[:5].lower() == b"data:":
        return True
    start = content[:80].lstrip()
    return bool(_ENCODED_PHOTO.match(start)) and not content.translate(None, _BASE64_BYTES)


def _decode_leniently(text: str) -> bytes:
    stripped = text.strip().lstrip("\ufeff")
    if data_url := _DATA_URL.match(stripped):
        content = stripped[data_url.end() :]
        if not data_url[1].lower().replace(" ", "").endswith(";base64"):
            raise _not_base64("is a data: URL without ;base64")
        stripped = unquote_to_bytes(content).decode("latin-1") if "%" in content else content
    compact = _LINE_BREAKS.sub("", stripped).rstrip("=")
    if "-" in compact or "_" in compact:
        if "+" in compact or "/" in compact:
            raise _not_base64(_description(stripped) or "mixes the standard and URL-safe alphabets")
        compact = compact.translate(_URL_SAFE)
    if invalid := _NOT_BASE64.search(compact):
        what = "has padding inside" if invalid[0] == "=" else f"holds {short_repr(invalid[0])}"
        raise _not_base64(_description(stripped) or what)
    if len(compact) % 4 == 1:
        raise _not_base64(_description(stripped) or "is cut short")
    return pybase64.b64decode(compact + "=" * (-len(compact) % 4))


def _description(text: str) -> str:
    """What a text that is no base64 looks like; empty where it looks like nothing known."""
    if _PYTHON_BYTES.fullmatch(text):
        return "is Python's text for bytes (b'..'): send base64.b64encode(photo).decode()"
    if _URL.match(text):
        return "is a URL, which is not fetched: send the photo itself"
    if _FILE_NAME.fullmatch(text):
        return "is the name of a file, which is not read: send the photo itself"
    if text.startswith(("{", "[", "<")):
        return f"is text that begins with {short_repr(text[0])}"
    return ""


def _not_base64(what: str) -> RequestError:
    return RequestError("invalid_base64", f"the photo's base64 {what}; {_ACCEPTED}")
