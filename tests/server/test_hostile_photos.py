"""Photos that would crash or fill a careless decoder, through a real server.

Each is answered or refused, as intended, in under a second on an idle machine, and moves the
worker's memory by less than 200 MB. The deadline here is looser: others may load the machine.
"""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from devtools.fuzzing.photos import with_claimed_size
from devtools.processes import worker_processes
from tests.support import color_resnet
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

#: Seconds; on a loaded machine the processor is shared with whoever else computes.
DEADLINE = 5.0
GROWTH_MB = 200
PHOTO = color_resnet.photo(("red", (160, 120), 60))
PNG = color_resnet.png(PHOTO)
INVALID, MISSING = (400, "invalid_image"), (400, "missing_image")
TOO_LARGE = (413, "image_too_large")
UNSUPPORTED, ANSWERED, GREY = (415, "unsupported_format"), (200, "red"), (200, "grey")


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """A file that Pillow writes, of the red disc where nothing else is given."""
    buffer = io.BytesIO()
    (image or Image.fromarray(PHOTO)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """The red disc, with a chunk behind its header."""
    return PNG[:33] + chunk(kind, data) + PNG[33:]


def png_of(width: int, height: int, rows: int) -> bytes:
    """A black PNG that claims a size and holds so many rows."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * 3)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def damaged_idat() -> bytes:
    at = PNG.index(b"IDAT") + 20
    return PNG[:at] + bytes(20) + PNG[at + 20 :]


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A little-endian TIFF of one directory with tags (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(64)


def tiff_of(width: int, height: int, strips: int = 1) -> bytes:
    return tiff(
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, strips, 150), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, strips, 150),
    )  # fmt: skip


def tiff_self_referring() -> bytes:
    """The red disc in a directory that is the next one of itself."""
    whole = bytearray(encoded("TIFF"))
    (at,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, at)
    struct.pack_into("<I", whole, at + 2 + 12 * count, at)
    return bytes(whole)


def wide_frame_gif() -> bytes:
    """A frame of 60000 x 60000 on a screen of 320 x 240."""
    gif = bytearray(encoded("GIF"))
    at = gif.index(b"\x2c\0\0\0\0")
    gif[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    return bytes(gif)


def many_scans() -> bytes:
    """A progressive JPEG of 4000 x 4000 whose last scan comes 3000 times."""
    jpeg = encoded("JPEG", Image.new("RGB", (4000, 4000), "red"), progressive=True)
    at = jpeg.rindex(b"\xff\xda")
    return jpeg[:at] + jpeg[at:-2] * 3000 + jpeg[-2:]


def hidden_scans() -> bytes:
    """A progressive JPEG with what could be scans in a profile and behind its end."""
    jpeg = encoded("JPEG", progressive=True)
    profile = b"\xff\xda" * 1000
    segment = b"\xff\xe2" + struct.pack(">H", 2 + len(profile)) + profile
    return jpeg[:2] + segment + jpeg[2:] + profile


def many_frames(kind: str, count: int = 10_000) -> bytes:
    """An animation whose first frame is the red disc, and many of 4 x 4."""
    gif = encoded("GIF")
    frame = b"\x21\xf9\x04\0\x01\0\0\0\x2c\0\0\0\0\x04\0\x04\0\0\x02\x02\x44\x01\0"
    if kind == "GIF":
        return gif[:-1] + frame * count + b";"
    webp = encoded(
        "WEBP", save_all=True, append_images=[Image.new("RGB", (320, 240), "blue")], lossless=True
    )
    at = webp.rindex(b"ANMF")
    body = webp[:at] + webp[at:] * min(count, 2000)
    return b"RIFF" + struct.pack("<I", len(body) - 8) + body[8:]


def clear_codes(size: int = 1_000_000) -> bytes:
    """A GIF of 320 x 240 whose data is the code that clears the decoder's table, and no other."""
    # Of 9 bits, least significant first: 0x100 over and over.
    codes = int("100000000" * 8, 2).to_bytes(9, "little") * (size // 9)
    blocks = b"".join(bytes([len(part)]) + part for part in batched_bytes(codes, 255))
    header = b"GIF89a" + struct.pack("<HHBBB", 320, 240, 0xF7, 0, 0) + bytes(768)
    return header + b"," + struct.pack("<HHHHB", 0, 0, 320, 240, 0) + b"\x08" + blocks + b"\0;"


def batched_bytes(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded("JPEG", exif=exif)


def deep(photo: NDArray[np.uint8]) -> bytes:
    """A PNG of 16 bits."""
    return cv2.imencode(".png", photo[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


def palette() -> bytes:
    return encoded("PNG", Image.fromarray(PHOTO).quantize(8), transparency=7)


def animated(kind: str) -> bytes:
    other = Image.new("RGB", (320, 240), "blue")
    return encoded(kind, save_all=True, append_images=[other])


def giant(kind: str, width: int = 30_000, height: int = 30_000, **options: Any) -> bytes:
    return with_claimed_size(encoded(kind, **options), width, height)


def webp_claiming() -> bytes:
    """An extended WebP, in whose header 24 bits hold a side."""
    return with_claimed_size(animated("WEBP"), 16_000_000, 16_000_000)


#: What is sent, and the answer: the status with the photo's colour or the error's code.
CASES: dict[str, tuple[Callable[[], bytes], tuple[int, str]]] = {
    "truncated JPEG": (lambda: encoded("JPEG")[:900], INVALID),
    "truncated PNG": (lambda: PNG[: len(PNG) // 2], INVALID),
    "truncated GIF": (lambda: encoded("GIF")[:400], INVALID),
    "truncated WebP": (lambda: encoded("WEBP")[:500], INVALID),
    "PNG with damaged IDAT": (damaged_idat, INVALID),
    "65-byte PNG of 30k x 30k": (lambda: png_of(30_000, 30_000, 0)[:65], TOO_LARGE),
    "small PNG of 30k x 30k": (lambda: png_of(30_000, 30_000, 3000), TOO_LARGE),
    "small JPEG of 20k x 20k": (lambda: giant("JPEG", 20_000, 20_000), TOO_LARGE),
    "WebP that claims 16M x 16M": (webp_claiming, INVALID),
    "WebP that claims 16k x 16k": (lambda: giant("WEBP", 16_383, 16_383), TOO_LARGE),
    "GIF that claims 65k x 65k": (lambda: giant("GIF", 65_535, 65_535), TOO_LARGE),
    "BMP that claims 30k x 30k": (lambda: giant("BMP"), TOO_LARGE),
    "TIFF that claims 30k x 30k": (lambda: tiff_of(30_000, 30_000), TOO_LARGE),
    "TIFF of 2 ** 31 strips": (lambda: tiff_of(64, 64, 2**31 - 1), INVALID),
    "TIFF whose directory is its own next": (tiff_self_referring, ANSWERED),
    "GIF frame larger than its screen": (wide_frame_gif, TOO_LARGE),
    "PNG with 500 MB of zTXt": (
        lambda: with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(500_000_000), 9)),
        ANSWERED,
    ),
    "PNG with 500 MB of iCCP": (
        lambda: with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(500_000_000), 9)),
        ANSWERED,
    ),
    "PNG with 500 MB of iTXt": (
        lambda: with_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(500_000_000), 9)),
        ANSWERED,
    ),
    "EXIF of nonsense": (lambda: encoded("JPEG", exif=b"Exif\0\0" + b"\xff" * 5000), ANSWERED),
    "JPEG of 3000 scans": (many_scans, TOO_LARGE),
    "JPEG whose profile looks like scans": (hidden_scans, ANSWERED),
    "GIF of 10000 frames": (lambda: many_frames("GIF"), ANSWERED),
    "GIF of a million bytes of clear codes": (clear_codes, INVALID),
    "WebP of 2000 frames": (lambda: many_frames("WEBP"), ANSWERED),
    "zero bytes": (lambda: b"", MISSING),
    "zeros": (lambda: bytes(4096), UNSUPPORTED),
    "EXIF orientation": (turned, ANSWERED),
    "CMYK": (lambda: encoded("JPEG", Image.fromarray(PHOTO).convert("CMYK")), ANSWERED),
    "palette with alpha": (palette, ANSWERED),
    "16-bit grey": (lambda: deep(PHOTO[..., :1]), GREY),
    "16-bit colour": (lambda: deep(PHOTO), ANSWERED),
    "animated GIF": (lambda: animated("GIF"), ANSWERED),
    "animated WebP": (lambda: animated("WEBP"), ANSWERED),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', UNSUPPORTED),
    "HTML": (lambda: b"<!doctype html><img src=x onerror=alert(1)>", UNSUPPORTED),
    "PDF": (lambda: b"%PDF-1.7\n1 0 obj<<>>endobj", UNSUPPORTED),
    "ELF": (lambda: b"\x7fELF\x02\x01\x01" + bytes(200), UNSUPPORTED),
    "zip": (lambda: b"PK\x03\x04" + bytes(200), UNSUPPORTED),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(200), UNSUPPORTED),
}


