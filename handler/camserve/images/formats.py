"""What kind of file a photo is, by its first bytes: a format that can be read, or another's name.

A declared content type or a file's suffix is often wrong, so neither is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from camserve.errors import RequestError, SettingsError
from camserve.images.library_settings import enable_heic
from camserve.settings import PhotoFormat

#: The formats' usual spelling.
FORMAT_NAMES: Final[dict[PhotoFormat, str]] = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WebP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF",
    "heic": "HEIC", "avif": "AVIF",
}  # fmt: skip
_USUAL_KINDS: Final[dict[PhotoFormat, str]] = {
    "jpeg": "a JPEG of 8-bit samples",
    "bmp": "a BMP of 1, 4, 8, 16, 24 or 32 bits a pixel",
    "tiff": "a TIFF of unsigned integers, 8 or 16 bits each, in grey, RGB or CMYK",
}

_READABLE: Final[tuple[tuple[re.Pattern[bytes], PhotoFormat], ...]] = (
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"\x89PNG"), "png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"GIF8"), "gif"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "tiff"),
)
# What may stand before a document's first element. Possessive: a file of blanks takes one attempt.
_PROLOG: Final = rb"(?:\xef\xbb\xbf|\s|<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>]*>)*+"
# Each with its article, as a message says it.
_OTHERS: Final = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
    for pattern, name in (
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL file"),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "a JPEG 2000 file"),
        (rb"II\xbc", "a JPEG XR file"),
        (rb"8BPS", "a Photoshop file (PSD)"),
        (rb".{0,1024}?%PDF-", "a PDF file"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
        (rb"\0\0[\x01\x02]\0", "an icon (ICO)"),
        (rb"icns", "an icon (ICNS)"),
        (rb"IIU\0|IIR[OS]|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM", "a camera's raw photo"),
        (rb"\x76\x2f\x31\x01", "an OpenEXR file"),
        (rb"#\?R(ADIANCE|GBE)", "a Radiance HDR file"),
        (rb"P[1-7fF][\s#]", "a Netpbm file (PPM, PGM, PBM or PAM)"),
        (rb"DDS ", "a DDS file"),
        (rb"qoif", "a QOI file"),
        (rb"FLIF", "a FLIF file"),
        (rb"BPG\xfb", "a BPG file"),
        (rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "a PCX file"),
        (rb"gimp xcf", "a GIMP file (XCF)"),
        (rb"SIMPLE  =", "a FITS file"),
        (rb".{128}DICM", "a DICOM file"),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile"),
        (rb"AT&TFORM", "a DjVu file"),
        (rb"\x8a[MJ]NG", "an MNG file"),
        (rb"\x93NUMPY", "a NumPy file"),
        (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "an archive"),
        (rb"\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba|OggS|....(moov|mdat|wide|free)", "a video"),
        (_PROLOG + rb"<svg[\s>]", "an SVG drawing"),
        (_PROLOG + rb"<(!DOCTYPE html|html|head|body)[\s>]", "a web page (HTML)"),
        (rb"\s*<\?xml", "an XML file"),
    )
)
# ISO base media files: the brands of the first box, of four letters each. ISO/IEC 23008-12.
_BRANDS: Final = re.compile(rb"\0..[\x08-\xff]ftyp(.{4}).{4}((?:.{4})*)", re.DOTALL)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)
_HEIF_BRANDS: Final = frozenset({b"mif1", b"msf1", b"mif2"})
_RAW_BRANDS: Final = frozenset({b"crx "})
# A file's kind is in fewer bytes than this.
_HEAD_BYTES: Final = 4096


def identify(data: bytes | bytearray, accepted: Collection[PhotoFormat]) -> PhotoFormat:
    """The format of a file.

    Args:
        data: the file.
        accepted: the formats that may be read.

    Raises:
        RequestError: ``unsupported_format``, which names what the file is where that is known.
    """
    head = bytes(data[:_HEAD_BYTES])
    found = next((name for pattern, name in _READABLE if pattern.match(head)), None)
    other: str | None = None
    if brands := _BRANDS.match(head):
        found, other = _by_brands(brands)
    if found is not None and found in accepted:
        return found
    if found is not None:
        article = "an" if found == "avif" else "a"
        other = f"{article} {FORMAT_NAMES[found]} file, which the server's operator has not enabled"
    else:
        other = next((name for pattern, name in _OTHERS if pattern.match(head)), other)
    said = f"the photo is {other}" if other else "the photo's format is not recognised"
    raise RequestError("unsupported_format", f"{said}; accepted: {_listed(accepted)}")


def unsupported(kind: str, format: PhotoFormat, accepted: Collection[PhotoFormat]) -> RequestError:
    """The error for a file of a format that is read, but not its ``kind``: "a TIFF of floats"."""
    return RequestError(
        "unsupported_format",
        f"the photo is {kind}, which is not read; accepted: {_USUAL_KINDS[format]}, or another "
        f"file of {_listed(accepted)}",
    )


def enable_decoders(accepted: Collection[PhotoFormat]) -> None:
    """Load the decoders of formats that the operator's settings enable.

    Raises:
        SettingsError: a format needs a package that is not installed.
    """
    if "heic" in accepted:
        try:
            enable_heic()
        except ImportError as failure:
            raise SettingsError(
                "model-config.yaml: handler.formats: 'heic' needs the package pillow-heif in the "
                f"server's Python ({failure}); accepted: pip install pillow-heif, or formats "
                "without heic"
            ) from None


def _by_brands(brands: re.Match[bytes]) -> tuple[PhotoFormat | None, str | None]:
    """The format of an ISO base media file, or what else it is."""
    box_length = int.from_bytes(brands[0][:4], "big")
    compatible = brands[2][: max(0, box_length - 16)]
    names = [brands[1], *(compatible[at : at + 4] for at in range(0, len(compatible), 4))]
    # The major brand decides; a general one leaves it to the compatible ones.
    for name in names:
        if name in _AVIF_BRANDS:
            return "avif", None
        if name in _HEIC_BRANDS:
            return "heic", None
        if name in _RAW_BRANDS:
            return None, "a camera's raw photo"
    if _HEIF_BRANDS.isdisjoint(names):
        return None, "a video"
    return None, "a HEIF file whose codec is neither HEVC nor AV1"


def _listed(accepted: Collection[PhotoFormat]) -> str:
    *names, last = (FORMAT_NAMES[name] for name in FORMAT_NAMES if name in accepted)
    return f"{', '.join(names)} or {last}" if names else last
