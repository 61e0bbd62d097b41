"""Architectures, weights and normalisation; and the messages where they do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from camserve.errors import SettingsError
from camserve.networks.architectures import build, set_eval
from camserve.networks.classifier import Network
from camserve.pipeline import Pipeline
from camserve.preprocess_settings import InputSize, Preprocess
from camserve.settings import Settings
from tests.support import color_resnet

CPU = torch.device("cpu")


# Architectures


@pytest.mark.parametrize(
    ("arch", "kwargs", "classes"),
    [
        ("mobilenet_v3_small", {}, 3),
        ("mobilenet_v3_small", {"dropout": 0.5}, 3),
        ("torchvision.models:mobilenet_v3_small", {"num_classes": 4}, 4),
        ("torchvision:models.mobilenet_v3_small", {"num_classes": 4}, 4),
        (
            "efficientnet_lite_pytorch:EfficientNet.from_name",
            {"model_name": "efficientnet-lite0"},
            1000,
        ),
    ],
)
def test_an_architecture_is_a_torchvision_name_or_an_import_path(
    arch: str, kwargs: dict[str, Any], classes: int
) -> None:
    network = build(arch, kwargs, 3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, classes)


def test_the_constructor_gets_its_arguments() -> None:
    network = build("mobilenet_v3_small", {"dropout": 0.5}, 3)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5]


@pytest.mark.parametrize(
    ("arch", "kwargs", "message"),
    [
        ("resnet49", {}, "no classifier of that name; .* nearest names: .*resnet"),
        ("ResNet49", {}, "nearest names: .*resnet"),
        ("fcn_resnet50", {}, "torchvision's segmentation networks; .* an image classifier"),
        ("fasterrcnn_resnet50_fpn", {}, "torchvision's detection networks"),
        ("r3d_18", {}, "torchvision's video networks"),
        ("raft_small", {}, "torchvision's optical_flow networks"),
        ("quantized_resnet50", {}, "torchvision's quantization networks"),
        ("", {}, "cannot be built"),
        ("resnet18", {"depth": 3}, "depth"),
        ("resnet18", {"num_classes": "two"}, "cannot be built"),
        ("resnet18", {"num_classes": -2}, "negative dimension"),
        ("resnet18", {"replace_stride_with_dilation": [True]}, "replace_stride_with_dilation"),
        ("no.such.module:Net", {}, "No module named 'no'"),
        ("torchvision.models:resnet49", {}, "resnet49"),
        ("torchvision.models:", {}, "cannot be built"),
        (":resnet18", {}, "cannot be built"),
        ("torchvision.models:resnet18", {"depth": 3}, "depth"),
        ("builtins:str", {}, "gives str, not a torch module"),
        ("torch.nn:Linear", {}, "in_features"),
        ("efficientnet_lite_pytorch:EfficientNet.from_name", {"model_name": "lite9"}, "lite0"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(
    arch: str, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"(?s)arch '{arch}'.*{message}"):
        build(arch, kwargs, 2)


# Weights

MOBILENET = {"arch": "mobilenet_v3_small", "layer": "features.12"}


def archive(directory: Path, classes: int = 3, labels: int = 3) -> Settings:
    save_file(build("mobilenet_v3_small", {}, classes).state_dict(), directory / "w.safetensors")
    (directory / "labels.json").write_text(json.dumps([f"class {n}" for n in range(labels)]))
    return Settings.from_yaml({"handler": {**MOBILENET, "weights": "w.safetensors"}})


def test_a_loaded_network_is_ready_to_serve(tmp_path: Path) -> None:
    torch.manual_seed(3)
    settings = archive(tmp_path)
    torch.manual_seed(3)
    expected = build("mobilenet_v3_small", {}, 3).eval()
    torch.manual_seed(4)
    network = Network.load(settings, tmp_path, CPU)
    assert not network.module.training
    assert network.labels.names == ("class 0", "class 1", "class 2")
    assert network.device == CPU
    assert network.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(network.module(inputs), expected(inputs))


def test_weights_are_compared_with_the_packed_hash(tmp_path: Path) -> None:
    settings = archive(tmp_path)
    sha256 = Network.load(settings, tmp_path, CPU).sha256
    packed = settings.model_copy(update={"weights_sha256": sha256})
    assert Network.load(packed, tmp_path, CPU).sha256 == sha256
    file = tmp_path / "w.safetensors"
    data = bytearray(file.read_bytes())
    # One bit of one weight: the file loads, and the scores differ a little.
    data[-1] ^= 1
    file.write_bytes(data)
    Network.load(settings, tmp_path, CPU)
    with pytest.raises(SettingsError, match=rf"not those that were packed: .* {sha256}$"):
        Network.load(packed, tmp_path, CPU)


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet1_0"])
def test_a_network_with_versions_is_loaded_as_it_was_saved(tmp_path: Path, name: str) -> None:
    expected = build(name, {}, 3).eval()
    save_file(expected.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "labels.json").write_text('["a", "b", "c"]')
    settings = Settings.from_yaml({"handler": {"arch": name, "layer": "layers.16"}})
    network = Network.load(settings, tmp_path, CPU)
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(network.module(inputs), expected(inputs))


def test_an_archive_without_the_counts_of_batch_norms_is_loaded(tmp_path: Path) -> None:
    settings = archive(tmp_path)
    state = build("mobilenet_v3_small", {}, 3).state_dict()
    old = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    save_file(old, tmp_path / "w.safetensors")
    assert not Network.load(settings, tmp_path, CPU).module.training


def missing(directory: Path) -> None:
    (directory / "w.safetensors").unlink()


def a_pickle(directory: Path) -> None:
    torch.save({"a": torch.zeros(1)}, directory / "w.safetensors")


def empty(directory: Path) -> None:
    (directory / "w.safetensors").write_bytes(b"")


def cut_off(directory: Path) -> None:
    path = directory / "w.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def of_another_arch(directory: Path) -> None:
    save_file(build("shufflenet_v2_x0_5", {}, 3).state_dict(), directory / "w.safetensors")


def with_an_extra_key(directory: Path) -> None:
    state = build("mobilenet_v3_small", {}, 3).state_dict()
    save_file({**state, "extra": torch.zeros(1)}, directory / "w.safetensors")


def with_a_missing_key(directory: Path) -> None:
    state = build("mobilenet_v3_small", {}, 3).state_dict()
    del state["classifier.3.bias"]
    save_file(state, directory / "w.safetensors")


def of_another_shape(directory: Path) -> None:
    state = build("mobilenet_v3_small", {}, 3).state_dict()
    save_file({**state, "features.0.0.weight": torch.zeros(1, 3)}, directory / "w.safetensors")


def for_more_classes(directory: Path) -> None:
    save_file(build("mobilenet_v3_small", {}, 7).state_dict(), directory / "w.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "No such file"),
        (a_pickle, "header"),
        (empty, "header"),
        (cut_off, "incomplete|metadata"),
        (of_another_arch, "Missing key"),
        (with_an_extra_key, 'Unexpected key.*"extra"'),
        (with_a_missing_key, 'Missing key.*"classifier.3.bias"'),
        (of_another_shape, 'Wrong size of "features.0.0.weight"'),
        (for_more_classes, 'Wrong size of "classifier.3'),
    ],
)
def test_weights_that_do_not_fit_stop_the_load(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    settings = archive(tmp_path)
    damage(tmp_path)
    misfit = "weights w.safetensors do not fit mobilenet_v3_small with 3 classes"
    with pytest.raises(SettingsError, match=f"(?s){misfit}: .*({message})"):
        Network.load(settings, tmp_path, CPU)


# Normalisation


def network_of(**preprocess: Any) -> Network:
    """A network that is nothing but its preprocessing."""
    settings = Preprocess(**preprocess)
    mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
    labels: Any = None
    return Network(nn.Identity(), labels, "", mean, std, CPU, value_range=settings.range)


@pytest.mark.parametrize(
    ("preprocess", "pixels", "expected"),
    [
        # As Keras has it for MobileNet and Inception: x / 127.5 - 1.
        ({"range": [-1, 1], "mean": [0, 0, 0], "std": [1, 1, 1]}, (0, 51, 255), (-1, -0.6, 1)),
        # For EfficientNet, whose first layers scale: as it is.
        ({"range": [0, 255], "mean": [0, 0, 0], "std": [1, 1, 1]}, (0, 77, 255), (0, 77, 255)),
        # TensorFlow's EfficientNet-Lite: (x - 127) / 128.
        (
            {"range": [0, 255], "mean": [127, 127, 127], "std": [128, 128, 128]},
            (0, 127, 255),
            (-127 / 128, 0, 1),
        ),
        (
            {"range": [0, 255], "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
            (255, 51, 102),
            (2.248908, -1.142857, -0.026667),
        ),
        ({"range": [-1, 1], "mean": [-1, 0, 1], "std": [2, 0.5, 1]}, (255,) * 3, (1, 2, 0)),
        ({"range": [2, 4], "mean": [2, 3, 4], "std": [1, 2, 0.5]}, (0, 255, 51), (0, 0.5, -3.2)),
        ({"channels": 1, "mean": 0.5, "std": 0.25}, (0,), (-2,)),
        ({"channels": 1, "mean": [0.2], "std": [0.4]}, (255,), (2,)),
        ({"channels": 1, "range": [-1, 1], "mean": 0, "std": 1}, (102,), (-0.2,)),
        ({"channels": 1, "range": [0, 255], "mean": 33.3, "std": 78.6}, (33,), (-0.3 / 78.6,)),
    ],
)
def test_pixels_are_scaled_to_the_range_and_normalised(
    preprocess: dict[str, Any], pixels: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    photos = np.full((2, 4, 5, len(pixels)), pixels, np.uint8)
    values = network_of(**preprocess).normalise(photos)
    assert values.shape == (2, len(pixels), 4, 5)
    assert values.dtype == torch.float32
    shown = torch.tensor(expected, dtype=torch.float32).view(-1, 1, 1).expand_as(values)
    assert_close(values, shown, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"range": [-1, 1], "mean": [0, 0, 0], "std": [1, 1, 1]},
        {"range": [0, 255], "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
        {"range": [-3, 0.5], "mean": [-1, -2, 0.1], "std": [0.5, 3, 1]},
        {"channels": 1, "mean": 0.1307, "std": 0.3081},
        {"channels": 1, "range": [-1, 1], "mean": 0.2, "std": 0.7},
    ],
)
def test_every_level_is_what_numpy_makes_of_it(preprocess: dict[str, Any]) -> None:
    network, channels = network_of(**preprocess), preprocess.get("channels", 3)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 8, 32, 1).repeat(channels, 3)
    low, high = preprocess.get("range", (0, 1))
    mean, std = (value.double().numpy() for value in (network.mean, network.std))
    expected = ((low + levels / 255 * (high - low) - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(network.normalise(levels).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_example_has_the_inputs_size_and_detail_along_both_axes(channels: int) -> None:
    values = [0.5] * channels
    network = network_of(channels=channels, mean=values, std=values)
    first, second = (network.example(InputSize(32, 96), seed) for seed in (0, 1))
    assert first.shape == (1, channels, 32, 96)
    assert not torch.equal(first, second)
    assert first.std(2).mean() > 0.05
    assert first.std(3).mean() > 0.05


def test_pixels_are_scaled_and_normalised_per_channel(color_pipeline: Pipeline) -> None:
    crops = np.zeros((2, 4, 5, 3), np.uint8)
    crops[0, 1, 2] = 255, 51, 102
    crops[1] = 128, 128, 128
    values = color_pipeline.network.normalise(crops)

    assert values.shape == (2, 3, 4, 5)
    assert values.dtype == torch.float32
    expected = ((crops / 255 - color_resnet.MEAN.numpy()) / color_resnet.STD.numpy()).transpose(
        0, 3, 1, 2
    )
    assert_close(values, torch.from_numpy(expected).float(), rtol=0, atol=1e-6)
    # By hand: (1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.4 - 0.406) / 0.225.
    by_hand = torch.tensor([2.248908, -1.142857, -0.026667])
    assert_close(values[0, :, 1, 2], by_hand, rtol=0, atol=1e-6)


class TrainsWithALoader(nn.Module):
    """As wrappers of training code do, it takes another ``train`` than torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5))

    def train(self, loader: object, epochs: int) -> None:  # type: ignore[override]
        raise AssertionError("packaging trains nothing")


def test_a_network_with_a_train_of_its_own_is_set_to_eval() -> None:
    network = TrainsWithALoader()
    set_eval(network)
    assert not any(module.training for module in network.modules())
