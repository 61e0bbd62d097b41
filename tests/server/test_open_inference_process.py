"""The Open Inference front as a process: start, status, stop, TLS, a TorchServe restarted."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from camserve_cli.open_inference import open_inference_pb2 as pb
from camserve_cli.serving.certificate_authority import issue
from devtools.ports import free_server_ports
from devtools.processes import worker_processes
from tests.support import color_resnet
from tests.support.fault_server import wait_until
from tests.support.open_inference import Front, binary_body, connected, raw_request
from tests.support.scripts import CAMSERVE, COLOR_MODEL, camserve, run
from tests.support.server_client import Client

RED = color_resnet.png(color_resnet.photo(("red", (160, 120), 60)))
INFER = f"/v2/models/{COLOR_MODEL}/infer"


@pytest.fixture(scope="module")
def started(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a server with a front that both speak TLS. The last test stops it."""
    folder = tmp_path_factory.mktemp("tls")
    issue(folder, ["localhost"], 1)
    environment = {"RUN_DIR": str(tmp_path_factory.mktemp("run")), **free_server_ports()}
    options = ("--store", store, "--models", COLOR_MODEL, "--workers", "1", "--tls", folder)
    said = camserve("serve", "start", *options, "--open-inference", **environment)
    address = f"127.0.0.1:{environment['OPEN_INFERENCE_GRPC_PORT']}"
    port = environment["OPEN_INFERENCE_PORT"]
    assert f"\nOpen Inference: HTTP https://127.0.0.1:{port}, gRPC {address}\n" in said
    yield environment
    camserve("serve", "stop", **environment)


def noted(environment: dict[str, str]) -> dict[str, Any]:
    """What ``camserve serve start`` noted of the server."""
    return dict(json.loads((Path(environment["RUN_DIR"]) / "server.json").read_text()))


@contextmanager
def front_of(environment: dict[str, str]) -> Iterator[Front]:
    """Clients of the front."""
    token = camserve("serve", "token", **environment).strip()
    authority = Path(noted(environment)["authority"])
    base = f"https://localhost:{environment['OPEN_INFERENCE_PORT']}"
    address = f"localhost:{environment['OPEN_INFERENCE_GRPC_PORT']}"
    with connected(base, address, token, authority) as front:
        yield front


def infer(front: Front) -> int:
    """The HTTP status of a prediction."""
    body, headers = binary_body(RED)
    return front.http.post(INFER, content=body, headers=headers).status_code


def test_both_ports_speak_tls_alone(started: dict[str, str]) -> None:
    with front_of(started) as front:
        assert infer(front) == 200
        assert front.call("ModelInfer", raw_request(RED)).outputs
        port = started["OPEN_INFERENCE_PORT"]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/v2/health/live", timeout=10)
    status = camserve("serve", "status", **started)
    assert f"Open Inference: HTTP https://127.0.0.1:{port}" in status


def test_it_survives_a_torchserve_that_is_restarted(started: dict[str, str]) -> None:
    """With new tokens, on the same ports; meanwhile it answers that nothing is available."""
    java = psutil.Process(noted(started)["pid"])
    command, variables, folder = java.cmdline(), java.environ(), java.cwd()
    with front_of(started) as front:
        assert infer(front) == 200
        for process in [*java.children(recursive=True), java]:
            process.kill()
        java.wait(timeout=30)
        assert infer(front) == 503
        told = front.refusal("ModelInfer", raw_request(RED))
        assert told == ("UNAVAILABLE", "unavailable")
        wait_until(lambda: front.http.get("/v2/health/live").status_code == 503, 10, "not live")
        assert front.http.get("/v2/health/ready").status_code == 503
    tokens = Path(started["RUN_DIR"]) / "key_file.json"
    tokens.unlink()
    again = subprocess.Popen(command, env=variables, cwd=folder, stdout=subprocess.DEVNULL)
    # It has ended for those who stop it once its parent knows.
    threading.Thread(target=again.wait, daemon=True).start()
    file = Path(started["RUN_DIR"]) / "server.json"
    state = {**noted(started), "pid": again.pid, "started": psutil.Process(again.pid).create_time()}
    file.write_text(json.dumps(state))
    wait_until(tokens.exists, 60, "TorchServe has written its tokens")
    with front_of(started) as front:
        ready = "/v2/health/ready"
        wait_until(lambda: front.http.get(ready).status_code == 200, 120, "ready again")
    # With the new token.
    with front_of(started) as front:
        assert infer(front) == 200
        assert front.call("ModelInfer", raw_request(RED)).outputs
    assert "Open Inference" in camserve("serve", "status", **started)


