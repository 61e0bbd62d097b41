"""Weights in several files, read by their index as Hugging Face's libraries write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import WeightsError

STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "b.weight": torch.full((4,), 2.0)}
PARTS = {"one": ("a.weight", "a.bias"), "two": ("b.weight",)}


def write(folder: Path, suffix: str = "safetensors") -> Path:
    """The index of weights in two files."""
    places: dict[str, str] = {}
    for part, names in PARTS.items():
        state = {name: STATE[name] for name in names}
        file = folder / f"{part}.{suffix}"
        save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
        places |= dict.fromkeys(names, file.name)
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": places}, indent=2))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_the_tensors_of_all_files_are_one_state_dict(tmp_path: Path, suffix: str) -> None:
    (found,) = Checkpoint.read(write(tmp_path, suffix)).state_dicts
    assert found.tensors.keys() == STATE.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in STATE.items())


def put(index: Path, **places: Any) -> None:
    content = json.loads(index.read_text())
    content["weight_map"] |= places
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda index: (index.parent / "two.safetensors").unlink(),
            "two.safetensors, which is ",
        ),
        (lambda index: put(index, c="one.safetensors"), "names 'c' of one.safetensors, which does"),
        (
            lambda index: put(index, c="../one.safetensors"),
            "'../one.safetensors', which is no file",
        ),
        (lambda index: put(index, c=3), "names 3, which is no file beside it"),
        (lambda index: put(index, c=index.name), "which is an index itself"),
        (lambda index: index.write_text('{"weight_map": [1]}'), "of several files, and damaged"),
        (lambda index: index.write_text('{"weight_map": {'), "of several files, and damaged"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(
    tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    index = write(tmp_path)
    damage(index)
    with pytest.raises(WeightsError, match="accepted: the index of save_pretrained") as caught:
        Checkpoint.read(index)
    assert message in str(caught.value)


def test_of_a_folder_the_index_is_named(tmp_path: Path) -> None:
    index = write(tmp_path)
    with pytest.raises(WeightsError, match=f"is a folder; accepted: a file, as {index}$"):
        Checkpoint.read(tmp_path)
