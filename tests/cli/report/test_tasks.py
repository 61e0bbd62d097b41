"""Reports on multilabel and binary archives, and on ones that misbehave, of small networks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import save_file

from camserve_cli.engines import archive_engine
from camserve_cli.engines.archive_engine import ArchiveEngine
from camserve_cli.engines.engine import EngineCallError, EngineError, Question
from tests.support import task_network
from tests.support.scripts import CAMSERVE, camserve, run

PREPROCESS = {
    "handler.preprocess.fit": "stretch",
    "handler.preprocess.crop": "64",
    "handler.preprocess.mean": "[0, 0, 0]",
    "handler.preprocess.std": "[1, 1, 1]",
    "handler.compile": "off",
}
#: The network, but the process that runs it ends on a photo whose first pixel is blue.
DEADLY = """
import os

import torch
from torch import nn


class Deadly(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 3, 8, 8)
        self.fc = nn.Linear(3, 2)

    def forward(self, photos):
        for photo in photos:
            red, green, blue = photo[:, 0, 0].tolist()
            if blue > 0.9 and red < 0.1:
                os.write(2, b"out of memory")
                os._exit(9)
        return self.fc(torch.relu(self.cells(photos)).mean((2, 3)))


def build():
    return Deadly()
"""


def package(
    store: Path,
    name: str,
    network: Any,
    labels: list[str],
    arch: str = f"{task_network.__file__}:build",
    kwargs: str = "{}",
    **settings: str,
) -> Path:
    """Package a network of three colours, or one of a file; the archive."""
    store.mkdir(exist_ok=True)
    weights, file = store / f"{name}.safetensors", store / f"{name}.json"
    save_file(network.state_dict(), weights)
    file.write_text(json.dumps(labels))
    given = {**PREPROCESS, **settings}
    camserve(
        "package", "--name", name, "--store", store, "--layer", "cells",
        "--arch", arch, "--arch-kwargs", kwargs, "--weights", weights, "--labels", file,
        *(part for key, value in given.items() for part in ("--set", f"{key}={value}")),
    )  # fmt: skip
    return store / f"{name}.mar"


def package_task(store: Path, task: str, kwargs: dict[str, Any], labels: list[str]) -> Path:
    tasks = {"handler.task": task, "handler.output": "probabilities"}
    network = task_network.build(**kwargs)
    return package(store, task, network, labels, kwargs=json.dumps(kwargs), **tasks)


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that predicts any number of colours."""
    store = tmp_path_factory.mktemp("multilabel") / "store"
    return package_task(store, "multilabel", {"end": "sigmoid"}, task_network.LABELS)


