"""``camserve explain``, run as a person would: what it finds, writes, says and exits with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from itertools import count
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from camserve_cli.explain_files import Photo, find_photos
from camserve_cli.explain_results import Results
from camserve_cli.explain_run import explain_all
from camserve_client import RequestTimeoutError
from camserve_client.responses import parse_reply
from devtools.ports import free_server_ports
from tests.support import color_resnet
from tests.support.scripts import CAMSERVE, COLOR_MODEL, camserve, interruptible, run
from tests.support.server_client import Client

EXPLAIN = (CAMSERVE, "explain")
ORIENTATION = 0x0112


def photo(path: Path, colour: str, **options: Any) -> None:
    """Write a photo of one disc."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = color_resnet.photo((colour, (160, 120), 60))
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two folders with photos, one of them with one that is broken."""
    folder = tmp_path / "photos"
    photo(folder / "a" / "disc.png", "red")
    photo(folder / "a" / "disc.JPG", "green", format="JPEG")
    photo(folder / "b" / "disc.png", "blue")
    photo(folder / "b" / "deep" / "disc.webp", "cyan")
    (folder / "b" / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo either")
    return folder


def run_explain(
    server: Client, folder: Path, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, against the tests' server unless the arguments name another."""
    return run(
        *EXPLAIN, *arguments, cwd=folder, **{**server.ports, "CAMSERVE_TOKEN": "", **environment}
    )


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "explanations.jsonl").read_text().splitlines()]


