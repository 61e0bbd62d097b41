"""``camserve package``, run as a person runs it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from torchvision import models

from camserve.networks.classifier import Network
from camserve.settings import Settings
from camserve_cli.app import run as run_command
from camserve_cli.packaging import pretrained
from camserve_cli.packaging.errors import WeightsError
from camserve_cli.packaging.find_weights import fallback_weights, find_weights
from camserve_cli.packaging.model_config import build_config, known_settings
from camserve_cli.packaging.preset_notes import preset_notes as notes_on_preset
from tests.support.scripts import CAMSERVE, ROOT, run

#: Archives are loaded by a Python of their own.
pytestmark = pytest.mark.slow

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
    return run(CAMSERVE, "package", *arguments, cwd=cwd)


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
        assert "is replaced" not in done.stdout
        digests.add(hashlib.sha256((folder / "tiny.mar").read_bytes()).hexdigest())
    assert len(digests) == 1
    assert digests.pop() in done.stdout
    again = package(*tiny_options(tmp_path / "first"), cwd=tiny)
    assert f"package: {tmp_path / 'first' / 'tiny.mar'} was there before and is replaced" in (
        again.stdout
    )


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


def test_what_the_network_imports_travels_unasked_and_that_is_said(
    tiny: Path, tmp_path: Path
) -> None:
    done = package(*tiny_options(tmp_path), cwd=tiny)
    assert done.returncode == 0, done.stderr
    assert "package: the archive contains tiny_parts.py, too, as the architecture" in done.stdout
    assert members(tmp_path / "tiny.mar")["tiny_parts.py"].decode() == TINY_PARTS


def test_an_archive_can_be_checked_later(store: Path) -> None:
    done = run(sys.executable, "-m", "camserve_cli.packaging.check_archive", store / "colours.mar")
    found = json.loads(done.stdout)
    assert (found["classes"], found["layers"][0]) == (6, "layer4.2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--layer", "4"], "must give a grid over the photo", id="layer"),
        pytest.param(["--layer", "convs"], "no layer 'convs'; the nearest names", id="layer-name"),
        pytest.param(["--set", "handler.defaults.alpha=3"], "handler.defaults.alpha: 3", id="set"),
        pytest.param(["--set", "handler.speed=1"], "unknown key 'speed'", id="set-unknown"),
        pytest.param(["--set", "batchsize=1"], "did you mean 'batchSize'", id="set-torchserve"),
        pytest.param(["--set", "nonsense"], "accepted is KEY=VALUE", id="set-form"),
        pytest.param(["--arch-kwargs", "2"], "accepted is a JSON object", id="kwargs"),
        pytest.param(["--arch-kwargs", '{"classes": 3}'], "weights have 2 classes", id="classes"),
        pytest.param(["--arch", "tiny_net:nothing"], "cannot be built", id="callable"),
        pytest.param(
            ["--arch", "no_such_net:build"], "there is no module 'no_such_net' here", id="module"
        ),
        pytest.param(["--weights", "missing.pth"], "no file missing.pth", id="weights"),
        pytest.param(["--weights", "tiny_net.py"], "it is a text that begins", id="weights-kind"),
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
    monkeypatch.chdir(tiny)
    monkeypatch.syspath_prepend(tiny)
    command = ["package", *tiny_options(tmp_path), "--include", "tiny_parts.py", *options]
    with pytest.raises(SystemExit) as stop:
        run_command([str(word) for word in command])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mar"))


# What a network, a file or a setting raises

NETS = """
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    channels, classes = 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(self.channels, 4, 3, 2), nn.ReLU())
        self.fc = nn.Linear(4, self.classes)

    def forward(self, photos):
        return self.end(self.fc(self.body(photos).mean((2, 3))))

    def end(self, scores):
        return scores


class OneChannel(Net):
    channels = 1


class OneLogit(Net):
    classes = 1


class TwoInputs(Net):
    def forward(self, photos, masks):
        return super().forward(photos * masks)


class TrainsInSilence(Net):
    def train(self, mode=True):
        super().train(mode)


class OnCuda(Net):
    def forward(self, photos):
        return super().forward(photos.cuda())


class Exits(Net):
    def end(self, scores):
        sys.exit(0)


class Softmax(Net):
    def end(self, scores):
        return scores.softmax(1)


class Picky(Net):
    def forward(self, photos):
        if float((photos[:, 0, 1:] - photos[:, 0, :-1]).abs().mean()) > 0.5:
            raise ValueError("noise")
        return super().forward(photos)


