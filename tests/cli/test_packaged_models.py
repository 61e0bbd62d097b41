"""Classifiers as people have them, packaged by the command: each explains a picture.

``camserve package`` loads every archive as a server does, explains a picture with it and, where the
publisher's own network can be built, compares the scores. The weights are seeded.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from camserve_cli.app import run as run_command
from tests.support.model_files import (
    LABELS,
    hf_folder,
    timm_weights,
    torchvision_weights,
)

#: Archives are loaded by a Python of their own.
pytestmark = pytest.mark.slow

#: In bfloat16, scores differ by up to a hundredth.
COMPARED = r"on 3 photos the archive's scores differ by [01]\.\d% from those of the publisher's"


def package(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str | Path
) -> tuple[int, str]:
    """The exit status of ``camserve package``, and what it printed."""
    (folder / "labels.json").write_text(json.dumps(LABELS))
    options = ["--name", "net", "--store", folder / "store", *arguments]
    try:
        run_command(["package", *map(str, options)])
    except SystemExit as stop:
        status = int(stop.code or 0)
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vit_b_32", "encoder.layers.encoder_layer_11.ln_1"),
        ("swin_t", "norm"),
        ("swin_v2_t", "norm"),
        ("maxvit_t", "blocks.3"),
        ("convnext_tiny", "features.7.2"),
        ("googlenet", "inception5b"),
        ("mnasnet0_5", "layers.16"),
        ("mnasnet0_75", "layers.16"),
        ("mnasnet1_0", "layers.16"),
        ("mnasnet1_3", "layers.16"),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
def test_torchvisions_classifiers(
    name: str, layer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torchvision_weights(tmp_path / "w.pth", name)
    options: list[str | Path] = [
        "--arch",
        name,
        "--weights",
        weights,
        "--labels",
        tmp_path / "labels.json",
    ]
    status, said = package(capsys, tmp_path, *options)
    assert status == 0, said
    assert f"net.mar: {name}, 5 classes, layers {layer}, " in said
    assert f"photos are prepared as for torchvision's IMAGENET1K_V1 weights of {name}: " in said


@pytest.mark.parametrize(
    ("name", "kwargs", "settings", "layer"),
    [
        ("vit_tiny_patch16_224", {}, [], "blocks.11.norm1"),
        ("deit_tiny_distilled_patch16_224", {}, [], "blocks.11.norm1"),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 98}, ["crop=98"], "blocks.11.norm1"),
        ("swin_tiny_patch4_window7_224", {}, [], "norm"),
        ("swinv2_tiny_window8_256", {}, [], "norm"),
        ("maxvit_pico_rw_256", {}, [], "norm"),
        ("mixer_s32_224", {}, [], "blocks.7.norm1"),
        ("convnext_atto", {}, [], "stages.3"),
        ("efficientnet_b0", {}, [], "bn2"),
        ("resnet18", {}, [], "layer4.1"),
    ],
)
def test_timms_models(
    name: str,
    kwargs: dict[str, Any],
    settings: list[str],
    layer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = timm_weights(tmp_path / "w.pth", name, **kwargs)
    options: list[str | Path] = [
        "--arch",
        f"timm:{name}",
        "--weights",
        weights,
        "--labels",
        tmp_path / "labels.json",
    ]
    for setting in settings:
        options += ["--set", f"handler.preprocess.{setting}"]
    status, said = package(capsys, tmp_path, *options)
    assert status == 0, said
    assert f"net.mar: timm:{name}, 5 classes, layers {layer}, " in said
    assert re.search(COMPARED if not settings else r"not compared .*: inputs of that are 518", said)


#: Types of transformers, and the layer that is explained by default. LeViT is missing: its blocks
#: have no norm of tokens, and the layer that is found, its stem's last, is none to hold it to.
HF_LAYERS = {
    "vit": "vit.layers.1.layernorm_before",
    "deit": "deit.layers.1.layernorm_before",
    "swin": "swin.layernorm",
    "swinv2": "swinv2.layernorm",
    "dinov2": "dinov2.encoder.layer.1.norm1",
    "dinov2_with_registers": "dinov2_with_registers.encoder.layer.1.norm1",
    "beit": "beit.layers.1.layernorm_before",
    "convnext": "convnext.encoder.stages.3",
    "resnet": "resnet.encoder.stages.3",
    "efficientnet": "efficientnet.encoder.top_activation",
    "mobilenet_v2": "mobilenet_v2.conv_1x1",
    "mobilevit": "mobilevit.conv_1x1_exp",
    "pvt": "pvt.encoder.block.3.0.layer_norm_1",
    "segformer": "segformer.stages.3",
}


@pytest.mark.parametrize("model_type", HF_LAYERS)
def test_folders_of_transformers(
    model_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hf_folder(tmp_path / "folder", model_type)
    status, said = package(capsys, tmp_path, "--from-hf", folder)
    assert status == 0, said
    assert re.search(COMPARED, said)
    assert f"net.mar: hf:{model_type}, 5 classes, layers {HF_LAYERS[model_type]}, " in said


@pytest.mark.parametrize(
    ("labels", "config", "options", "expected"),
    [
        (LABELS, {"problem_type": "multi_label_classification"}, [], "5 classes"),
        (("no", "yes"), {}, [], "2 classes"),
        (("yes",), {}, ["--labels", "two.json", "--set", "handler.task=binary"], "2 classes"),
    ],
    ids=["multilabel", "multiclass", "binary"],
)
def test_tasks_of_folders(
    labels: tuple[str, ...],
    config: dict[str, Any],
    options: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = hf_folder(tmp_path / "folder", "vit", labels, **config)
    (tmp_path / "two.json").write_text('["no", "yes"]')
    monkeypatch.chdir(tmp_path)
    status, said = package(capsys, tmp_path, "--from-hf", folder, *options)
    assert status == 0, said
    assert re.search(COMPARED, said)
    assert f"hf:vit, {expected}, " in said


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ("two.json", ["--set", "handler.task=binary"], "net.mar: resnet18, 2 classes"),
        ("labels.json", ["--set", "handler.task=binary"], "of no and of yes, and there are 5; acc"),
        ("one.json", ["--set", "handler.task=binary"], "of no and of yes, and there are 1; acc"),
        ("one.json", [], "the probability of a single class is always 1"),
    ],
)
def test_a_network_of_one_score(
    labels: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = torchvision_weights(tmp_path / "w.pth", "resnet18", 1)
    (tmp_path / "two.json").write_text('["no", "yes"]')
    (tmp_path / "one.json").write_text('["yes"]')
    given: list[str | Path] = [
        "--arch",
        "resnet18",
        "--weights",
        weights,
        "--labels",
        tmp_path / labels,
    ]
    _, said = package(capsys, tmp_path, *given, *options)
    assert message in said
