"""Networks whose forward asks for shapes, traced: what comes out computes the same."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.testing import assert_close

from camserve.networks import partition
from camserve.networks.layers import default_layer
from tests.support.accelerated_networks import accelerate
from tests.support.model_files import HF_MODELS, Logits, hf_network
from tests.support.small_networks import pictures


def assert_split_computes_the_same(network: nn.Module, layer: str, example: Tensor) -> None:
    """Trunk and head together give the network's scores, for batches of many sizes."""
    trunk, head = partition.split_at_layer(network, layer, example)
    partitioned = partition.PartitionedNetwork(trunk, head).eval()
    for size in (1, 2, 3, 8):
        noise = torch.randn(size, *example.shape[1:], generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            assert_close(partitioned(noise), network(noise), rtol=1e-4, atol=1e-5)


#: Types that each ask for shapes in a way of their own; the others take seconds each.
QUICK = ("vit", "swin", "dinov2_with_registers", "resnet", "convnext", "efficientnet")


@pytest.mark.parametrize(
    "model_type",
    [
        model_type if model_type in QUICK else pytest.param(model_type, marks=pytest.mark.slow)
        for model_type in HF_MODELS
    ],
)
def test_transformers_classifiers(model_type: str) -> None:
    side = 56 if model_type.startswith("dinov2") else 64
    network, (photo, other) = Logits(hf_network(model_type)), pictures(side)
    layer = default_layer(network, photo, other)
    assert_split_computes_the_same(network, layer, photo)
    fast = accelerate(network, layer, side=side, batch_size=2)
    assert (fast.compiled, fast.fallback_reason) == (True, "")


class Small(nn.Module):
    """A target layer, before it what a subclass does with the photos."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 6)

    def before(self, photos: Any) -> Any:
        return photos

    def forward(self, photos: Tensor) -> Any:
        activations = self.layer(self.before(photos))
        return self.last(activations.relu().mean((2, 3)))


class Checks(Small):
    def before(self, photos: Any) -> Any:
        size = photos.size()
        if len(size) != 4 or photos.dim() != 4 or photos.shape[1] != 3 or photos.size(-1) < 4:
            raise ValueError(f"not a photo: {size}")
        return photos if photos.dtype == torch.float32 else photos.float()


class Crops(Small):
    def before(self, photos: Any) -> Any:
        height, width = (int(side * 0.75) for side in photos.shape[2:])
        return photos[:, :, :height, :width]


class Unpacks(Small):
    def before(self, photos: Any) -> Any:
        count, channels, height, width = photos.shape
        rows = photos.view(count, channels, height // 2, 2 * width)
        return rows.reshape(count * channels, -1).view(photos.shape)


class Loops(Small):
    def before(self, photos: Any) -> Any:
        red, *others = photos.unbind(1)
        for other in others:
            red = red - other / len(others)
        return torch.stack([red, *others], 1)


class Masks(Small):
    def before(self, photos: Any) -> Any:
        mask = torch.linspace(0, 1, photos.shape[3]).view(1, 1, 1, -1)
        return photos * mask.expand(photos.shape[0], 1, photos.shape[2], -1)


class PoolsUntilSmall(Small):
    def before(self, photos: Any) -> Any:
        while photos.shape[2] > 4:
            photos = F.avg_pool2d(photos, 2)
        return photos


PHOTO = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)


@pytest.mark.parametrize("kind", [Checks, Crops, Unpacks, Loops, Masks, PoolsUntilSmall])
def test_questions_of_shape_are_answered(kind: type[Small]) -> None:
    torch.manual_seed(0)
    assert_split_computes_the_same(kind().eval(), "layer", PHOTO)


class ByTheBatch(Small):
    def before(self, photos: Any) -> Any:
        return photos if photos.shape[0] > 1 else 2 * photos


class ByTheBatchAsANumber(Small):
    def before(self, photos: Any) -> Any:
        return photos * int(photos.shape[0])


class BySamples(Small):
    def before(self, photos: Any) -> Any:
        return torch.stack([photo * 2 for photo in photos])


class ByValues(Small):
    def before(self, photos: Any) -> Any:
        return photos if photos.mean() > 0 else -photos


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ByTheBatch, "decides by the size of the batch"),
        (ByTheBatchAsANumber, "decides by the size of the batch"),
        (BySamples, "loops over the samples of a batch"),
        (ByValues, "decides by the values of a tensor"),
    ],
)
def test_what_may_differ_in_another_batch_is_refused(kind: type[Small], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partition.split_at_layer(kind(), "layer", PHOTO)


class Statement(Small):
    """Changes a value in place by a statement, in the way that a subclass names."""

    def change(self, value: Any) -> None:
        F.relu6(value, inplace=True)

    def before(self, photos: Any) -> Any:
        photos = photos * 9
        self.change(photos)
        return photos


class ByAModule(Statement):
    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ReLU6(inplace=True)

    def change(self, value: Any) -> None:
        self.activation(value)


class ByAMethod(Statement):
    def change(self, value: Any) -> None:
        value.clamp_(max=4)


class OfAView(Statement):
    def change(self, value: Any) -> None:
        value[:, :2].clamp_(max=4)


class OfItsData(Statement):
    def change(self, value: Any) -> None:
        value.data.clamp_(max=4)


class Out(Statement):
    def change(self, value: Any) -> None:
        torch.clamp(value, max=4, out=value)


class WithAHook(Small):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.first.register_forward_hook(lambda module, args, output: output.clamp(0, 6))

    def before(self, photos: Any) -> Any:
        return self.first(photos)


class Catches(Small):
    """Goes on where a tensor cannot be read as a number."""

    def before(self, photos: Any) -> Any:
        try:
            largest = float(photos.max())
        except Exception:
            largest = 1.0
        return photos / largest if largest > 4 else photos


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Statement, "in place and what it returns is not read"),
        (ByAModule, "in place and what it returns is not read"),
        (ByAMethod, "in place and what it returns is not read"),
        (OfAView, "in place and what it returns is not read"),
        (OfItsData, "in place and what it returns is not read"),
        (Out, "in place and what it returns is not read"),
        (WithAHook, "the module network.first has a hook"),
        (Catches, "decides by the values of a tensor"),
    ],
)
def test_what_a_trace_would_leave_out_is_refused(kind: type[Small], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partition.split_at_layer(kind(), "layer", PHOTO)


class KeepsByBatch(Small):
    """Keeps what it computed for the last number of photos."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def before(self, photos: Any) -> Any:
        if self.kept is None or self.kept.shape[0] != photos.shape[0]:
            self.kept = torch.ones_like(photos) * 1.5
        return photos * self.kept


def test_what_a_network_keeps_of_a_trace_is_forgotten() -> None:
    network = KeepsByBatch()
    expected = network(PHOTO)
    kept = network.kept
    with suppress(ValueError):
        partition.split_at_layer(network, "layer", PHOTO)
    assert network.kept is kept
    assert network(PHOTO).equal(expected)
    assert network(PHOTO.repeat(3, 1, 1, 1)).allclose(expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_weight_norm_is_no_hook_that_hinders() -> None:
    network = Small().eval()
    torch.nn.utils.weight_norm(network.layer)
    assert_split_computes_the_same(network, "layer", PHOTO)


@pytest.mark.parametrize("kind", [Masks, ByValues])
def test_tensors_are_left_as_they_are(kind: type[Small]) -> None:
    before = {**vars(Tensor)}
    with suppress(ValueError):
        partition.split_at_layer(kind(), "layer", PHOTO)
    assert {**vars(Tensor)} == before
