"""How many workers ``serve start`` chooses, from cores, memory, archives and the operator."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from camserve_cli.serving import sizing
from camserve_cli.serving.local_server import ServerError
from camserve_cli.serving.sizing import Sizing, choose, parse, worker_summary

GB = 10**9
#: Of an archive; a worker is taken to need 600 MB and three times that.
SIZE = 1_000_000
ONE = {"minWorkers": 1, "maxWorkers": 1, "handler": {"threads": 0}}
TWO = {"minWorkers": 2, "maxWorkers": 2, "handler": {"threads": 0}}
THREADS = {"minWorkers": 1, "maxWorkers": 1, "handler": {"threads": 3}}


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, 100 GB of memory, no container and no GPU."""
    monkeypatch.setattr("camserve.runtime.cores.CPU_QUOTA_FILE", tmp_path / "none")
    monkeypatch.setattr(sizing, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    have(monkeypatch, cores=8, memory=100 * GB)


def have(monkeypatch: pytest.MonkeyPatch, cores: int, memory: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    available = SimpleNamespace(available=memory)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)


def archives(folder: Path, *configs: dict[str, Any] | None, size: int = SIZE) -> dict[str, Path]:
    """Archives of so many bytes each, named a, b, ..; a config of None is left out."""
    made = {}
    for name, config in zip("abcdefgh", configs, strict=False):
        made[name] = folder / f"{name}.mar"
        # What is compressed still counts with its whole size.
        with zipfile.ZipFile(made[name], "w", zipfile.ZIP_DEFLATED) as packed:
            text = "" if config is None else yaml.safe_dump(config)
            packed.writestr("weights", bytes(size - len(text)))
            if config is not None:
                packed.writestr("model-config.yaml", text)
    return made


@pytest.mark.parametrize(
    ("cores", "configs", "scale", "threads"),
    [
        # A worker for each core; one alone is what the archive has by itself.
        (1, [ONE], {}, None),
        (2, [ONE], {"a": 2}, 1),
        (8, [ONE], {"a": 8}, 1),
        (8, [None], {"a": 8}, 1),
        # Models share the cores; what is left over makes threads of it.
        (8, [ONE, ONE], {"a": 4, "b": 4}, 2),
        (8, [ONE, ONE, ONE], {"a": 2, "b": 2, "c": 2}, 4),
        (2, [ONE, ONE], {}, None),
        (2, [ONE, ONE, ONE], {}, None),
        # An archive that was set by hand keeps its number, and counts as a model.
        (8, [TWO], {}, None),
        (8, [THREADS], {}, None),
        (8, [TWO, THREADS], {}, None),
        (8, [ONE, TWO], {"a": 4}, 2),
        (8, [THREADS, ONE], {"b": 4}, 2),
        (2, [ONE, TWO], {}, None),
    ],
)
def test_workers_for_the_cores(
    cores: int,
    configs: list[dict[str, Any] | None],
    scale: dict[str, int],
    threads: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, cores, 100 * GB)
    sized = choose(None, archives(tmp_path, *configs), {})
    assert (sized.scale, sized.threads) == (scale, threads)


@pytest.mark.parametrize(
    ("memory", "configs", "scale", "threads"),
    [
        # Half of it, over 603 MB a worker.
        (20 * GB, [ONE], {"a": 8}, 1),
        (9_648_000_000, [ONE], {"a": 8}, 1),
        (9_647_000_000, [ONE], {"a": 7}, 1),
        (3 * GB, [ONE], {"a": 2}, 4),
        (2 * GB, [ONE], {}, None),
        (GB // 10, [ONE], {}, None),
        (6 * GB, [ONE, ONE], {"a": 2, "b": 2}, 4),
        # Two by hand leave 1.8 of 3 GB.
        (6_100_000_000, [ONE, TWO], {"a": 3}, 2),
        (6_000_000_000, [ONE, TWO], {"a": 2}, 4),
        (2 * GB, [ONE, TWO], {}, None),
    ],
)
def test_workers_for_the_memory(
    memory: int,
    configs: list[dict[str, Any] | None],
    scale: dict[str, int],
    threads: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, 8, memory)
    sized = choose(None, archives(tmp_path, *configs), {})
    assert (sized.scale, sized.threads) == (scale, threads)


def test_large_weights_are_taken_into_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 900 MB a worker, of half of 8 GB.
    have(monkeypatch, 8, 8 * GB)
    assert choose(None, archives(tmp_path, ONE, size=100 * SIZE), {}).scale == {"a": 4}


@pytest.mark.parametrize(
    ("limit", "workers"),
    [("max", 8), ("7000000000", 4), ("3000000000", 1), ("1000000000", 1), ("300000000000", 8)],
)
def test_a_containers_limit_counts_without_the_files_it_holds(
    limit: str, workers: int, tmp_path: Path
) -> None:
    # 3 GB are used, of which 1 GB are files: of 7 GB, 5 are available.
    folder = tmp_path / "cgroup"
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("3000000000\n")
    (folder / "memory.stat").write_text(
        "anon 2000000000\nactive_file 600000000\ninactive_file 400000000\n"
    )
    sized = choose(None, archives(tmp_path, ONE), {})
    assert sized.scale.get("a", 1) == workers


@pytest.mark.parametrize(
    ("wanted", "scale", "threads"),
    [
        (1, {"b": 1}, None),
        (2, {"a": 2, "c": 2}, 4),
        (3, {"a": 3, "b": 3, "c": 3}, 2),
        (16, {"a": 16, "b": 16, "c": 16}, 1),
    ],
)
def test_a_number_that_was_asked_for_holds_for_all(
    wanted: int,
    scale: dict[str, int],
    threads: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, cores=8, memory=GB)
    sized = choose(wanted, archives(tmp_path, ONE, TWO, THREADS), {})
    assert sized == Sizing(scale, threads, {})


@pytest.mark.parametrize(
    ("cores", "memory", "configs", "reasons"),
    [
        (8, 100 * GB, [ONE], {"a": ""}),
        (8, 100 * GB, [ONE, ONE], {"a": "2 models share 8 cores", "b": "2 models share 8 cores"}),
        (8, 100 * GB, [ONE, TWO], {"a": "2 models share 8 cores", "b": "set in its archive"}),
        (8, 3 * GB, [ONE], {"a": "limited by memory, of which 3.0 GB are available"}),
        (8, 4 * GB, [TWO], {"a": "set in its archive"}),
    ],
)
def test_why_there_are_fewer_than_cores(
    cores: int,
    memory: int,
    configs: list[dict[str, Any] | None],
    reasons: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, cores, memory)
    assert choose(None, archives(tmp_path, *configs), {}).reasons == reasons


@pytest.mark.parametrize(
    ("says", "status", "visible", "config", "on_gpu"),
    [
        ("GPU 0: Accelerator (UUID: GPU-1)", 0, None, {}, True),
        ("GPU 0: Accelerator (UUID: GPU-1)", 0, "0", {}, True),
        ("GPU 0: Accelerator (UUID: GPU-1)", 0, "", {}, False),
        ("GPU 0: Accelerator (UUID: GPU-1)", 0, "-1", {}, False),
        ("GPU 0: Accelerator (UUID: GPU-1)", 0, None, {"number_of_gpu": "0"}, False),
        ("GPU 0: Accelerator (UUID: GPU-1)", 0, None, {"number_of_gpu": "1"}, True),
        ("No devices found.", 0, None, {}, False),
        ("NVIDIA-SMI has failed", 9, None, {}, False),
    ],
)
def test_a_gpu_leaves_the_archives_numbers(
    says: str,
    status: int,
    visible: str | None,
    config: dict[str, str],
    on_gpu: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = tmp_path / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    command.chmod(0o755)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = choose(None, archives(tmp_path, ONE), config)
    kept = Sizing({}, None, {"a": "on a GPU, its archive's number"})
    assert found == (kept if on_gpu else Sizing({"a": 8}, 1, {"a": ""}))
    # What the operator asks for stands there as well.
    assert choose(2, archives(tmp_path, ONE), config).scale == {"a": 2}


@pytest.mark.parametrize(
    ("threads", "given", "variables"),
    [
        (None, None, {}),
        (None, "1", {}),
        (2, None, {"OMP_NUM_THREADS": "2"}),
        (2, "64", {"OMP_NUM_THREADS": "2"}),
        (2, "1", {"OMP_NUM_THREADS": "1"}),
        (2, "1,4", {"OMP_NUM_THREADS": "1"}),
        (2, "0", {"OMP_NUM_THREADS": "2"}),
        (2, "many", {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_an_environment_that_asks_for_fewer_threads_stands(
    threads: int | None,
    given: str | None,
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert Sizing({}, threads, {}).environment() == variables


@pytest.mark.parametrize(
    ("workers", "threads", "words"),
    [
        (1, 1, "1 worker of 1 thread"),
        (2, 1, "2 workers of 1 thread"),
        (1, 2, "1 worker of 2 threads"),
        (3, 4, "3 workers of 4 threads"),
        (3, None, "3 workers"),
    ],
)
def test_workers_and_threads_in_words(workers: int, threads: int | None, words: str) -> None:
    assert worker_summary(workers, threads) == words


def test_what_workers_takes() -> None:
    assert [parse(text) for text in ("auto", "1", "17", "256")] == [None, 1, 17, 256]
    for text in ("0", "-1", "257", "1000", "abc", "1.5", "", "Auto", "²"):
        with pytest.raises(ServerError, match="accepted are auto and whole numbers from 1 to 256"):
            parse(text)


def test_starting_a_server_needs_no_torch() -> None:
    code = "import sys, camserve_cli.commands.serve; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == 0