class Dropout(Net):
    def end(self, scores):
        return F.dropout(scores)


class InWords(Net):
    def end(self, scores):
        return {"cats": scores, "dogs": 2 * scores}


class Speaks(Net):
    def end(self, scores):
        print("{not JSON}")
        return scores


class Aborts(Net):
    def end(self, scores):
        if os.path.exists("MAR-INF"):
            sys.stderr.write("the last words")
            sys.stderr.flush()
            os.abort()
        return scores


class Unbuildable(Net):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, groups=2)


class UnspeakableError(Exception):
    def __str__(self):
        raise ValueError


class Unspeakable(Net):
    def end(self, scores):
        raise UnspeakableError


class TrainsOnData(Net):
    def train(self, loader, epochs=1):
        return [loss for loss in loader]


# As in many a tutorial: its activations must lie in memory channels first.
class Viewed(Net):
    def forward(self, photos):
        return self.end(self.fc(self.body(photos).view(len(photos), 4, -1).mean(2)))


# Kernels of several experts, as CondConv has them.
class FiveAxes(Net):
    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.zeros(2, 4, 4, 1, 1))

    def forward(self, photos):
        activations = self.body(photos)
        return self.fc((activations + F.conv2d(activations, self.experts[0])).mean((2, 3)))


def scripted():
    return torch.jit.script(Net())


