"""``camserve serve``: what it refuses before anything is started, and what it finds damaged."""

from __future__ import annotations

import fcntl
import json
import zipfile
from pathlib import Path

import psutil
import pytest

from devtools.ports import free_server_ports
from tests.support.scripts import CAMSERVE, ROOT, run

# Each starts a command, beside which nothing is quick.
pytestmark = pytest.mark.server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with an archive ``a.mar`` that is never started, and one that is none."""
    store = tmp_path / "store"
    store.mkdir()
    with zipfile.ZipFile(store / "a.mar", "w") as archive:
        archive.writestr("model-config.yaml", "{}")
    (store / "bad.mar").write_bytes(b"not a zip")
    with zipfile.ZipFile(store / "list.mar", "w") as archive:
        archive.writestr("model-config.yaml", "[1]")
    return store


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (["--models", "z=/elsewhere/a.mar"], {}, "accepted is the name of a file in"),
        (["--models", "z=../store/a.mar"], {}, "accepted is the name of a file in"),
        (["--models", "=a"], {}, "--models ''"),
        (["--models", ","], {}, "--models ''"),
        (["--models", "a b=a"], {}, "--models 'a b'"),
        (["--models", "a,a=bad"], {}, "--models a is given twice"),
        (["--models", "bad"], {}, "bad.mar is damaged, or no archive"),
        (["--models", "list"], {}, "list.mar: its model-config.yaml has no keys"),
        (["--models", "a", "--timeout", "nan"], {}, "--timeout nan: accepted is"),
        (["--models", "a", "--timeout", "inf"], {}, "--timeout inf: accepted is"),
        (["--models", "a", "--timeout", "-1"], {}, "--timeout -1: accepted is"),
        (["--models", "a", "--store", "nowhere"], {}, "--store: no folder "),
        (["--models", "a", "--config", "{store}/a.mar"], {}, "a.mar is no text in UTF-8"),
        (["--models", "a"], {"INFERENCE_PORT": "0"}, "INFERENCE_PORT=0: accepted is a port"),
        (["--models", "a"], {"METRICS_PORT": "65536"}, "METRICS_PORT=65536: accepted is a port"),
        (["--models", "a"], {"METRICS_PORT": "-1"}, "METRICS_PORT=-1: accepted is a port"),
        (["--models", "a"], {"GRPC_INFERENCE_PORT": "8.5"}, "GRPC_INFERENCE_PORT=8.5: accepted"),
        (["--models", "a"], {"INFERENCE_PORT": "٣٨٠٨٠"}, "INFERENCE_PORT=٣٨٠٨٠: accepted"),
        (
            ["--models", "a"], {"INFERENCE_PORT": "8071", "METRICS_PORT": "8071"},
            "port 8071 is given twice, by INFERENCE_PORT and METRICS_PORT",
        ),
    ],
)  # fmt: skip
def test_a_start_that_cannot_succeed_is_refused_at_once(
    store: Path, tmp_path: Path, options: list[str], variables: dict[str, str], message: str
) -> None:
    named = [option.format(store=store) for option in options]
    environment = {"RUN_DIR": str(tmp_path / "run"), **free_server_ports(), **variables}
    done = run(CAMSERVE, "serve", "start", "--store", store, *named, cwd=tmp_path, **environment)
    assert done.returncode > 0
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "console.log").exists()


@pytest.mark.parametrize("port", ["0", "99999", "none"])
def test_a_port_of_the_config_that_is_none_is_named(store: Path, tmp_path: Path, port: str) -> None:
    text = (ROOT / "config.properties").read_text("utf-8")
    config = tmp_path / "own.properties"
    config.write_text(text.replace("grpc_inference_port=7070", f"grpc_inference_port={port}"))
    options = ("--store", store, "--models", "a", "--config", config)
    # An empty variable changes no port.
    environment = {**free_server_ports(), "GRPC_INFERENCE_PORT": "", "RUN_DIR": str(tmp_path)}
    done = run(CAMSERVE, "serve", "start", *options, **environment)
    assert done.returncode == 1
    assert done.stderr == f"serve: grpc_inference_port={port}: accepted is a port, 1 to 65535\n"


def test_a_start_beside_another_is_refused(store: Path, tmp_path: Path) -> None:
    environment = {"RUN_DIR": str(tmp_path), **free_server_ports()}
    with (tmp_path / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = ("--store", store, "--models", "a")
        done = run(CAMSERVE, "serve", "start", *options, **environment)
    assert done.returncode == 1
    assert f"a server is being started in {tmp_path}" in done.stderr


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"pid": 1, "other": 2}', "{"])
def test_a_damaged_record_of_the_server_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    for command in ("status", "stop", "token"):
        done = run(CAMSERVE, "serve", command, RUN_DIR=str(tmp_path))
        assert done.returncode == 1
        assert f"{tmp_path / 'server.json'} is damaged; " in done.stderr


def test_damaged_tokens_are_named(tmp_path: Path) -> None:
    # A process that lives, which stands in for TorchServe's.
    process = psutil.Process()
    record = {
        **dict.fromkeys(("inference", "management", "grpc", "scratch"), "none"),
        "pid": process.pid,
        "started": process.create_time(),
        "models": ["a"],
    }
    (tmp_path / "server.json").write_text(json.dumps(record))
    for content in ("{}", "[1]", "", '{"inference": 1}'):
        (tmp_path / "key_file.json").write_text(content)
        done = run(CAMSERVE, "serve", "token", RUN_DIR=str(tmp_path))
        assert done.returncode == 1
        assert f"no tokens in {tmp_path / 'key_file.json'}" in done.stderr
