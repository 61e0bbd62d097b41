"""``camserve ready`` and ``camserve serve status`` tell the truth about real servers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from camserve_cli.serving import ready as ready_file
from devtools.ports import free_server_ports
from tests.support.fault_server import FaultServer, fault, misbehaving_archive, serving, wait_until
from tests.support.scripts import CAMSERVE, COLOR_MODEL, run

#: What is said of the usual address, where a server may run that does not know the token.
USUAL = r"m: (http://127\.0\.0\.1:8080|HTTP 4\d\d): "

pytestmark = pytest.mark.server

#: A model whose worker is not started again for longer than this, in seconds.
FRAIL, RETRIES = "frail", 3


@pytest.fixture(scope="module")
def probe_server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """A server of two models with a worker and a short queue each; one's is soon given up."""
    folder = tmp_path_factory.mktemp("probed")
    archives = {name: folder / "store" / f"{name}.mar" for name in (COLOR_MODEL, FRAIL)}
    (folder / "store").mkdir()
    colours = store / f"{COLOR_MODEL}.mar"
    misbehaving_archive(colours, archives[COLOR_MODEL], batchSize=1)
    misbehaving_archive(colours, archives[FRAIL], FRAIL, maxRetryTimeoutInSec=RETRIES)
    with serving(folder, archives, workers="1", job_queue_size=2) as server:
        yield server


def ready(environment: dict[str, str], *options: str | Path) -> subprocess.CompletedProcess[str]:
    """What the probe says; one line."""
    done = run(CAMSERVE, "ready", *options, **environment)
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    assert not done.stderr
    return done


def assert_not_ready(server: FaultServer, why: str, *options: str | Path) -> None:
    done = ready(server.environment, *options)
    assert done.returncode == 1
    assert done.stdout.startswith("not ready: ")
    assert why in done.stdout


def send(server: FaultServer, photo: bytes, model: str = COLOR_MODEL) -> int:
    url = f"{server.inference}/predictions/{model}"
    return httpx.post(url, content=photo, headers=server.bearer(), timeout=60).status_code