class ColumnsFirst(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, photos):
        return self.fc(self.norm(self.body(photos).permute(0, 3, 2, 1)).mean((1, 2)))
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks of all kinds, their weights and labels."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    (folder / "exits.py").write_text("import sys; sys.exit(0)")
    make = "import torch, nets; torch.save(nets.ColumnsFirst().state_dict(), 'norm.pth'); " \
        "torch.save(nets.OneLogit().state_dict(), 'one.pth'); " \
        "torch.save(nets.Net().state_dict(), 'two.pth'); " \
        "torch.save(nets.FiveAxes().state_dict(), 'five.pth'); " \
        "torch.save(nets.OneChannel().state_dict(), 'grey.pth'); " \
        "torch.save({0: torch.zeros(1)}, 'numbers.pth'); " \
        "torch.save(nets.Net(), 'whole.pth'); " \
        "torch.save({'fc.bias': torch.zeros(2, dtype=torch.complex64)}, 'complex.pth'); " \
        "torch.save({'fc.bias': torch.zeros(2).to_sparse()}, 'sparse.pth')"  # fmt: skip
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)
    (folder / "two.json").write_text('["cat", "dog"]')
    (folder / "one.json").write_text('["cat"]')
    (folder / "file").write_text("no folder")
    (folder / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    return folder


SMALL = "handler.preprocess.crop=32"
GREY = [
    *("--set", "handler.preprocess.channels=1"),
    *("--set", "handler.preprocess.mean=0.5"),
    *("--set", "handler.preprocess.std=[0.5]"),
]
Packaged = tuple[int, str, str]


@pytest.fixture
def package_here(
    nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Packaged]:
    """``camserve package`` in this process, on one of ``nets``: its exit status, stdout, stderr."""

    def run_here(arch: str, *options: str) -> Packaged:
        given = ["--weights", "two.pth", "--labels", "two.json", "--store", str(tmp_path)]
        side = [] if any("preprocess.crop=" in option for option in options) else [SMALL]
        small = [*(word for setting in side for word in ("--set", setting)), "--name", "net"]
        monkeypatch.chdir(nets)
        monkeypatch.syspath_prepend(nets)
        with pytest.raises(SystemExit) as stop:
            run_command(["package", "--arch", arch, *given, *small, *options])
        status = int(stop.value.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run_here


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        # Found before the archive is laid out.
        (
            "nets:OneChannel",
            ["--weights", "grey.pth"],
            r"fails on a batch of shape \(1, 3, 32, 32\): RuntimeError: ",
        ),
        (
            "nets:OneChannel",
            ["--weights", "grey.pth"],
            "it runs on 1 channel; accepted: handler.preprocess.channels=1 .* one value each",
        ),
        (
            "nets:Net",
            [*GREY, "--layer", "body.1"],
            "it runs on 3 channels; accepted: handler.preprocess.channels=3 .* three values each",
        ),
        ("nets:Net", ["--set", "handler.preprocess.channels=1"], "mean: .* accepted: one number"),
        ("nets:TwoInputs", [], "missing 1 required positional argument: 'masks'"),
        ("nets:OnCuda", [], r"fails on a batch .*\(nets\.py, line \d+\)"),
        ("nets:Exits", [], "fails on a batch .*SystemExit: 0"),
        ("nets:Unbuildable", [], r"cannot be built: ValueError: .*\(nets\.py, line \d+\)"),
        ("exits:Net", [], "arch 'exits:Net' cannot be built: SystemExit: 0"),
        (":build", [], "arch ':build'"),
        ("torch.nn:Flatten", [], "no module of the network gives a grid"),
        ("fcn_resnet50", [], "torchvision's segmentation networks"),
        ("fcn_resnet50", ["--weights", "DEFAULT"], "torchvision's segmentation networks"),
        ("resnet51", ["--weights", "DEFAULT"], "nearest names: .*resnet50"),
        ("fasterrcnn_resnet50_fpn", [], "torchvision's detection networks"),
        ("nets:Net", ["--set", "handler.preprocess.crop=[9,8,3]"], r"crop: \[9, 8, 3\] is not"),
        ("nets:Net", ["--set", "handler.preprocess.crop=[256,128]"], r"resize \(232\) on any side"),
        ("nets:Net", ["--set", "handler.preprocess.crop=abc"], "crop: 'abc' is not accepted"),
        ("nets:Net", ["--set", "handler.preprocess="], "handler.preprocess: None is not accepted"),
        ("nets:Net", ["--set", "handler="], "accepted is KEY=VALUE"),
        ("nets:Net", ["--set", "handler={}"], "accepted is KEY=VALUE"),
        ("nets:Net", ["--set", "handler.weights=/tmp/w.safetensors"], "handler.weights: '/tmp"),
        ("nets:Net", ["--set", "handler.labels=../labels.json"], "handler.labels: '../labels"),
        ("nets:Net", ["--set", "handler.defaults.layer=fc"], "'fc' is not served; accepted: body"),
        ("nets:Net", ["--set", "handler.layer=!!timestamp foo"], "the value is no YAML"),
        ("nets:Net", ["--set", 'handler.threads=!!int ""'], "the value is no YAML"),
        ("nets:Net", ["--set", "responseTimeout=3000000000"], "at most 2147483647"),
        ("nets:Net", ["--set", "minWorkers=3"], r"minWorkers \(3\) must not exceed maxWorkers"),
        ("nets:Net", ["--version", "a/b"], "--version 'a/b'"),
        ("nets:Net", ["--version", " "], "--version ' '"),
        ("nets:Net", ["--weights", "numbers.pth"], "a tensor named 0, which is no text"),
        ("nets:Net", ["--weights", "complex.pth"], "a tensor of torch.complex64"),
        ("nets:Net", ["--weights", "sparse.pth"], "dense tensors of real numbers"),
        ("nets:Net", ["--labels", "deep.json"], "labels deep.json"),
        ("nets:scripted", [], "the layer to explain cannot be looked for"),
        ("nets:Unspeakable", [], "fails on a batch .*: UnspeakableError"),
        ("nets:Net", ["--set", "handler.layer=5"], "handler.layer: 5 is not accepted"),
        (
            "nets:Net",
            ["--set", "handler.preprocess.mean=[1,"],
            "mean=.1,': the value is no YAML: .* at character 4; accepted: a number, .* as .0.5, ",
        ),
        ("os:system", [], "arch 'os:system' cannot be built: TypeError.*accepted: module:callable"),
        ("builtins:dict", [], "gives dict, not a torch module; accepted: module:callable, which"),
        ("nets:Net", ["--set", "batchSize=[1"], "the value is no YAML"),
        ("nets:Net", ["--set", "batchSize=!!python/object:os.system {}"], "the value is no YAML"),
        ("nets:Net", ["--set", "batchSize=" + "[" * 2000], "the value is no YAML"),
        ("nets:Net", ["--set", "handler..crop=5"], "accepted is KEY=VALUE"),
        ("nets:Net", ["--set", "=5"], "accepted is KEY=VALUE"),
        ("nets:Net", ["--set", "handler.preproces.crop=5"], "did you mean 'preprocess'"),
        (
            "nets:Net",
            ["--weights", "whole.pth"],
            r"(?s)whole pickled module .*content\.state_dict\(\)",
        ),
        ("nets:Net", ["--set", "handler.preprocess.mean=[123.7,116.3,103.5]"], "divided by 255"),
        ("nets:Net", ["--arch-kwargs", "[" * 100_000], "accepted is a JSON object"),
        ("nets:Net", ["--store", "file"], "File exists: 'file'"),
        ("nets:Net", ["--name", "n" * 300], "up to 100 letters"),
        # Found by loading the archive.
        ("nets:OneLogit", ["--weights", "one.pth", "--labels", "one.json"], "of a single class"),
        ("nets:Softmax", [], "ends in a softmax"),
        (
            "nets:Picky",
            ["--layer", "body.1", "--set", "handler.compile=off"],
            r"fails on a picture of noise: ValueError \(nets.py, line \d+\); accepted: a network",
        ),
        ("nets:Dropout", [], "otherwise when it is asked again"),
        ("nets:InWords", [], r"gives: dict of 2 \(cats: float32 tensor \(1, 2\), "),
        (
            "nets:ColumnsFirst",
            ["--weights", "norm.pth", "--layer", "norm"],
            "'norm' must give a grid over the photo.* does not move along rows and columns",
        ),
        (
            "nets:Net",
            ["--weights", "norm.pth", "--layer", "body.1"],
            r'(?s)do not fit nets:Net .*: Unexpected key "norm.weight", "norm.bias"',
        ),
        (
            "nets:Aborts",
            ["--layer", "body.1"],
            r"ends the Python that loads it \(by SIGABRT\).*the last words",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:`torch.jit.script`")
def test_what_cannot_be_served_ends_in_a_sentence(
    package_here: Callable[..., Packaged],
    tmp_path: Path,
    arch: str,
    options: list[str],
    message: str,
) -> None:
    status, _, said = package_here(arch, *options)
    assert status == 1
    assert said.startswith("package: ")
    assert re.search(message, said)
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*.mar"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("TrainsInSilence", []),
        ("TrainsOnData", []),
        ("Speaks", []),
        ("Viewed", ["--set", "handler.defaults.layer=body.1"]),
        ("FiveAxes", ["--weights", "five.pth"]),
        (
            "OneChannel",
            [*GREY, "--weights", "grey.pth", "--set", "handler.preprocess.crop=[32,64]"],
        ),
    ],
)
def test_what_does_no_harm_is_packaged(
    package_here: Callable[..., Packaged], tmp_path: Path, name: str, options: list[str]
) -> None:
    status, said, errors = package_here(f"nets:{name}", *options)
    assert (status, errors) == (0, "")
    assert "2 classes, layers body.1" in said
    assert (tmp_path / "net.mar").is_file()


@pytest.mark.parametrize("option", ["--fallback-model", "--stand-in"])
def test_the_fallback_model_by_its_present_and_its_former_name(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Path:
        raise WeightsError("the fallback model was asked for")

    monkeypatch.setattr(pretrained, "fallback_weights", missing)
    with pytest.raises(SystemExit) as stop:
        run_command(["package", option])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "package: the fallback model was asked for\n"


# Presets


def test_googlenets_own_weights_are_given_the_input_that_they_want(
    package_here: Callable[..., Packaged], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    # As torchvision builds it for these weights.
    reference = models.googlenet(init_weights=False, transform_input=True).eval()
    state = reference.state_dict()
    monkeypatch.setattr("camserve_cli.packaging.pretrained.fetch", lambda weights: state)
    status, said, errors = package_here(
        "googlenet", "--weights", "IMAGENET1K_V1", "--labels", str(imagenet_labels(tmp_path)),
        "--set", "handler.preprocess.crop=64", "--set", "handler.compile=off",
    )  # fmt: skip
    assert (status, errors) == (0, ""), said
    with zipfile.ZipFile(tmp_path / "net.mar") as packed:
        packed.extractall(tmp_path / "unpacked")
    config = yaml.safe_load((tmp_path / "unpacked" / "model-config.yaml").read_text())
    assert config["handler"]["preprocess"]["resize"] == 256
    network = Network.load(
        Settings.from_yaml(config), tmp_path / "unpacked", torch.device("cpu")
    ).module
    photo = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(network(photo), reference(photo))


def imagenet_labels(folder: Path) -> Path:
    (folder / "imagenet.json").write_text(json.dumps([str(n) for n in range(1000)]))
    return folder / "imagenet.json"


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        (["conv1.conv.weight", "aux1.fc1.weight"], {"init_weights": False}),
        (["model.conv1.conv.weight"], {"init_weights": False, "aux_logits": False}),
    ],
)
def test_googlenet_is_built_without_the_heads_that_a_file_lacks(
    names: list[str], arguments: dict[str, bool], tmp_path: Path
) -> None:
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "w.safetensors")
    source = find_weights("googlenet", str(tmp_path / "w.safetensors"), {})
    assert source.fill_section({"arch_kwargs": {}})["arch_kwargs"] == arguments