def pixels(path: Path) -> Any:
    """A picture as its file's raster, (h, w, 3) RGB."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imread(str(path), flags)


@pytest.mark.server
def test_a_condition_that_does_not_hold_is_told(
    server: Client, photos: Path, tmp_path: Path
) -> None:
    condition = ("--option", "explain_when=probability<0")
    done = run_explain(server, tmp_path, "photos/a", "--model", COLOR_MODEL, *condition)
    assert done.returncode == 0, done.stderr
    count = len(lines(tmp_path / "out" / "explained"))
    assert f"0 of {count} photos explained, 0 failed" in done.stdout
    assert f"the condition did not hold for {count}" in done.stdout


@pytest.mark.server
def test_a_folder_with_a_broken_photo(server: Client, photos: Path, tmp_path: Path) -> None:
    done = run_explain(server, tmp_path, "photos", "--model", COLOR_MODEL)
    assert done.returncode == 1
    assert done.stderr == (
        "passed over 1: 1 .txt (photos/notes.txt)\n"
        "photos/b/broken.jpg: the photo's format is not recognised; accepted: JPEG, PNG, WebP, "
        "GIF, BMP or TIFF (unsupported_format, 415)\n"
    )
    assert "4 of 5 photos explained, 1 failed, in " in done.stdout
    assert done.stdout.endswith("; out/explained/explanations.jsonl\n")
    out = tmp_path / "out" / "explained"
    written = lines(out)
    assert [line["photo"] for line in written] == [
        "photos/a/disc.JPG",
        "photos/a/disc.png",
        "photos/b/broken.jpg",
        "photos/b/deep/disc.webp",
        "photos/b/disc.png",
    ]
    assert written[2] == {
        "photo": "photos/b/broken.jpg",
        "error": {
            "code": "unsupported_format",
            "status": 415,
            "message": "the photo's format is not recognised; accepted: JPEG, PNG, WebP, GIF, BMP "
            "or TIFF",
        },
    }
    files = []
    for line, colour in zip(written, ("green", "red", None, "cyan", "blue"), strict=True):
        if colour is None:
            continue
        assert line["reply"]["predictions"][0]["label"] == colour
        (explanation,) = line["reply"]["explanations"]
        assert explanation["label"] == colour
        assert "heatmap" not in explanation
        overlay = explanation["overlay"]
        assert overlay == {
            "file": overlay["file"],
            "media_type": "image/jpeg",
            "width": 224,
            "height": 224,
        }
        files.append(overlay["file"])
        picture = pixels(out / overlay["file"])
        assert picture.shape == (224, 224, 3)
        # Beside the heat, in a corner, the photo's grey shows under JET's blue.
        assert picture[2, 2, 2] > picture[2, 2, 0]
    assert files == [
        "a/disc-JPG-green.jpeg",
        "a/disc-png-red.jpeg",
        "b/deep/disc-cyan.jpeg",
        "b/disc-blue.jpeg",
    ]
    assert {str(file.relative_to(out)) for file in out.rglob("*.*")} == {
        *files,
        "explanations.jsonl",
    }


@pytest.mark.server
def test_the_servers_batches_fill(server: Client, tmp_path: Path) -> None:
    for n in range(16):
        photo(tmp_path / f"{n}.png", "red")

    before = server.batches(COLOR_MODEL)
    done = run_explain(server, tmp_path, ".", "--model", COLOR_MODEL, "--option", "explain=false")
    assert done.returncode == 0
    assert 0 < server.batches(COLOR_MODEL) - before < 16


@pytest.mark.server
def test_a_photo_of_a_camera_held_on_its_side(server: Client, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    photo(tmp_path / "a.png", "red", exif=exif)
    outputs = ("--option", "outputs=overlay,mask,boxes,map", "--option", "size=original")
    done = run_explain(server, tmp_path, "a.png", "--model", COLOR_MODEL, *outputs)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = lines(tmp_path / "out" / "explained")
    (explanation,) = line["reply"]["explanations"]
    assert explanation["boxes"][0]["share"] > 0.5
    assert explanation["map"]["shape"] == [7, 7]
    for output, name in (("overlay", "a-red.jpeg"), ("mask", "a-red-mask.png")):
        assert explanation[output]["file"] == name
        written = tmp_path / "out" / "explained" / name
        with Image.open(written) as picture:
            assert picture.getexif()[ORIENTATION] == 6
        assert pixels(written).shape == (240, 320, 3)
    assert pixels(tmp_path / "out" / "explained" / "a-red-mask.png")[120, 160].min() > 128


@pytest.mark.server
def test_one_photo_and_the_classes_asked_for(server: Client, photos: Path, tmp_path: Path) -> None:
    done = run_explain(
        server,
        tmp_path,
        *(photos / "b" / "disc.png", "--model", COLOR_MODEL, "--out", "here"),
        *("--target", "blue", "--option", "top_k=2", "--option", "outputs=heatmap,overlay"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = lines(tmp_path / "here")
    assert line["photo"] == str(photos / "b" / "disc.png")
    assert len(line["reply"]["predictions"]) == 2
    (explanation,) = line["reply"]["explanations"]
    assert explanation["heatmap"]["file"] == "disc-blue-heatmap.png"
    assert explanation["overlay"]["file"] == "disc-blue.jpeg"
    heatmap, overlay = (
        pixels(tmp_path / "here" / explanation[name]["file"]).astype(int)
        for name in ("heatmap", "overlay")
    )
    seen = (overlay - 0.3 * heatmap) / 0.7
    # In the middle is the disc, in the corner is grey.
    assert np.abs(seen[112, 112] - color_resnet.COLOR_VALUES["blue"]).max() < 3
    assert np.abs(seen[2, 2] - color_resnet.GREY).max() < 3


@pytest.mark.server
@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_glob_and_a_server_by_name(
    server: Client, photos: Path, tmp_path: Path, transport: str
) -> None:
    http, grpc = (server.ports[name] for name in ("INFERENCE_PORT", "GRPC_INFERENCE_PORT"))
    there = {
        "http": ("--url", f"http://127.0.0.1:{http}/"),
        "grpc": ("--grpc", f"127.0.0.1:{grpc}"),
    }
    done = run_explain(
        server,
        tmp_path,
        *("photos/*/*.[pj]*", "photos/**/*.webp", "--model", COLOR_MODEL),
        *there[transport],
        *("--in-flight", "2", "--option", "image_format=jpeg"),
    )
    assert done.returncode == 1, done.stderr
    assert [line["photo"] for line in lines(tmp_path / "out" / "explained")] == [
        "photos/a/disc.png",
        "photos/b/broken.jpg",
        "photos/b/disc.png",
        "photos/b/deep/disc.webp",
    ]
    overlay = tmp_path / "out" / "explained" / "a" / "disc-red.jpeg"
    assert overlay.read_bytes().startswith(b"\xff\xd8")
    # Overlays are no photos of the next run.
    again = run_explain(server, tmp_path, "**/*.jpeg", "--model", COLOR_MODEL)
    assert again.returncode == 2


@pytest.mark.server
def test_the_models_and_tokens_of_the_server_that_runs(
    server: Client, photos: Path, tmp_path: Path
) -> None:
    disc = photos / "a" / "disc.png"
    first = json.loads((server.run_dir / "server.json").read_text())["models"][0]
    assert run_explain(server, tmp_path, disc).returncode == 0
    assert lines(tmp_path / "out" / "explained")[0]["reply"]["model"]["name"] == first
    wrong = run_explain(server, tmp_path, disc, CAMSERVE_TOKEN="wrong")
    assert wrong.returncode == 1
    assert "Token Authorization failed" in wrong.stderr
    assert run_explain(server, tmp_path, disc, "--token", server.token).returncode == 0


@pytest.mark.server
@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_server_of_this_machine_is_called_past_proxies(
    server: Client, photos: Path, tmp_path: Path, transport: str
) -> None:
    # Nothing listens there.
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    address = f"127.0.0.1:{server.ports['GRPC_INFERENCE_PORT']}"
    there = {"http": (), "grpc": ("--grpc", address)}[transport]
    disc = photos / "a" / "disc.png"
    done = run_explain(server, tmp_path, disc, *there, grpc_proxy="http://127.0.0.1:9", **proxies)
    assert done.returncode == 0, done.stderr
    environment = {**server.ports, "RUN_DIR": str(server.run_dir), "all_proxy": "socks5://x:9"}
    assert camserve("serve", "token", "management", **environment).strip()
    assert ": answers; " in camserve("serve", "status", **environment)


@pytest.mark.server
def test_a_photo_through_a_pipe(server: Client, photos: Path, tmp_path: Path) -> None:
    explain = f"{CAMSERVE} explain /dev/stdin --out {tmp_path / 'out'}"
    command = f"cat {photos / 'a' / 'disc.png'} | {explain}"
    environment = {**server.ports, "RUN_DIR": str(server.run_dir)}
    done = run("bash", "-o", "pipefail", "-c", command, **environment)
    assert done.returncode == 0, done.stderr
    assert "reply" in lines(tmp_path / "out")[0]


@pytest.mark.server
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "*.xyz", "a.png"], "no photo at 'nothing', '*.xyz'; looked for a file, a"),
        (["empty"], "folder with .apng, .avif, .bmp, .dib"),
        (["a.png", "--option", "alpha"], "--option alpha: accepted is KEY=VALUE"),
        (["a.png", "--target", "1", "--option", "target=2"], "are the same; use one"),
        (["a.png", "--url", "http://x", "--grpc", "x:1"], "--url and --grpc are two ways"),
        (["a.png", "--url", "http://x"], "so --model NAME is needed"),
        (["a.png", "--url", "x:8080", "--model", "m"], "address 'x:8080': accepted is a URL"),
        (["a.png", "--timeout", "0"], "timeout 0.0: accepted is"),
        (["a.png", "--url", "http://x:99999", "--model", "m"], "'http://x:99999': accepted is"),
        (["a.png", "--option", "self=1"], "--option self: the server has no such option"),
        (["a.png", "--option", "photo=1"], "--option photo: the server has no such option"),
        (["a.png", "--option", "alpha=1", "--option", "alpha=0"], "alpha is given twice, as '1'"),
        (["a.png", "--grpc", "x:1", "--model", "m", "--ca", "a.png"], "--ca a.png: "),
        (["/dev/null"], "no photo at '/dev/null'"),
        ([""], "an argument is empty"),
        (["a.png", "--url", ""], "--url: its value is empty"),
        (["a.png", "--out", "a.png"], "--out a.png: File exists"),
    ],
)
def test_what_cannot_begin(
    server: Client, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "a.png", "red")
    done = run_explain(server, tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("explain: ")
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_server_runs(photos: Path, tmp_path: Path) -> None:
    done = run(*EXPLAIN, photos, cwd=tmp_path, RUN_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "no server is running; start one with camserve serve start" in done.stderr


def test_a_server_that_cannot_be_reached(photos: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_server_ports()['INFERENCE_PORT']}"
    named = ("--url", url, "--model", "pets", "--out", tmp_path / "out")
    done = run(*EXPLAIN, photos / "a", *named, RUN_DIR=str(tmp_path))
    assert done.returncode == 1
    for line, name in zip(lines(tmp_path / "out"), ("disc.JPG", "disc.png"), strict=True):
        assert line["photo"] == str(photos / "a" / name)
        assert line["error"]["code"] == "unavailable"
        assert f"{line['photo']}: {url}/predictions/pets cannot be reached" in done.stderr


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that answers every photo in one way; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Slow:
    """A client whose calls take a while and fail."""

    def __init__(self) -> None:
        self.under_way = self.most = 0

    async def __aenter__(self) -> Slow:
        return self

    async def __aexit__(self, *_: Any) -> None: ...

    async def explain(self, path: Path, **options: Any) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        for _ in range(10):
            await asyncio.sleep(0)
        self.under_way -= 1
        if path.name == "3.png":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        raise RequestTimeoutError(f"{path} took too long")


@pytest.mark.parametrize(("in_flight", "most"), [(1, 1), (3, 3), (32, 7)])
def test_as_many_requests_at_once_as_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_flight: int, most: int
) -> None:
    found = [Photo(Path(f"{n}.png"), Path(str(n))) for n in range(7)]
    results = Results(tmp_path, (tmp_path / "explanations.jsonl").open("w"))
    progress = Progress(console=Console(stderr=True), disable=True)
    client: Any = Slow()
    asyncio.run(explain_all(client, found, {"size": "model"}, in_flight, results, progress))
    results.close()
    assert client.most == most
    assert (results.done, results.failed) == (7, 7)
    errors = [line["error"] for line in lines(tmp_path)]
    assert errors[2] == {"code": "timed_out", "message": "2.png took too long"}
    assert errors[3]["code"] == "local_error"
    said = capsys.readouterr().err
    assert "2.png: 2.png took too long\n" in said
    assert "3.png: [Errno 2] No such file or directory: '3.png'\n" in said


def test_ctrl_c_keeps_what_is_done(photos: Path, tmp_path: Path) -> None:
    first, over, numbers = Lock(), Event(), count(1)

    def answer(request: BaseHTTPRequestHandler) -> None:
        if first.acquire(blocking=False):
            over.wait()
        else:
            request.send_error(415, f"Not photo {next(numbers)}")

    with (
        # One photo gets no answer until all is over, the others fail at once.
        serving(answer) as url,
        interruptible(
            [*EXPLAIN, photos, "--url", url, "--model", "pets"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("passed over 1: ")
            complaints = [process.stderr.readline() for _ in range(4)]
            process.send_signal(signal.SIGINT)
            said, rest = process.communicate(timeout=60)
        finally:
            process.kill()
            over.set()
    assert process.returncode == 130
    assert "stopped: 0 of 5 photos explained, 4 failed" in said
    assert all(" (http_415, 415)" in line for line in complaints)
    assert rest == ""
    assert len(lines(tmp_path / "out" / "explained")) == 4


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5])
def test_ctrl_c_at_any_moment_ends_in_a_sentence(
    photos: Path, tmp_path: Path, seconds: float
) -> None:
    over = Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        over.wait()

    with (
        serving(answer) as url,
        interruptible(
            [*EXPLAIN, photos, "--url", url, "--model", "pets"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
            over.set()
    # Only while Python itself starts does it print a traceback of its own.
    assert "main()" not in complaints
    assert process.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize("full", ["explanations.jsonl", "a-tabby.png"])
def test_a_full_disk_ends_in_a_sentence(tmp_path: Path, full: str) -> None:
    photo(tmp_path / "a.png", "red")
    out = tmp_path / "out" / "explained"
    out.mkdir(parents=True)
    (out / full).symlink_to("/dev/full")
    done = explain_with_stub(tmp_path, "a.png")
    assert done.returncode == 1
    assert f"--out out/explained/{full}: No space left on device; " in done.stderr
    assert "of 1 photos explained" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_ends_in_a_sentence(tmp_path: Path) -> None:
    command = [str(CAMSERVE), "--version"]
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" >/dev/full', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("No space left on device\n")
    assert "Traceback" not in done.stderr


def test_an_empty_file_is_one_failure(server: Client, photos: Path, tmp_path: Path) -> None:
    (photos / "empty.jpg").touch()
    done = run_explain(server, tmp_path, photos)
    assert done.returncode == 1
    assert "empty.jpg: " in done.stderr
    assert "Traceback" not in done.stderr
    by_name = {Path(line["photo"]).name: line for line in lines(tmp_path / "out" / "explained")}
    assert by_name["empty.jpg"]["error"]["code"] == "missing_image"


def reply(orientation: int, label: str, overlay: bytes) -> dict[str, Any]:
    seen = {"class_id": 7, "label": label, "probability": 0.5, "score": 1.0}
    picture = {
        "b64": b64encode(overlay).decode(),
        "media_type": "image/png",
        "width": 320,
        "height": 240,
    }
    made = {"method": "gradcam", "layer": "x", "evidence": True, "peak": 1}
    return {
        "model": {"name": "pets", "version": "1.0"},
        "image": {"width": 3, "height": 4, "orientation": orientation, "seen": [0, 0, 3, 4]},
        "predictions": [seen],
        "explanations": [{**seen, **made, "overlay": picture}] * 2,
    }


def one_pixel() -> bytes:
    file = BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


def explain_with_stub(
    folder: Path, *arguments: str, label: str = "tabby"
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, against a server that sees the label in every photo."""
    body = json.dumps(reply(1, label, one_pixel())).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with serving(answer) as url:
        named = (*arguments, "--url", url, "--model", "pets")
        return run(*EXPLAIN, *named, cwd=folder, RUN_DIR=str(folder))