def test_status_tells_of_a_front_that_died(server: Client, tmp_path: Path) -> None:
    """Of the tests' own server, with a note of a front that is not there any more."""
    state = json.loads((server.run_dir / "server.json").read_text())
    gone = {"pid": 1, "started": 0.0, "http": "http://127.0.0.1:1", "grpc": "127.0.0.1:1"}
    (tmp_path / "server.json").write_text(json.dumps({**state, "front": gone}))
    shutil.copy(server.run_dir / "key_file.json", tmp_path)
    status = run(CAMSERVE, "serve", "status", RUN_DIR=str(tmp_path))
    assert status.returncode == 1
    assert "DOES NOT ANSWER (its process has ended" in status.stdout
    assert f"{COLOR_MODEL}: answers" in status.stdout


def test_a_start_whose_front_cannot_start_leaves_nothing(store: Path, tmp_path: Path) -> None:
    environment = {"RUN_DIR": str(tmp_path / "run"), **free_server_ports()}
    config = tmp_path / "small.properties"
    text = (Path(__file__).parents[2] / "config.properties").read_text()
    # More than the front's memory.
    config.write_text(text.replace("max_response_size=67108864", "max_response_size=999999999"))
    options = ("--store", store, "--models", COLOR_MODEL, "--workers", "1", "--config", config)
    done = run(CAMSERVE, "serve", "start", *options, "--open-inference", **environment)
    assert done.returncode == 1
    assert "the Open Inference front ended" in done.stderr
    assert "999999999" in done.stderr
    assert not (tmp_path / "run" / "server.json").exists()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{environment['INFERENCE_PORT']}/ping")


def test_a_port_that_is_taken_is_named(
    store: Path, tmp_path: Path, started: dict[str, str]
) -> None:
    taken = started["INFERENCE_PORT"]
    ports = {**free_server_ports(), "OPEN_INFERENCE_PORT": taken}
    environment = {"RUN_DIR": str(tmp_path / "run"), **ports}
    done = run(CAMSERVE, "serve", "start", "--store", store, "--open-inference", **environment)
    assert done.returncode == 1
    assert f"port {taken} is taken; OPEN_INFERENCE_PORT names another" in done.stderr


def test_it_answers_what_is_in_work_before_it_stops(started: dict[str, str]) -> None:
    state = noted(started)
    (worker,) = worker_processes(state["pid"])
    with front_of(started) as front:
        outcomes: dict[str, Any] = {}

        def over_http() -> None:
            with front_of(started) as another:
                outcomes["http"] = infer(another)

        def over_grpc() -> None:
            outcomes["grpc"] = len(front.call("ModelInfer", raw_request(RED)).outputs) > 0

        # Its connection stays open.
        idle = front.http
        assert idle.get("/v2/health/ready").status_code == 200
        worker.suspend()
        callers = [threading.Thread(target=call) for call in (over_http, over_grpc)]
        for caller in callers:
            caller.start()
        time.sleep(1)
        stopping = subprocess.Popen(
            [CAMSERVE, "serve", "stop"], env={**psutil.Process().environ(), **started}
        )
        time.sleep(1)
        # It is there for those in work only.
        assert idle.get("/v2/health/ready").status_code == 503
        refused = idle.post(INFER, json={})
        assert refused.status_code == 503
        assert refused.json()["error_detail"]["code"] == "unavailable"
        status, _ = front.refusal("ServerLive", pb.ServerLiveRequest(), timeout=10)
        assert status == "UNAVAILABLE"
        assert psutil.pid_exists(state["pid"])
        worker.resume()
        for caller in callers:
            caller.join()
        assert outcomes == {"http": 200, "grpc": True}
        assert stopping.wait(timeout=60) == 0
    assert not psutil.pid_exists(state["front"]["pid"])
    assert not psutil.pid_exists(state["pid"])