def test_it_asks_the_server_that_was_started_in_run_dir(tmp_path: Path) -> None:
    # Nothing listens on these ports.
    addresses = {"inference": "https://127.0.0.1:1", "management": "https://127.0.0.1:2"}
    noted = tmp_path / "server.json"
    noted.write_text(json.dumps({**addresses, "authority": ""}))
    environment = {"RUN_DIR": str(tmp_path), "CAMSERVE_TOKEN": "x"}
    assert "m: https://127.0.0.1:1: " in ready(environment, "--model", "m").stdout
    elsewhere = ready(environment | {"INFERENCE_PORT": "3"}, "--model", "m")
    assert "m: http://127.0.0.1:3: " in elsewhere.stdout
    named = ready(environment, "--model", "m", "--url", "http://127.0.0.1:4")
    assert "m: http://127.0.0.1:4: " in named.stdout
    noted.write_text(json.dumps({**addresses, "authority": str(tmp_path / "none.pem")}))
    assert "--ca" in ready(environment, "--model", "m").stdout
    for damaged in ("", "[]", "{}"):
        noted.write_text(damaged)
        assert re.search(USUAL, ready(environment, "--model", "m").stdout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", ","), "--model NAME is required"),
        (("--model", " , "), "--model NAME is required"),
        (("--model", "m", "--timeout", "inf"), "--timeout inf: accepted is"),
        (("--model", "m", "--timeout", "1e300"), "--timeout 1e+300: accepted is"),
        (("--model", "m", "--timeout", "nan"), "--timeout nan: accepted is"),
        (("--live", "--timeout", "0"), "--timeout 0: accepted is"),
    ],
)
def test_arguments_that_are_refused(options: tuple[str, ...], message: str) -> None:
    done = run(CAMSERVE, "ready", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_address_that_is_none_is_named() -> None:
    for url in ("http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x"):
        done = ready({"CAMSERVE_TOKEN": "x"}, "--model", "m", "--url", url)
        assert done.returncode == 1
        assert f"m: {url}: " in done.stdout


def test_variables_that_are_empty_count_as_not_set(tmp_path: Path) -> None:
    empty = ("INFERENCE_PORT", "CAMSERVE_URL", "CAMSERVE_CA", "CAMSERVE_TOKEN_FILE")
    environment = {"RUN_DIR": str(tmp_path), "CAMSERVE_TOKEN": "x", **dict.fromkeys(empty, "")}
    assert re.search(USUAL, ready(environment, "--model", "m").stdout)


def test_it_is_light_and_says_when_all_is_well(probe_server: FaultServer) -> None:
    both = ready(probe_server.environment, "--model", f"{COLOR_MODEL},{FRAIL}")
    assert (both.returncode, both.stdout) == (0, "ready\n")
    live = ready(probe_server.environment, "--live")
    assert (live.returncode, live.stdout) == (0, "live\n")
    # Without site-packages: it can be copied to where nothing is installed.
    bare = run(
        sys.executable,
        "-I",
        "-S",
        ready_file.__file__,
        "--model",
        COLOR_MODEL,
        **probe_server.environment,
    )
    assert bare.stdout == "ready\n"


def test_tokens(probe_server: FaultServer, tmp_path: Path) -> None:
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_text(f"{probe_server.token()}\n")
    wrong.write_text("wrong\n")
    model = ("--model", COLOR_MODEL)
    no_keys = {**probe_server.environment, "RUN_DIR": str(tmp_path)}
    assert ready(no_keys, *model, "--token-file", good).returncode == 0
    assert ready({**no_keys, "CAMSERVE_TOKEN": probe_server.token()}, *model).returncode == 0
    assert_not_ready(probe_server, "HTTP 400: ", *model, "--token-file", wrong)
    assert_not_ready(probe_server, "No such file", *model, "--token-file", tmp_path / "none")
    assert ready(no_keys, *model).returncode == 1
    # A restart would cure nothing.
    assert ready(probe_server.environment, "--live", "--token-file", wrong).returncode == 0
    broken = tmp_path / "broken"
    broken.write_text("two words")
    assert_not_ready(probe_server, "a token is printable ASCII", *model, "--token-file", broken)
    assert "words" not in ready(probe_server.environment, *model, "--token-file", broken).stdout


def test_a_token_is_renewed_when_it_has_expired_and_never_before(
    probe_server: FaultServer, tmp_path: Path
) -> None:
    key_file = probe_server.run_dir / "key_file.json"
    before = probe_server.token()
    assert ready(probe_server.environment, "--model", COLOR_MODEL).returncode == 0
    assert probe_server.token() == before
    keys = json.loads(key_file.read_text())
    keys["inference"]["expiration time"] = "2020-01-01T00:00:00.000000000Z"
    key_file.write_text(json.dumps(keys))
    assert ready(probe_server.environment, "--model", COLOR_MODEL).returncode == 0
    assert probe_server.token() != before
    key_file.write_text(json.dumps(keys))
    nowhere = f"http://127.0.0.1:{free_server_ports()['MANAGEMENT_PORT']}"
    options = ("--model", COLOR_MODEL, "--management", nowhere)
    assert_not_ready(probe_server, f"token: {nowhere}: [Errno 111]", *options)
    # The file is TorchServe's again.
    assert ready(probe_server.environment, "--model", COLOR_MODEL).returncode == 0


def test_a_new_token_is_used_even_if_it_looks_expired(tmp_path: Path) -> None:
    """As where the clocks of the server and the probe differ: asking again would change nothing."""
    key_file = tmp_path / "key_file.json"
    asked = []

    def write(token: str) -> None:
        inference = {"key": token, "expiration time": "2020-01-01T00:00:00.000000000Z"}
        key_file.write_text(json.dumps({"inference": inference, "API": {"key": "api"}}))

    class Management(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            write(f"new {len(asked)}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    write("old")
    with HTTPServer(("127.0.0.1", 0), Management) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            token = ready_file.read_token(
                key_file, ready_file.Address(f"http://127.0.0.1:{server.server_port}", 30)
            )
        finally:
            server.shutdown()
            thread.join()
    assert token == "new 1"
    assert asked == [("/token?type=inference", "Bearer api")]


def test_a_model_that_is_not_there_is_named(probe_server: FaultServer) -> None:
    assert_not_ready(probe_server, "nobody: HTTP 404: ", "--model", f"{COLOR_MODEL},nobody")


def test_a_worker_that_hangs_and_then_a_queue_that_is_full(probe_server: FaultServer) -> None:
    pid = probe_server.ready_workers()
    with ThreadPoolExecutor(8) as pool:
        # Each is a batch of its own; two take longer than the probe needs to start.
        first = [pool.submit(send, probe_server, fault("slow")) for _ in range(2)]
        time.sleep(0.3)
        start = time.monotonic()
        assert_not_ready(
            probe_server, f"{COLOR_MODEL}: ", "--model", COLOR_MODEL, "--timeout", "0.5"
        )
        assert time.monotonic() - start < 5
        others = [pool.submit(send, probe_server, fault("slow")) for _ in range(5)]
        wait_until(lambda: probe_server.pending() >= 2, 10, "the queue is full")
        assert_not_ready(probe_server, f"{COLOR_MODEL}: HTTP 503: ", "--model", COLOR_MODEL)
        assert ready(probe_server.environment, "--live").returncode == 0
        assert {one.result() for one in [*first, *others]} == {200, 503}
    assert probe_server.ready_workers() == pid
    assert ready(probe_server.environment, "--model", COLOR_MODEL).returncode == 0


def test_a_worker_that_is_dead_for_good(probe_server: FaultServer) -> None:
    """The last of them: it breaks the archives of both models where they lie unpacked."""
    for weights in Path(probe_server.state["scratch"]).glob("models/*/weights.safetensors"):
        weights.unlink()
    (worker,), (frail,) = probe_server.ready_workers(), probe_server.ready_workers(FRAIL)
    psutil.Process(worker).kill()
    wait_until(lambda: not probe_server.ready_workers(), 10, "TorchServe noticed")
    assert probe_server.ping() == "Healthy"
    assert_not_ready(
        probe_server, f"{COLOR_MODEL}: ", "--model", f"{COLOR_MODEL},{FRAIL}", "--timeout", "2"
    )
    assert ready(probe_server.environment, "--live").returncode == 0
    status = run(CAMSERVE, "serve", "status", **probe_server.environment)
    assert status.returncode == 1
    assert f"{COLOR_MODEL}: DOES NOT ANSWER" in status.stdout
    assert f"{FRAIL}: answers; workers: 1 READY" in status.stdout
    # TorchServe says so itself once it has given a worker up.
    psutil.Process(frail).kill()
    wait_until(lambda: probe_server.ping() == "Unhealthy", 60, "/ping says Unhealthy")
    dead = ready(probe_server.environment, "--live")
    assert (dead.returncode, dead.stdout) == (1, "not live: TorchServe: HTTP 500: Unhealthy\n")


def test_no_server(tmp_path: Path) -> None:
    environment = {"RUN_DIR": str(tmp_path / "run"), **free_server_ports()}
    for options in (("--model", COLOR_MODEL), ("--live",)):
        done = ready(environment, *options)
        assert done.returncode == 1
        assert "Connection refused" in done.stdout
    status = run(CAMSERVE, "serve", "status", **environment)
    assert status.returncode == 1
    assert status.stdout.startswith("not running (RUN_DIR is ")
    done = ready(environment, "--model", COLOR_MODEL, "--url", "ftp://127.0.0.1")
    assert "accepted is http://host:port or https://host:port" in done.stdout
