"""``camserve serve``: start, status, token, stop, and what it says when something is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from camserve_cli.serving import java
from camserve_cli.serving.sizing import worker_summary
from devtools.ports import free_server_ports
from tests.support.fault_server import wait_until
from tests.support.scripts import (
    CAMSERVE,
    COLOR_MODEL,
    IMAGENET,
    ROOT,
    camserve,
    interruptible,
    run,
    two_cores,
)
from tests.support.server_client import Client

pytestmark = pytest.mark.server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"RUN_DIR": str(tmp_path / "run"), **free_server_ports()}


def test_a_second_server_starts_beside_the_first_and_both_stop_by_themselves(
    server: Client, store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    serve = (CAMSERVE, "serve")
    assert run(*serve, "status", **environment).returncode == 1
    # Tokens of a minute, which are renewed in its last 6 seconds only.
    config = (ROOT / "config.properties").read_text()
    config = config.replace("token_expiration_min=60", "token_expiration_min=1")
    (tmp_path / "short.properties").write_text(config)
    config_file = ("--config", tmp_path / "short.properties")
    options = ("--store", store, "--models", COLOR_MODEL, "--workers", "1", *config_file)
    logs = Path(environment["RUN_DIR"]) / "logs"
    logs.mkdir(parents=True)
    for name in ("server.1.log", "grpc.0.log", "mine.log"):
        (logs / name).write_text("before\n")
    said = camserve("serve", "start", *options, **environment)
    try:
        # Of what was there, only its own logs are gone.
        assert (logs / "mine.log").read_text() == "before\n"
        assert not (logs / "server.1.log").exists()
        base = f"http://127.0.0.1:{environment['INFERENCE_PORT']}"
        assert f"{base}/predictions/{COLOR_MODEL}" in said
        status = run(*serve, "status", **environment)
        assert status.returncode == 0
        assert f"{COLOR_MODEL}: answers; workers: 1 READY" in status.stdout
        assert IMAGENET not in status.stdout
        told = json.loads(camserve("serve", "token", "--json", **environment))
        assert 5 <= told["seconds_left"] <= 60
        expires = datetime.fromisoformat(told["expires"]).timestamp()
        assert abs(time.time() + told["seconds_left"] - expires) < 10
        token = camserve("serve", "token", **environment).strip()
        ping = httpx.get(f"{base}/ping", headers={"Authorization": f"Bearer {token}"})
        assert ping.json() == {"status": "Healthy"}
        renewed = run(*serve, "token", "--renew", **environment)
        assert renewed.stderr == "serve: the former inference token has ended, for every caller\n"
        by_token = {
            text: httpx.get(f"{base}/ping", headers={"Authorization": f"Bearer {text}"}).status_code
            for text in (token, renewed.stdout.strip())
        }
        assert list(by_token.values()) == [400, 200]
        assert camserve("serve", "token", **environment) == renewed.stdout
        again = run(*serve, "start", "--store", store, **environment)
        assert again.returncode == 1
        assert "already running" in again.stderr
        pid = int(status.stdout.split()[1].rstrip(":"))
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert len(family) > 1
    finally:
        stopped = run(*serve, "stop", **environment)
    assert stopped.stdout == "stopped\n"
    assert not any(process.is_running() for process in family)
    assert run(*serve, "stop", **environment).stdout.startswith("not running (RUN_DIR is ")
    assert not (Path(environment["RUN_DIR"]) / "key_file.json").exists()
    # The other server noticed nothing.
    assert server.http.get("/ping").status_code == 200


def changed(
    archive: Path, target: Path, handler: dict[str, Any], code: str = "", **keys: int
) -> None:
    """A copy of an archive with other settings, and code that its handler runs at its load."""
    with zipfile.ZipFile(archive) as given, zipfile.ZipFile(target, "w") as written:
        for name in given.namelist():
            content = given.read(name)
            if name == "model-config.yaml":
                config = yaml.safe_load(content)
                config["handler"].update(handler)
                content = yaml.safe_dump({**config, **keys}).encode()
            if name == "gradcam_handler.py":
                content += code.encode()
            written.writestr(name, content)


def test_there_is_a_worker_of_one_thread_for_each_core(
    store: Path, environment: dict[str, str]
) -> None:
    variables = {**environment, "OMP_NUM_THREADS": "64"}
    with two_cores() as cores:
        said = camserve("serve", "start", "--store", store, "--models", COLOR_MODEL, **variables)
    try:
        assert f"\n{COLOR_MODEL}: {worker_summary(cores, 1)}\n" in said
        token = camserve("serve", "token", "management", **environment).strip()
        (model,) = httpx.get(
            f"http://127.0.0.1:{environment['MANAGEMENT_PORT']}/models/{COLOR_MODEL}?customized=true",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        ).json()
        assert [worker["status"] for worker in model["workers"]] == ["READY"] * cores
        assert (model["minWorkers"], model["maxWorkers"]) == (cores, cores)
        assert model["customizedMetadata"]["model"]["threads"] == 1
        status = camserve("serve", "status", **environment)
        assert f"{COLOR_MODEL}: answers; workers: {cores} READY" in status
    finally:
        camserve("serve", "stop", **environment)


def test_so_many_workers_of_each_model_as_are_asked_for(
    store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """One archive gets more workers than it says, the other fewer."""
    # Four workers load at once.
    light = {"compile": "off", "layers": []}
    changed(store / f"{COLOR_MODEL}.mar", tmp_path / "few.mar", light)
    changed(store / f"{COLOR_MODEL}.mar", tmp_path / "many.mar", light, minWorkers=3, maxWorkers=3)
    start = (CAMSERVE, "serve", "start", "--store", tmp_path, "--workers", "2")
    done = run(*start, **environment)
    try:
        for name in ("few", "many"):
            assert f"\n{name}: 2 workers of 1 thread\n" in done.stdout
            assert f"serve: {name} answers\n" in done.stderr
        assert done.stderr.startswith("serve: TorchServe is starting as process ")
        assert "serve: waiting until few, many answer (0 of at most 180 s)\n" in done.stderr
        status = camserve("serve", "status", **environment)
        for name in ("few", "many"):
            assert f"{name}: answers; workers: 2 READY" in status
        log = (Path(environment["RUN_DIR"]) / "logs" / "server.log").read_text()
        assert '"level":"ERROR"' not in log
    finally:
        camserve("serve", "stop", **environment)


@pytest.mark.parametrize("workers", ["0", "1000", "abc"])
def test_a_number_of_workers_that_is_none(
    store: Path, environment: dict[str, str], workers: str
) -> None:
    options = ("--store", store, "--workers", workers)
    done = run(CAMSERVE, "serve", "start", *options, **environment)
    assert done.returncode == 1
    assert (
        f"serve: --workers {workers}: accepted are auto and whole numbers from 1 to 256\n"
        in done.stderr
    )
    assert not Path(environment["RUN_DIR"]).exists()


def test_a_model_that_cannot_be_loaded_is_said_with_the_reason(
    store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    # Beside lines that JSON would make six times as long, of one, two and three bytes a character.
    noise = "".join(
        f"print({text!r} * 50_000, flush=True)\n" for text in ("\x01", "\xe9", "\u2603")
    )
    broken = tmp_path / "store"
    broken.mkdir()
    changed(store / f"{COLOR_MODEL}.mar", broken / f"{COLOR_MODEL}.mar", {"layer": "layer5"}, noise)
    done = run(CAMSERVE, "serve", "start", "--store", broken, **environment)
    assert done.returncode == 1
    assert "a model cannot be loaded: SettingsError: the network has no layer 'layer5'" in (
        done.stderr
    )
    assert run(CAMSERVE, "serve", "status", **environment).returncode == 1
    lines = (Path(environment["RUN_DIR"]) / "logs" / "server.log").read_bytes().split(b"\n")[:-1]
    said = [line["message"] for line in map(json.loads, lines) if line["logger"] == "MODEL_LOG"]
    for text in ("?", "\xe9", "\u2603"):
        assert text * 2400 + "..." in said
    assert max(map(len, lines)) <= 8192


@pytest.mark.parametrize("models", ["nothing", "a=nothing.mar"])
def test_an_archive_that_is_not_there(
    store: Path, environment: dict[str, str], models: str
) -> None:
    done = run(CAMSERVE, "serve", "start", "--store", store, "--models", models, **environment)
    assert done.returncode == 1
    assert "nothing.mar; build it with camserve package" in done.stderr


def test_a_server_that_died_is_noticed_and_cleared_away(
    store: Path, environment: dict[str, str]
) -> None:
    camserve("serve", "start", "--store", store, "--models", COLOR_MODEL, **environment)
    record = json.loads((Path(environment["RUN_DIR"]) / "server.json").read_text())
    process = psutil.Process(record["pid"])
    family = [process, *process.children(recursive=True)]
    process.kill()
    psutil.wait_procs(family, timeout=10)
    assert not any(one.is_running() for one in family)
    for command in ("status", "token"):
        done = run(CAMSERVE, "serve", command, **environment)
        assert done.returncode == 1
        assert "not running" in done.stdout + done.stderr
    assert camserve("serve", "stop", **environment).startswith("not running (RUN_DIR is ")
    assert not Path(record["scratch"]).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_start_that_is_ended_leaves_nothing_running(
    store: Path, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    start = (CAMSERVE, "serve", "start", "--store", store, "--models", COLOR_MODEL)
    record = Path(environment["RUN_DIR"]) / "server.json"
    with interruptible(start, env={**os.environ, **environment}, stderr=subprocess.PIPE) as process:
        wait_until(record.exists, 60, "TorchServe was started")
        noted = json.loads(record.read_text())
        java = psutil.Process(noted["pid"])
        process.send_signal(number)
        process.communicate(timeout=60)
    try:
        assert process.returncode == 128 + number
        assert not java.is_running()
        assert not record.exists()
        assert not Path(noted["scratch"]).exists()
    finally:
        camserve("serve", "stop", **environment)


def test_a_port_that_is_taken_is_named(
    server: Client, store: Path, environment: dict[str, str]
) -> None:
    taken = {**environment, "METRICS_PORT": server.ports["INFERENCE_PORT"]}
    done = run(CAMSERVE, "serve", "start", "--store", store, **taken)
    assert done.returncode == 1
    assert f"port {taken['METRICS_PORT']} is taken; METRICS_PORT names another" in done.stderr


def test_replies_that_torchserve_would_not_take_are_refused(
    store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "small.properties"
    kept = [
        line
        for line in (ROOT / "config.properties").read_text().splitlines()
        if not line.startswith("max_response_size")
    ]
    # What is left out is TorchServe's own default.
    for size, lines in ((59_999_999, ["max_response_size=59999999"]), (6_553_500, [])):
        config.write_text("\n".join([*kept, *lines]))
        options = ("--store", store, "--models", COLOR_MODEL, "--config", config)
        done = run(CAMSERVE, "serve", "start", *options, **environment)
        assert done.returncode == 1
        assert f"60000000 bytes (handler.limits.reply_bytes), but max_response_size is {size}" in (
            done.stderr
        )
    assert not (Path(environment["RUN_DIR"]) / "server.json").exists()


def test_a_config_that_leaves_addresses_open_is_refused(
    store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    serve = (CAMSERVE, "serve", "start", "--store", store, "--config")
    (tmp_path / "open.properties").write_text("inference_address=http://127.0.0.1:8080\n")
    done = run(*serve, tmp_path / "open.properties", **environment)
    assert done.returncode == 1
    assert "must set grpc_inference_address, grpc_inference_port" in done.stderr
    assert "No such file" in run(*serve, tmp_path / "none", **environment).stderr


def test_an_empty_store(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(CAMSERVE, "serve", "start", "--store", tmp_path, **environment)
    assert done.returncode == 1
    assert "no archive in" in done.stderr


def test_no_java_is_found_where_none_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_292\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert java.java_home() is None
    old.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    assert java.java_home() == tmp_path / "old"


def test_the_environment_names_ports_and_the_store_is_the_only_source(
    server: Client, store: Path
) -> None:
    config = (server.run_dir / "config.properties").read_text().splitlines()
    assert f"inference_address=http://127.0.0.1:{server.ports['INFERENCE_PORT']}" in config
    assert f"grpc_management_port={server.ports['GRPC_MANAGEMENT_PORT']}" in config
    assert f"allowed_urls=file://{store}/.*" in config