@pytest.fixture(scope="module")
def worker(server: Client) -> psutil.Process:
    """The process that runs the constructed network, which has answered once."""
    state = json.loads((server.run_dir / "server.json").read_text())
    pids = {int(one["pid"]) for one in server.describe(COLOR_MODEL)["workers"]}
    (pid,) = pids & {process.pid for process in worker_processes(state["pid"])}
    server.http.post(f"/predictions/{COLOR_MODEL}", content=PNG)
    return psutil.Process(pid)


def peak(worker: psutil.Process) -> float:
    """The most resident memory, in MB, since it was reset.

    Raises:
        KeyError: the kernel does not tell; then what a photo costs cannot be tested.
    """
    lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    told = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return int(told["VmHWM"].removesuffix("kB")) * 1024 / 1e6


def colour(scores: Mapping[str, float]) -> str:
    """The class that a constructed network saw; on grey, it gives every class a score of zero."""
    best = max(scores, key=lambda label: scores[label])
    return best if scores[best] > 0.01 else "grey"


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_photo_costs_little(server: Client, worker: psutil.Process, name: str) -> None:
    made, intended = CASES[name]
    photo = made()
    # proc(5): 5 resets the high-water mark to what is resident now.
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")
    before = worker.memory_info().rss / 1e6
    start = time.perf_counter()
    response = server.http.post(f"/predictions/{COLOR_MODEL}/1.0/outputs=map", content=photo)
    took = time.perf_counter() - start
    grown = peak(worker) - before
    reply = response.json()
    if "predictions" in reply:
        told = colour({one["label"]: one["score"] for one in reply["predictions"]})
    else:
        told = reply["error"]["code"]
    assert (response.status_code, told) == intended, reply
    assert took < DEADLINE
    assert grown < GROWTH_MB
    assert worker.is_running()