def overlays(line: dict[str, Any]) -> list[str]:
    """The names of a photo's overlays, in its line."""
    return [explanation["overlay"]["file"] for explanation in line["reply"]["explanations"]]


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_a_name_too_long_for_a_picture_is_cut(tmp_path: Path, letter: str) -> None:
    length = 248 // len(letter.encode())
    for last in "xy":
        photo(tmp_path / "photos" / f"{letter * length}{last}.png", "red")
    photo(tmp_path / "photos" / "b.png", "red")
    done = explain_with_stub(tmp_path, "photos", "--option", "size=original")
    assert (done.returncode, done.stderr) == (0, "")
    names = [name for line in lines(tmp_path / "out/explained") for name in overlays(line)]
    assert len(set(names)) == 6
    assert {len(name.encode()) for name in names if not name.startswith("b-")} <= {254, 255}
    assert all(name.endswith(("-tabby.png", "-tabby-2.png")) for name in names)
    assert all((tmp_path / "out/explained" / name).is_file() for name in names)


def test_a_picture_that_cannot_be_written_is_one_failure(tmp_path: Path) -> None:
    for name in ("a", "q/b", "r"):
        photo(tmp_path / "photos" / f"{name}.png", "red")
    out = tmp_path / "out/explained"
    out.mkdir(parents=True)
    # A file is where the folder for q's pictures must be.
    (out / "q").touch()
    # The second overlay's name leads into no folder.
    (out / "r-tabby-2.png").symlink_to("nowhere/x.png")
    done = explain_with_stub(tmp_path, "photos")
    assert done.returncode == 1
    assert done.stderr == (
        "photos/q/b.png: out/explained/q cannot be written: File exists\n"
        "photos/r.png: out/explained/r-tabby-2.png cannot be written: No such file or directory\n"
    )
    assert "1 of 3 photos explained, 2 failed" in done.stdout
    first, second, _ = lines(out)
    assert overlays(first) == ["a-tabby.png", "a-tabby-2.png"]
    assert second["error"] == {
        "code": "local_error",
        "message": "out/explained/q cannot be written: File exists",
    }
    # Nothing is left of the one whose other picture failed.
    assert not (out / "r-tabby.png").exists()