def photo(folder: Path, name: str, *colours: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(task_network.stripes(*colours)).save(folder / name)


def report(folder: Path, archive: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(
        CAMSERVE, "report", folder / "photos", "--out", folder / "report", "--store",
        archive.parent, "--model", archive.stem, "--no-shortcuts", "--faithfulness", "0",
        *arguments,
    )  # fmt: skip


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(folder / "report" / "report.parquet")
    return {row["photo"]: row for row in table.to_pylist()}


def test_a_multilabel_model(multilabel: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photo(photos, "both.png", "red", "green")
    photo(photos, "one.png", "blue", "black")
    photo(photos, "missed.png", "blue", "blue", "black")
    labels = tmp_path / "labels.csv"
    labels.write_text("photo,label\nboth.png,red;green\none.png,blue\nmissed.png,green\n")
    done = report(tmp_path, multilabel, "--labels", labels)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert found["both.png"]["true"] == ["red", "green"]
    assert found["both.png"]["right"] is True
    assert found["missed.png"]["right"] is False
    page = (tmp_path / "report" / "report.html").read_text()
    # Green: one of the two photos that show it is predicted so, and is all that is.
    assert '<th scope="row">green</th><td>2</td><td>1</td><td>50.0%</td>' in page
    assert "average precision" in page
    lines = [
        json.loads(line) for line in (tmp_path / "report" / "report.jsonl").read_text().splitlines()
    ]
    by_photo = {line["photo"]: line for line in lines}
    probabilities = by_photo["both.png"]["probabilities"]
    assert [round(one, 2) for one in probabilities] == [0.95, 0.95, 0.02]
    missed = by_photo["missed.png"]["reply"]["explanations"]
    assert [one["label"] for one in missed] == ["blue", "green"]


def test_a_binary_model(tmp_path: Path) -> None:
    kwargs = {"end": "sigmoid", "binary": True}
    binary = package_task(tmp_path / "store", "binary", kwargs, ["blue", "red"])
    photo(tmp_path / "photos", "red/1.png", "red")
    photo(tmp_path / "photos", "red/2.png", "red", "red", "blue")
    photo(tmp_path / "photos", "blue/3.png", "blue")
    done = report(tmp_path, binary)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert {name: row["predicted"] for name, row in found.items()} == {
        "red/1.png": "red",
        "red/2.png": "red",
        "blue/3.png": "blue",
    }
    assert all(row["right"] for row in found.values())


def test_an_operators_defaults_do_not_keep_a_report_from_its_maps(tmp_path: Path) -> None:
    picky = package(
        tmp_path / "store",
        "picky",
        task_network.build(),
        task_network.LABELS,
        **{
            "handler.defaults.explain": "false",
            "handler.defaults.explain_when": "probability<0.1",
            "handler.defaults.target": "green",
            "handler.defaults.top_k": "1",
        },
    )
    photo(tmp_path / "photos", "red/1.png", "red", "black")
    photo(tmp_path / "photos", "blue/2.png", "blue", "black")
    assert report(tmp_path, picky).returncode == 0
    found = rows(tmp_path)
    assert found["red/1.png"]["predicted"] == "red"
    assert len(found["red/1.png"]["top_labels"]) == 3
    assert found["red/1.png"]["evidence"] is True


def test_a_photo_that_ends_the_models_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    scope: dict[str, Any] = {}
    exec(DEADLY, scope)  # noqa: S102  # the test's own text
    arch = f"{tmp_path / 'deadly.py'}:build"
    archive = package(tmp_path / "store", "deadly", scope["build"](), ["a", "b"], arch)
    photos = tmp_path / "photos"
    for name, colours in (("1.png", ("red",)), ("2.png", ("blue", "red")), ("3.png", ("green",))):
        photo(photos, name, *colours)
    done = report(tmp_path, archive)
    assert done.returncode == 0, done.stderr
    assert set(rows(tmp_path)) == {"1.png", "3.png"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "the last that it printed: out of memory" in page
    # Where each of many photos ends it, the run does.
    monkeypatch.setattr(archive_engine, "_MOST_DEATHS", 2)
    engine = ArchiveEngine(archive)
    try:
        questions = [Question(photos / "2.png", {}) for _ in range(9)]
        with pytest.raises(EngineError, match="out of memory"):
            engine.ask(questions)
    finally:
        engine.close()


def test_what_is_no_archive_or_lacks_its_package(tmp_path: Path) -> None:
    (tmp_path / "broken.mar").write_bytes(b"no archive")
    with pytest.raises(EngineCallError, match=r"broken.mar: no archive"):
        ArchiveEngine(tmp_path / "broken.mar")


def test_names_that_are_not_utf8(multilabel: Path, tmp_path: Path) -> None:
    photo(tmp_path / "photos", "plain.png", "red")
    (tmp_path / "photos" / "plain.png").rename(tmp_path / "photos" / os.fsdecode(b"\xff.png"))
    (tmp_path / "photos" / os.fsdecode(b"\xfe.png")).write_bytes(b"no photo")
    done = report(tmp_path, multilabel, "--export", "fiftyone")
    assert done.returncode == 0, done.stderr
    assert set(rows(tmp_path)) == {"?.png"}
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "<code>?.png</code>" in page
    again = report(tmp_path, multilabel)
    assert again.stdout == done.stdout
