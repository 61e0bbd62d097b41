"""The lines that a refusal gives for objects of other classes make a state dict of the file."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import WeightsError

#: What a person's own module has, and writes.
MODULE = """
import collections, dataclasses, enum, functools, sys

import torch
from torch import nn


class Net(nn.Sequential):
    pass


def net():
    torch.manual_seed(0)
    return Net(collections.OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))


class Config:
    def __init__(self, **values):
        self.__dict__.update(values)


@dataclasses.dataclass
class Options:
    rate: float = 0.1


class Kind(enum.Enum):
    A = 1


class Outer:
    class Inner:
        pass


class Trainer:
    def __init__(self, model):
        self.model, self.epoch = model, 3


class Bag(dict):
    pass


State = net().state_dict()
FILES = {
    "module": net(),
    "parallel": nn.DataParallel(net()),
    "module-in-a-dict": {"model": net(), "config": Config(lr=1)},
    "module-under-another-key": {"epoch": 3, "best": net()},
    "module-in-a-list": [3, net()],
    "state-and-config": {"state_dict": State, "config": Config(lr=1)},
    "state-and-options": {"model": State, "options": Options(), "kind": Kind.A},
    "state-under-another-key": {"anything": State, "config": Config()},
    "state-deep-inside": {"checkpoint": {"net": State}, "config": Config()},
    "state-in-a-tuple": (Config(), State),
    "state-beside-it": {**State, "config": Config(lr=1)},
    "nested-class": {"state_dict": State, "x": Outer.Inner()},
    "function": {"state_dict": State, "make": net},
    "partial": {"state_dict": State, "make": functools.partial(net)},
    "several": {"ema": State, "model": State, "config": Config(options=Options())},
    "trainer": Trainer(net()),
    "trainer-of-a-state": Trainer(State),
    "trainer-in-a-dict": {"trainer": Trainer(net()), "epoch": 3},
    "dictionary-of-its-own": Bag(State),
    "dictionary-in-a-dict": {"model": Bag(State)},
}

"""
NAMES = [
    line.split('"')[1]
    for line in MODULE.partition("FILES = {")[2].partition("\n}")[0].splitlines()
    if line.strip()
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the module and what it writes."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "cam_training.py").write_text(MODULE)
    sys.path.append(str(folder))
    contents: dict[str, Any] = import_module("cam_training").FILES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in contents.items():
            torch.save(content, folder / f"{name}.pth")
            torch.save(content, folder / f"{name}.legacy.pth", _use_new_zipfile_serialization=False)
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["cam_training"]


def refusal(file: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        Checkpoint.read(file)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth"])
@pytest.mark.parametrize("name", NAMES)
def test_the_lines_make_a_state_dict(
    name: str, suffix: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(files / f"{name}.{suffix}")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("\n".join(line[4:] for line in said.splitlines()[1:]), {})  # noqa: S102
    (found,) = Checkpoint.read(tmp_path / "weights.pth").state_dicts
    assert {one.removeprefix("module.") for one in found.tensors} == {
        "conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean",
        "norm.running_var", "norm.num_batches_tracked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("module", "content.state_dict()"),
        ("several", "content['model']"),
        ("state-deep-inside", "content['checkpoint']['net']"),
        ("state-in-a-tuple", "content[1]"),
        ("trainer-in-a-dict", "content['trainer'].model.state_dict()"),
        ("trainer-of-a-state", "content.model"),
    ],
)
def test_the_lines_name_the_place_and_let_the_files_own_classes_through_alone(
    name: str, expression: str, files: Path
) -> None:
    said = refusal(files / f"{name}.pth")
    assert f"torch.save({expression}, 'weights.pth')" in said
    assert "weights_only" not in said


@pytest.mark.parametrize(
    "file", ["nested-class.pth", "dictionary-in-a-dict.pth", "module.legacy.pth"]
)
def test_lines_that_run_any_code_say_so(file: str, files: Path) -> None:
    assert "for a file that you trust, as they run its code:" in refusal(files / file)


@pytest.mark.slow
def test_classes_of_a_script_are_found_in_it(tmp_path: Path) -> None:
    lines = "import torch\nclass Config: ...\ntorch.save({'a': torch.ones(2), 'b': Config()}, 'w')"
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)
    assert "state dict of it, in the script that defines its classes" in refusal(tmp_path / "w")