def test_inceptions_own_weights_cannot_be_denied_the_input_that_they_want(
    package_here: Callable[..., Packaged], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camserve_cli.packaging.pretrained.fetch", lambda weights: {})
    status, _, said = package_here(
        "inception_v3", "--weights", "DEFAULT", "--arch-kwargs", '{"transform_input": false}'
    )
    assert status == 1
    assert "transform_input is False, but Inception_V3_Weights.IMAGENET1K_V1 need true" in said


PREPARED = "photos are prepared as for torchvision's IMAGENET1K_V1 weights of"


@pytest.mark.parametrize(
    ("arch", "settings", "expected"),
    [
        (
            "mobilenet_v3_small",
            [],
            f"{PREPARED} mobilenet_v3_small: fit crop, resize 256, crop 224",
        ),
        ("torchvision.models:resnet18", [], f"{PREPARED} resnet18: fit crop, resize 256"),
        ("efficientnet_b3", [], f"{PREPARED} efficientnet_b3: fit crop, resize 320, crop 300, bic"),
        ("googlenet", [], "transform_input=true"),
        ("googlenet", ["handler.preprocess.resize=256"], "transform_input=true"),
        ("nets:Net", ["handler.preprocess.range=[-1,1]"], "scaled to [-1, 1], but mean and std"),
    ],
)
def test_weights_of_a_file_take_the_preset_of_their_architecture(
    arch: str, settings: list[str], expected: str, tmp_path: Path
) -> None:
    assert expected in " ".join(preset_notes(arch, settings, tmp_path))


@pytest.mark.parametrize(
    ("arch", "settings", "expected"),
    [
        (
            "mobilenet_v3_small",
            ["handler.preprocess.resize=240"],
            "photos are prepared with fit crop, resize 240, crop 224, bilinear, mean [0.485, ",
        ),
        (
            "torch.nn:Flatten",
            ["handler.preprocess.fit=stretch", "handler.preprocess.range=[0,255]",
             "handler.preprocess.mean=[9,9,9]", "handler.preprocess.std=[1,1,1]"],
            "prepared with fit stretch, crop 224, bilinear, mean [9.0, 9.0, 9.0], std [1.0, 1.0, "
            "1.0], of values in [0.0, 255.0]",
        ),
        (
            "torch.nn:Flatten",
            [],
            "photos are prepared as for torchvision's ResNet50: fit crop, resize 232, crop 224, ",
        ),
        ("torch.nn:Flatten", ["handler.preprocess.icc=srgb"], "colour profiles converted to srgb"),
    ],
)  # fmt: skip
def test_how_photos_are_prepared_is_always_said(
    arch: str, settings: list[str], expected: str, tmp_path: Path
) -> None:
    (note,) = preset_notes(arch, settings, tmp_path)
    assert expected in note


def test_the_fallback_model_is_prepared_for_as_its_publisher_does() -> None:
    source, settings = fallback_weights(), ["handler.formats=[jpeg, heic]"]
    section = source.fill_section(pretrained.FALLBACK_MODEL)
    known = known_settings(build_config(section, settings))
    (note,) = notes_on_preset(source, known, settings)
    assert note == (
        "photos are prepared as their publisher does it: fit crop, resize 256, crop 224, bicubic, "
        "mean [0.498, 0.498, 0.498], std [0.502, 0.502, 0.502]"
    )


def preset_notes(arch: str, settings: list[str], folder: Path) -> list[str]:
    """What is said of the preset for weights of somebody's own."""
    save_file({"weight": torch.zeros(1)}, folder / "w.safetensors")
    source = find_weights(arch, str(folder / "w.safetensors"), {})
    section = source.fill_section({"arch": arch, "arch_kwargs": {}})
    return list(notes_on_preset(source, known_settings(build_config(section, settings)), settings))


def test_what_is_taken_from_a_checkpoint_is_told(
    package_here: Callable[..., Packaged], nets: Path, tmp_path: Path
) -> None:
    state = torch.load(nets / "two.pth")
    average = {f"module.{name}": value.half() for name, value in state.items()}
    torch.save({"model": state, "ema": average}, tmp_path / "both")
    (tmp_path / "names.csv").write_text("wnid;name\nn01;bird\nn02;bird\n")
    status, said, errors = package_here(
        "nets:Net", "--weights", str(tmp_path / "both"), "--weights-key", "ema",
        "--labels", str(tmp_path / "names.csv"),
    )  # fmt: skip
    assert (status, errors) == (0, "")
    told = [line for line in said.splitlines() if line.startswith("package: ")]
    assert f"package: the state dict under 'ema' of {tmp_path / 'both'} is taken" in told
    assert "package: the prefix 'module.' is taken off its names" in told
    assert "package: the weights are float16; they are served as float32" in told
    assert "several classes have the same name: 'bird'" in said
    kept = json.loads(members(tmp_path / "net.mar")["labels.json"])
    assert kept == {"0": ["n01", "bird"], "1": ["n02", "bird"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "three.pth"], r"have 3 classes, the labels 1000 \(ImageNet's\): give"),
        (["--weights", "three.pth", "--weights-key", "ema"], "--weights-key 'ema'"),
        (["--weights-key", "ema"], "--weights-key: accepted with --weights FILE"),
    ],
)
def test_weights_without_their_labels_or_key_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(models.mobilenet_v3_small(num_classes=3).state_dict(), "three.pth")
    command = ["package", "--arch", "mobilenet_v3_small", "--store", str(tmp_path), *options]
    with pytest.raises(SystemExit) as stop:
        run_command(command)
    assert stop.value.code == 1
    assert re.search(message, capsys.readouterr().err)


