"""scripts/cpu_torch.py: whether an index is asked for torch, which, and how long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import cpu_torch
from tests.support.package_index import Answer, dribble, hang, serving, wheel


@pytest.mark.parametrize("answer", [hang, dribble])
def test_the_bound_is_of_the_whole_answer(answer: Answer) -> None:
    with serving(answer=answer) as index:
        began = time.monotonic()
        assert cpu_torch.unreachable(index.url, 0.5) == "no answer within 0.5 s"
        assert time.monotonic() - began < 2


def test_where_nobody_listens_nothing_is_waited_for() -> None:
    with serving() as index:
        closed = index.url
    began = time.monotonic()
    assert "refused" in (cpu_torch.unreachable(closed) or "")
    assert time.monotonic() - began < 2


def test_an_index_without_torch_is_told_by_its_status() -> None:
    with serving([wheel("torch", "2.0")]) as with_torch, serving() as without:
        assert cpu_torch.unreachable(with_torch.url) is None
        assert "404" in (cpu_torch.unreachable(without.url) or "")


@pytest.mark.parametrize("asked", ["cpu", "file:///wheels", "PyPI"])
def test_what_is_no_index_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match=f"{asked}: accepted are pypi and the URL"):
        cpu_torch.chosen_index(asked)


@pytest.fixture
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine without a driver."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def test_pytorchs_index_is_asked_where_there_is_no_driver(no_driver: Path) -> None:
    assert cpu_torch.chosen_index("", platform="linux", root=no_driver) == cpu_torch.CPU_INDEX
    assert cpu_torch.chosen_index("", platform="darwin", root=no_driver) is None


@pytest.mark.parametrize("sign", [*cpu_torch.DRIVER_FILES, "bin/nvidia-smi"])
def test_each_sign_of_a_driver_means_pypi(no_driver: Path, sign: str) -> None:
    (no_driver / sign).parent.mkdir(parents=True, exist_ok=True)
    (no_driver / sign).touch(mode=0o755)
    assert cpu_torch.chosen_index("", platform="linux", root=no_driver) is None
    assert cpu_torch.chosen_index("http://host/cpu/", root=no_driver) == "http://host/cpu"
