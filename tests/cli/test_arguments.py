"""What commands refuse before they do anything: empty values, names and numbers that are none."""

from __future__ import annotations

import fcntl
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from camserve_cli.arguments import ArgumentError, check_name, check_not_empty, key_values
from devtools.ports import free_server_ports
from tests.support.scripts import CAMSERVE, ROOT, run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "an argument is empty"),
        (["photos", ""], "an argument is empty"),
        (["--out", ""], "--out: its value is empty"),
        (["--out=", "x"], "--out: its value is empty"),
        (["a.png", "--token", ""], "--token: its value is empty"),
    ],
)
def test_an_empty_argument_is_refused(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_not_empty(["explain", *arguments])


def test_an_empty_value_of_a_setting_is_a_value() -> None:
    check_not_empty(
        ["package", "--set", "handler.weights_sha256=", "--option=colormap=", "--", "-"]
    )


def test_values_by_name() -> None:
    given = ["a=1", "b=x=y", "c=", "a=1"]
    assert key_values("--set", given, "a=1") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "--set a: accepted is KEY=VALUE, as k=1"),
        (["=1"], "--set =1: accepted is KEY=VALUE"),
        (["a=1", "b=2", "a=2"], "--set a is given twice, as '1' and '2'"),
    ],
)
def test_values_that_are_refused(given: Sequence[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        key_values("--set", given, "k=1")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "ä", "a/b", "x" * 101, "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="accepted are up to 100 letters"):
        check_name("--models", name)


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


def test_an_empty_run_dir_is_the_default() -> None:
    code = "from camserve_cli import paths; print(paths.RUN_DIR)"
    python = CAMSERVE.with_name("python")
    assert run(python, "-c", code, RUN_DIR="").stdout == f"{ROOT / '.run'}\n"