def test_labels_must_be_as_many_as_the_classes(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "three.json").write_text('["a", "b", "c"]')
    options = [*tiny_options(tmp_path), "--labels", tmp_path / "three.json"]
    done = package(*options, "--include", "tiny_parts.py", cwd=tiny)
    assert done.returncode == 1
    assert f"2 classes, but {tmp_path / 'three.json'} names 3" in done.stderr


@pytest.mark.parametrize(
    ("arch", "layer"),
    [("resnet18", "layer4.1"), ("mobilenet_v3_small", "features.12"), ("mnasnet0_5", "layers.16")],
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


# Publishers


def test_timms_model_is_packaged_as_timm_evaluates_it_and_its_scores_are_held_to_timms(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    state = timm.create_model("resnet18", num_classes=3).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "labels.json").write_text('["a", "b", "c"]')
    done = package(
        *("--arch", "timm:resnet18", "--weights", tmp_path / "w.safetensors"),
        *("--labels", tmp_path / "labels.json", "--store", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "photos are prepared as for timm's weights of resnet18.a1_in1k" in done.stdout
    assert "on 3 photos the archive's scores differ by 0." in done.stdout
    config = yaml.safe_load(members(tmp_path / "resnet18.mar")["model-config.yaml"])
    assert config["handler"]["requires"] == {"timm": timm.__version__}
    assert config["handler"]["preprocess"]["resize"] == 235


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from-hf", "nowhere"], "--from-hf nowhere: there is no such folder"),
        (["--from-hf", "x", "--arch", "resnet18"], "--from-hf and --arch exclude each other"),
        (["--from-hf", "x", "--weights", "w.pth"], "--from-hf and --weights exclude each other"),
        (["--from-hf", "x", "--fallback-model"], "--fallback-model and --from-hf exclude"),
        (["--fallback-model", "--arch", "resnet18"], "--fallback-model and --arch exclude"),
        (["--arch", "nets.py"], "accepted is nets.py:CALLABLE"),
        (["--arch", "none.py:Net"], "there is no file none.py"),
        (["--arch", "timm:resnet18.none"], "timm has no weights of that tag"),
        (["--arch", "timm:resnet18", "--weights", "a1_in1k"], "chosen by --arch timm:NAME.TAG"),
    ],
)
def test_publishers_and_files_that_are_not_there_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(["package", *options])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_code_that_ends_python_does_not_end_packaging_in_silence(
    tiny: Path, tmp_path: Path
) -> None:
    (tiny / "ends.py").write_text("import os\nos._exit(0)")
    done = package(*tiny_options(tmp_path), "--arch", "ends.py:build", cwd=tiny)
    assert done.returncode == 1
    assert "arch 'ends:build' ends the Python that builds and runs it" in done.stderr
