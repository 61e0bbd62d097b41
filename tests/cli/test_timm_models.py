"""``--arch timm:NAME`` and folders of timm's models: weights, labels and the size of the input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from camserve.networks import build
from camserve.settings import Preprocess
from camserve_cli.packaging import timm_models
from camserve_cli.packaging.errors import PackageError, UnreachableError, WeightsError
from camserve_cli.packaging.find_weights import find_weights, folder_weights
from camserve_cli.packaging.input_size import input_size_arguments


@pytest.mark.parametrize(
    ("name", "classes", "first"),
    [
        ("resnet18", 1000, "tench, Tinca tinca"),
        ("vit_tiny_patch16_224.augreg_in21k", 21843, "organism, being"),
        ("convnext_nano.in12k", 11821, "benthos"),
        ("vit_small_patch14_reg4_dinov2", 0, None),
    ],
)
def test_labels_are_those_of_the_part_of_imagenet(
    name: str, classes: int, first: str | None
) -> None:
    labels = timm_models.categories(timm_models.pretrained_config(name))
    assert (len(labels), next(iter(labels), None)) == (classes, first)


def weights_file(folder: Path, name: str, classes: int, **kwargs: Any) -> str:
    torch.manual_seed(0)
    state = timm.create_model(name, num_classes=classes, **kwargs).state_dict()
    save_file(state, folder / "w.safetensors")
    return str(folder / "w.safetensors")


def test_weights_of_a_file_take_timms_preset_and_the_labels_of_their_classes(
    tmp_path: Path,
) -> None:
    file = weights_file(tmp_path, "test_resnet", 11821)
    source = find_weights("timm:test_resnet", file, {})
    assert source.preprocess is not None
    assert source.section["requires"] == {"timm": timm.__version__}
    assert source.preset_of == "timm's weights of test_resnet.r160_in1k"
    assert len(source.categories) == 11821


@pytest.mark.parametrize(
    ("arch", "weights", "kwargs", "message"),
    [
        ("timm:resnet18.none", None, {}, "no weights of that tag; .*a1_in1k, .*tv_in1k"),
        ("timm:resnet18", "a1_in1k", {}, r"chosen by --arch timm:NAME\.TAG"),
        ("timm:vit_small_patch14_reg4_dinov2", None, {}, "of a network without classes"),
        ("timm:resnet18", None, {"num_classes": 3}, "num_classes is 3, .* have 1000 classes"),
    ],
)
def test_what_timm_has_no_weights_for_is_said(
    arch: str, weights: str | None, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises((PackageError, WeightsError), match=message):
        find_weights(arch, weights, kwargs)


def test_a_hub_that_cannot_be_reached_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9 cannot be reached") as one:
        timm_models.download("test_resnet", {}, 1000)
    assert one.value.exit_status == 3


@pytest.mark.parametrize(
    ("arch", "crop", "needed"),
    [
        ("timm:vit_tiny_patch16_224", 224, {}),
        ("timm:vit_tiny_patch16_224", 256, {"img_size": 256}),
        ("timm:swin_tiny_patch4_window7_224", 448, {"img_size": 448}),
        ("timm:resnet18", 320, {}),
        ("vit_b_16", 224, {}),
        ("vit_b_16", 384, {"image_size": 384}),
        ("torchvision.models:vit_b_16", 384, {"image_size": 384}),
        ("maxvit_t", 448, {"input_size": [448, 448]}),
        ("resnet18", 320, {}),
        ("vit_net:build", 320, {}),
    ],
)
def test_a_constructor_is_told_the_size_of_its_input(
    arch: str, crop: int, needed: dict[str, Any]
) -> None:
    preprocess = Preprocess(resize=crop, crop=crop)
    assert input_size_arguments(arch, {}, preprocess) == needed
    assert input_size_arguments(arch, needed, preprocess) == {}


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("resnet18", "timm's weights of resnet18.a1_in1k"),
        ("resnet18.tv_in1k", "timm's weights of resnet18.tv_in1k"),
        ("maxvit_pico_rw_256", "timm's configuration of maxvit_pico_rw_256"),
    ],
)
def test_it_is_said_whose_preset_is_taken(name: str, described: str) -> None:
    data = timm_models.data_config(name, timm_models.pretrained_config(name))
    assert data.described == described


def test_position_embeddings_are_resampled_to_another_input() -> None:
    small = timm.create_model("test_vit", num_classes=3)
    large = timm.create_model("test_vit", num_classes=3, img_size=320)
    state = timm_models.fitted(large, small.state_dict())
    large.load_state_dict(state)
    assert state["pos_embed"].shape[1] > small.state_dict()["pos_embed"].shape[1]


def test_weights_that_fit_stay_as_they_are() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    state = network.state_dict()
    assert timm_models.fitted(network, state) is state


def test_a_folder_of_timm_is_its_model_with_its_own_labels(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3).eval()
    timm.models.save_for_hf(
        network, tmp_path, safe_serialization=True, model_config={"label_names": ["a", "b", "c"]}
    )
    source = folder_weights(tmp_path)
    assert source.section["arch"] == "timm:test_resnet"
    assert source.categories == ("a", "b", "c")
    built = build(source.section["arch"], source.section["arch_kwargs"], 3).eval()
    built.load_state_dict(source.converted_for(built).largest.tensors)
    photo = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert_close(built(photo), network(photo))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "no_such"}, "has no model 'no_such'; accepted: a name of timm.list_mod"),
        ({"num_classes": "3"}, "num_classes is '3'; accepted: a number"),
        ({"label_names": "a"}, "label_names is 'a'; accepted: a list"),
        ({"model_args": [1]}, r"model_args is \[1\]; accepted: an object"),
        ({"pretrained_cfg": 5}, "pretrained_cfg is 5; accepted: an object"),
        ({}, "has no weights; accepted: model.safetensors or pytorch_model.bin"),
    ],
)
def test_what_is_wrong_with_a_folder_of_timm_is_said(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", **config}))
    with pytest.raises(PackageError, match=message):
        folder_weights(tmp_path)
