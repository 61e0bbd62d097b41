"""scripts/package.py, run as a person runs it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torchvision import models

from harness import ROOT, run

PACKAGE = ROOT / "scripts" / "package.py"

TINY_NET = """
from torch import nn
from tiny_parts import stem

def build(classes):
    return nn.Sequential(
        stem(), nn.Conv2d(4, 8, 3, 2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, classes),
    )
"""
TINY_PARTS = """
from torch import nn

def stem():
    return nn.Conv2d(3, 4, 3, 2)
"""


def package(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, PACKAGE, *arguments, cwd=cwd)


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with somebody's own network, its weights and labels."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny_net.py").write_text(TINY_NET)
    (folder / "tiny_parts.py").write_text(TINY_PARTS)
    make = "import torch, tiny_net; torch.save({'state_dict': {f'module.{k}': v for k, v in " \
        "tiny_net.build(classes=2).state_dict().items()}}, 'tiny.pth')"  # fmt: skip
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)
    (folder / "tiny.json").write_text(json.dumps({"0": "cat", "1": "dog"}))
    return folder


def tiny_options(folder: Path) -> list[str | Path]:
    return [
        *("--name", "tiny", "--arch", "tiny_net:build", "--arch-kwargs", '{"classes": 2}'),
        *("--weights", "tiny.pth", "--labels", "tiny.json", "--store", folder),
    ]


def test_an_archive_holds_the_handler_weights_and_labels_and_nothing_else(store: Path) -> None:
    files = members(store / "colours.mar")
    handler = {
        path.relative_to(ROOT / "handler").as_posix()
        for path in (ROOT / "handler").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(files) == {*handler, "weights.safetensors", "labels.json", "MAR-INF/MANIFEST.json"}
    for name in handler - {"model-config.yaml"}:
        assert files[name] == (ROOT / "handler" / name).read_bytes()
    model = json.loads(files["MAR-INF/MANIFEST.json"])["model"]
    assert model == {
        "modelName": "colours",
        "modelVersion": "1.0",
        "handler": "gradcam_handler.py",
        "serializedFile": "weights.safetensors",
        "configFile": "model-config.yaml",
    }


def test_the_layer_is_found_and_settings_are_written(store: Path) -> None:
    config = yaml.safe_load(members(store / "colours.mar")["model-config.yaml"])
    assert config["handler"]["layer"] == "layer4.2"
    assert config["maxBatchDelay"] == 100


def test_the_same_inputs_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    digests = set()
    for folder in (tmp_path / "first", tmp_path / "second"):
        done = package(*tiny_options(folder), "--include", "tiny_parts.py", cwd=tiny)
        assert done.returncode == 0, done.stderr
        digests.add(hashlib.sha256((folder / "tiny.mar").read_bytes()).hexdigest())
    assert len(digests) == 1
    assert digests.pop() in done.stdout


def test_ones_own_network_travels_with_what_it_imports(tiny: Path, tmp_path: Path) -> None:
    done = package(*tiny_options(tmp_path), "--include", "tiny_parts.py", cwd=tiny)
    assert done.returncode == 0, done.stderr
    files = members(tmp_path / "tiny.mar")
    assert files["tiny_net.py"].decode() == TINY_NET
    assert files["tiny_parts.py"].decode() == TINY_PARTS
    assert json.loads(files["labels.json"]) == ["cat", "dog"]
    # The wrappers around the state dict are gone.
    (tmp_path / "weights.safetensors").write_bytes(files["weights.safetensors"])
    assert set(load_file(tmp_path / "weights.safetensors")) >= {"0.weight", "5.bias"}


def test_what_an_import_misses_shows_at_packaging(tiny: Path, tmp_path: Path) -> None:
    done = package(*tiny_options(tmp_path), cwd=tiny)
    assert done.returncode == 1
    assert "No module named 'tiny_parts'" in done.stderr
    assert not list(tmp_path.glob("*.mar"))


def test_an_archive_can_be_checked_later(store: Path) -> None:
    done = run(sys.executable, "scripts/check_archive.py", store / "colours.mar")
    found = json.loads(done.stdout)
    assert (found["classes"], found["layers"][0]) == (6, "layer4.2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--layer", "4"], "must give activations of shape", id="layer"),
        pytest.param(["--layer", "convs"], "no layer 'convs'; the nearest names", id="layer-name"),
        pytest.param(["--set", "handler.defaults.alpha=3"], "handler.defaults.alpha: 3", id="set"),
        pytest.param(["--set", "handler.speed=1"], "unknown key 'speed'", id="set-unknown"),
        pytest.param(["--set", "batchsize=1"], "did you mean 'batchSize'", id="set-torchserve"),
        pytest.param(["--set", "nonsense"], "accepted is KEY=VALUE", id="set-form"),
        pytest.param(["--arch-kwargs", "2"], "accepted is a JSON object", id="kwargs"),
        pytest.param(["--arch-kwargs", '{"classes": 3}'], "size mismatch", id="classes"),
        pytest.param(["--arch", "tiny_net:nothing"], "cannot be built", id="callable"),
        pytest.param(["--arch", "no_such_net:build"], "No module named 'no_such_net'", id="module"),
        pytest.param(["--weights", "missing.pth"], "cannot be read as weights", id="weights"),
        pytest.param(["--weights", "tiny_net.py"], "needs --weights FILE", id="weights-kind"),
        pytest.param(["--labels", "missing.json"], "labels missing.json", id="labels"),
        pytest.param(["--name", "../x"], "--name '../x'", id="name"),
        pytest.param(["--include", "missing.py"], "no missing.py to include", id="include"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tiny: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import package as program

    monkeypatch.chdir(tiny)
    monkeypatch.syspath_prepend(tiny)
    command = ["package.py", *tiny_options(tmp_path), "--include", "tiny_parts.py", *options]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mar"))


def test_labels_must_be_as_many_as_the_classes(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "three.json").write_text('["a", "b", "c"]')
    options = [*tiny_options(tmp_path), "--labels", tmp_path / "three.json"]
    done = package(*options, "--include", "tiny_parts.py", cwd=tiny)
    assert done.returncode == 1
    assert "2 classes, but labels.json names 3" in done.stderr


@pytest.mark.parametrize(
    ("arch", "layer"), [("resnet18", "layer4.1"), ("mobilenet_v3_small", "features.12")]
)
def test_any_torchvision_cnn(tmp_path: Path, arch: str, layer: str) -> None:
    torch.manual_seed(0)
    save_file(models.get_model(arch, num_classes=3).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.json").write_text('["a", "b", "c"]')
    done = package(
        *("--arch", arch, "--weights", tmp_path / "w.safetensors", "--store", tmp_path),
        *("--labels", tmp_path / "labels.json"),
    )
    assert done.returncode == 0, done.stderr
    assert f"3 classes, layers {layer}" in done.stdout
    assert (tmp_path / f"{arch}.mar").is_file()