def test_pictures_and_folders_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "a-tabby.png/q", "explanations.jsonl/z"):
        photo(tmp_path / "photos" / f"{name}.png", "red")
    # A folder of somebody's.
    (tmp_path / "out/explained/a-tabby-2.png").mkdir(parents=True)
    # Its pictures are written before the folder is.
    done = explain_with_stub(tmp_path, "photos/a.png", "photos", "--in-flight", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [overlays(line) for line in lines(tmp_path / "out/explained")] == [
        ["a-tabby-3.png", "a-tabby-4.png"],
        ["a-tabby.png/q-tabby.png", "a-tabby.png/q-tabby-2.png"],
        ["explanations.jsonl-2/z-tabby.png", "explanations.jsonl-2/z-tabby-2.png"],
    ]


def test_a_folder_with_the_name_of_the_lines(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", "red")
    (tmp_path / "out/explained/explanations.jsonl").mkdir(parents=True)
    done = explain_with_stub(tmp_path, "a.png")
    assert done.returncode == 2
    assert done.stderr == "explain: --out out/explained/explanations.jsonl: Is a directory\n"


def test_ctrl_c_ends_the_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    with interruptible(
        [*EXPLAIN, "p.png", "--url", "http://127.0.0.1:9", "--model", "pets"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            # Written once the run has begun.
            while not (tmp_path / "out/explained/explanations.jsonl").exists():
                time.sleep(0.01)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            said, complaints = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.startswith("stopped: 0 of 1 photos explained")
    assert complaints == ""


def test_a_pipe_with_a_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    pipe = tmp_path / "p.png"
    Thread(target=pipe.write_bytes, args=(one_pixel(),), daemon=True).start()
    done = explain_with_stub(tmp_path, "p.png")
    assert done.returncode == 0, done.stderr
    assert overlays(lines(tmp_path / "out/explained")[0])[0] == "p-tabby.png"


def test_names_reach_the_terminal_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a\nb.png", "c\x1b[31md.png", ":cat:.png", "e\x1b[2J.txt", "f.x\x1b[my"):
        (folder / name).touch()
    done = run(
        *(*EXPLAIN, "photos", "--url", "http://127.0.0.1:9", "--model", "pets"),
        *("--out", "o\x1b[1m\nut"),
        cwd=tmp_path,
        RUN_DIR=str(tmp_path),
    )
    said = done.stderr.splitlines()
    assert said[0] == (
        r"passed over 2: 1 .txt (photos/e\x1b[2J.txt); 1 .x\x1b[my (photos/f.x\x1b[my)"
    )
    assert sorted(line.partition(": http")[0] for line in said[1:]) == [
        "photos/:cat:.png",
        r"photos/a\nb.png",
        r"photos/c\x1b[31md.png",
    ]
    assert done.stdout.endswith("; o\\x1b[1m\\nut/explanations.jsonl\n")


@pytest.mark.parametrize(("photos", "more"), [(3, ""), (4, "1 photo more"), (6, "3 photos more")])
def test_an_error_of_many_photos_is_shown_for_three(tmp_path: Path, photos: int, more: str) -> None:
    for n in range(photos):
        photo(tmp_path / "photos" / f"{n}.png", "red")

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_error(400, "colormap: accepted is viridis")

    with serving(answer) as url:
        named = ("photos", "--in-flight", "1", "--url", url, "--model", "pets")
        done = run(*EXPLAIN, *named, cwd=tmp_path, RUN_DIR=str(tmp_path))
    shown = [f"photos/{n}.png: colormap: accepted is viridis (http_400, 400)" for n in range(3)]
    counted = [f"and {more} with the same error as photos/0.png"] if more else []
    assert done.stderr.splitlines() == shown + counted
    errors = [line["error"]["message"] for line in lines(tmp_path / "out/explained")]
    assert errors == ["colormap: accepted is viridis"] * photos


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)])
def test_names_of_pictures_do_not_depend_on_the_order_of_replies(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    (tmp_path / "photos").mkdir()
    labels = {"a.jpg": "x", "a.png": "x", "a-png.png": "x", "b.png": "c-d", "b-c.png": "d"}
    for name in labels:
        (tmp_path / "photos" / name).touch()
    photos = find_photos([str(tmp_path / "photos")], tmp_path / "out").photos
    results = Results(tmp_path / "out", StringIO(), photos)
    names = {}
    for n in order:
        name = photos[n].path.name
        body = json.dumps(reply(1, labels[name], one_pixel())).encode()
        saved = asyncio.run(results.save_pictures(photos[n], parse_reply(body), False))
        names[name] = overlays({"reply": saved})
    assert names == {
        "a.jpg": ["a-jpg-x.png", "a-jpg-x-2.png"],
        "a-png.png": ["a-png-x.png", "a-png-x-2.png"],
        "a.png": ["a-png-2-x.png", "a-png-2-x-2.png"],
        # Were it b-c-d, it could be that of photo b-c.
        "b.png": ["b--c-d.png", "b--c-d-2.png"],
        "b-c.png": ["b-c-d.png", "b-c-d-2.png"],
    }


@pytest.mark.parametrize(("size", "orientation"), [("original", 6), ("224", 6), ("model", None)])
def test_an_overlay_is_as_turned_as_its_photo(
    tmp_path: Path, size: str, orientation: int | None
) -> None:
    photo(tmp_path / "a.png", "red")
    body = json.dumps(reply(6, "Tabby, tabby cat!", (tmp_path / "a.png").read_bytes())).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        assert json.loads(request.headers["X-Explain"]) == {"outputs": "overlay", "size": size}
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with serving(answer) as url:
        named = ("--url", url, "--model", "pets", "--option", f"size={size}")
        done = run(*EXPLAIN, "a.png", *named, cwd=tmp_path, RUN_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    # The same class twice.
    for name in ("a-tabby-tabby-cat.png", "a-tabby-tabby-cat-2.png"):
        written = tmp_path / "out" / "explained" / name
        with Image.open(written) as picture:
            assert picture.getexif().get(ORIENTATION) == orientation
        assert (pixels(written) == pixels(tmp_path / "a.png")).all()


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (["p"], {"p/a.png": "a", "p/q/a.png": "q/a", "p/q/b.JPG": "q/b"}),
        (["p/q", "p"], {"p/q/a.png": "q/a", "p/q/b.JPG": "q/b", "p/a.png": "a"}),
        (["p/q/a.png", "p/q/note.txt"], {"p/q/a.png": "a", "p/q/note.txt": "note"}),
        (["p/*/*.png", "p/./q/a.png"], {"p/q/a.png": "a"}),
        (["p/*"], {"p/a.png": "a", "p/q/a.png": "q/a", "p/q/b.JPG": "q/b"}),
        (["[x].png"], {"[x].png": "[x]"}),
        (["out/o.png"], {"out/o.png": "o"}),
        (["."], {"[x].png": "[x]", "p/a.png": "p/a", "p/q/a.png": "p/q/a", "p/q/b.JPG": "p/q/b"}),
        (["out", "*/o.png", "gone*", "pip*", "/dev/null"], {}),
        (["pipe"], {"pipe": "pipe"}),
    ],
)
def test_what_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str], found: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("p/a.png", "p/q/a.png", "p/q/b.JPG", "p/q/note.txt", "[x].png", "out/o.png"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    Path("gone.png").symlink_to("nowhere")
    # A glob takes no pipe, which might never give a byte.
    os.mkfifo("pipe")
    search = find_photos(named, Path("out"))
    assert {str(one.path): str(one.prefix) for one in search.photos} == found
    assert list(map(str, (one.path for one in search.photos))) == list(found)
    assert search.unmatched == ([] if found else named)


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.MPO", "a.png", "a.apng", "a.WebP", "a.gif", "a.bmp",
     "a.dib", "a.tif", "a.TIFF", "a.heic", "a.HEIF", "a.hif", "a.AVIF"],
)  # fmt: skip
def test_every_suffix_of_photos_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    search = find_photos([str(tmp_path)], tmp_path / "out")
    assert [one.path.name for one in search.photos] == [name]
    assert search.describe_passed_over() == ""


def test_what_is_passed_over_is_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (
        "p/a.png", "p/notes.txt", "p/q/b.TXT", "p/q/c.txt", "p/q/d.txt", "p/clip.mov", "p/README",
        "p/.hidden.png", "p/._a.png", "p/.thumbs/a.png",
    ):  # fmt: skip
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    Path("p/gone.png").symlink_to("nowhere")
    os.mkfifo("p/pipe.png")
    search = find_photos(["p", "p/q"], Path("out"))
    assert [str(one.path) for one in search.photos] == ["p/a.png"]
    assert search.unmatched == ["p/q"]
    assert search.describe_passed_over() == (
        "passed over 11: 4 .txt (p/notes.txt, p/q/b.TXT, p/q/c.txt, ..); "
        "3 hidden (p/._a.png, p/.hidden.png, p/.thumbs); 1 .mov (p/clip.mov); "
        "1 broken links (p/gone.png); 1 that are no files (p/pipe.png); "
        "1 without a suffix (p/README)"
    )


@pytest.mark.parametrize("named", ["gl", "gl/*.png", "gl/**/*.png", "g*"])
def test_links_and_pipes_are_passed_over_by_globs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gl").mkdir()
    for file in ("gl/a.png", "out.png"):
        Path(file).touch()
    Path("gl/b.png").symlink_to("nowhere")
    Path("gl/loop.png").symlink_to("loop.png")
    os.mkfifo("gl/p.png")
    Path("gl/to.png").symlink_to("p.png")
    search = find_photos([named], Path("out"))
    assert [str(one.path) for one in search.photos] == ["gl/a.png"]
    assert search.describe_passed_over() == (
        "passed over 4: 2 that are no files (gl/p.png, gl/to.png); 1 broken links (gl/b.png); "
        "1 that cannot be read: Too many levels of symbolic links (gl/loop.png)"
    )


@pytest.mark.parametrize("named", [["."], ["**/*.png"], ["p"], ["p/**"], ["p/**/*.png"], ["*"]])
def test_links_to_folders_multiply_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p/q").mkdir(parents=True)
    for file in ("p/a.png", "p/q/b.png"):
        Path(file).touch()
    for link, target in (
        ("p/self", "."),
        ("p/other", "../p"),
        ("p/q/up", ".."),
        ("p/q/q2", "../q"),
    ):
        Path(link).symlink_to(target)
    photos = find_photos(named, Path("out")).photos
    assert [str(one.path) for one in photos] == ["p/a.png", "p/q/b.png"]


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/a.png").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/more").symlink_to("../disk")
    photos = find_photos([str(tmp_path / "photos")], tmp_path / "out").photos
    assert [str(one.path) for one in photos] == [str(tmp_path / "photos/more/a.png")]


def test_hidden_files_are_explained_by_their_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (".a.png", "b.png", ".git/c.png"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    found = {
        named: [str(one.path) for one in find_photos([named], Path("out")).photos]
        for named in (".", "*", "**/*.png", ".a.png", ".git", ".*.png")
    }
    assert found == {
        ".": ["b.png"], "*": ["b.png"], "**/*.png": ["b.png"], ".a.png": [".a.png"],
        ".git": [".git/c.png"], ".*.png": [".a.png"],
    }  # fmt: skip


def test_a_photo_that_is_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    named = ["a.png", str(tmp_path / "a.png"), f"../{tmp_path.name}/a.png", "."]
    photos = find_photos(named, Path("out")).photos
    assert [str(one.path) for one in photos] == ["a.png"]


def test_no_picture_leaves_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("here/y/b.png", "x/a.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path / "here")
    photos = find_photos(["../x", "y"], Path("out")).photos
    assert [str(one.prefix) for one in photos] == ["x/a", "here/y/b"]


def test_photos_that_would_share_a_name(tmp_path: Path) -> None:
    for file in ("cat.jpg", "cat.png", "other/cat.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    photos = find_photos([str(tmp_path)], tmp_path / "out").photos
    assert [str(one.prefix) for one in photos] == ["cat-jpg", "cat-png", "other/cat"]


def test_lines_stand_in_the_order_of_the_photos(tmp_path: Path) -> None:
    results = Results(tmp_path, (tmp_path / "explanations.jsonl").open("w"))
    for number in (2, 0, 3, 5):
        results.write(number, {"photo": number})
    results.close()
    assert [line["photo"] for line in lines(tmp_path)] == [0, 2, 3, 5]
