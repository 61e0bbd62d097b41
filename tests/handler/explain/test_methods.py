"""Every method: by hand in float64, and on real CNNs compared with two other libraries."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import pytest
import pytorch_grad_cam  # type: ignore[import-untyped]
import torch
from captum.attr import LayerGradCam  # type: ignore[import-untyped]
from pytorch_grad_cam.utils.model_targets import (  # type: ignore[import-untyped]
    ClassifierOutputTarget,
)
from torch import Tensor, nn
from torch.testing import assert_close

from camserve.explain import HookedNetwork
from camserve.explain.maps import normalise_maps
from camserve.explain.methods import METHODS
from camserve.options import Method
from tests.support.small_networks import gradients_of, photo, with_batchnorm_statistics

#: The same methods in pytorch-grad-cam.
PEERS: dict[Method, Any] = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hirescam": pytorch_grad_cam.HiResCAM,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "gradcam_elementwise": pytorch_grad_cam.GradCAMElementWise,
    "eigencam": pytorch_grad_cam.EigenCAM,
    "eigengradcam": pytorch_grad_cam.EigenGradCAM,
}
EIGEN: tuple[Method, ...] = ("eigencam", "eigengradcam")


def test_every_method_of_the_options_exists_and_is_compared_with_a_peer() -> None:
    assert list(METHODS) == list(get_args(Method)) == list(PEERS)


# By hand

# Two channels, as in the gradients' own tests.
A = torch.tensor([[[[1, 2], [3, 4]], [[0, 1], [-1, 2]]]]).double()
G = torch.tensor([[[[2, 4], [6, 8]], [[0, -2], [2, -4]]]]).double()
# Of the first channel g / (2 + 10 g) summed; of the second only the 2 is above zero: 2 / (2 + 4).
PLUS = 1 / 11 + 2 / 21 + 3 / 31 + 4 / 41
BY_HAND: dict[Method, list[list[float]]] = {
    # alpha 5 and -1.
    "gradcam": [[5, 9], [16, 18]],
    "gradcam++": [[PLUS, 2 * PLUS + 1 / 3], [3 * PLUS - 1 / 3, 4 * PLUS + 2 / 3]],
    # G A is [[2, 8], [18, 32]] and [[0, -2], [-2, -8]].
    "hirescam": [[2, 6], [16, 24]],
    # The channels sum to 10 and 2, G A to 60 and -12: weights 6 and -6.
    "xgradcam": [[6, 6], [24, 12]],
    # Without the second channel's gradients below zero its part is [[0, 0], [-2, 0]].
    "layercam": [[2, 8], [16, 32]],
    "gradcam_elementwise": [[2, 8], [18, 32]],
}


@pytest.mark.parametrize("method", BY_HAND)
def test_a_raw_map_is_the_one_worked_out_by_hand(method: Method) -> None:
    raw = METHODS[method](A, G)
    assert raw.dtype == torch.float64
    assert_close(raw, torch.tensor([BY_HAND[method]]).double(), rtol=1e-6, atol=0)


# With the signs of all gradients changed: -5 A + B, and so on.
AGAINST: dict[Method, list[list[float]]] = {
    "gradcam": [[0, 0], [0, 0]],
    # The second channel's gradients are 2 and 4 where they are above zero: 1/3 and 4 / (2 + 8).
    "gradcam++": [[0, 11 / 15], [0, 22 / 15]],
    "hirescam": [[0, 0], [0, 0]],
    "xgradcam": [[0, 0], [0, 0]],
    # ReLU(-G) A is zero and [[0, 2], [0, 8]].
    "layercam": [[0, 2], [0, 8]],
    "gradcam_elementwise": [[0, 2], [2, 8]],
}


@pytest.mark.parametrize("method", AGAINST)
def test_evidence_against_a_class_is_not_in_its_map(method: Method) -> None:
    raw = METHODS[method](A, -G)
    assert_close(raw, torch.tensor([AGAINST[method]]).double(), rtol=1e-6, atol=0)


# A grid whose mean is 5, and its positive part after the mean is subtracted.
GRID = torch.tensor([[2, 4], [6, 8]]).double()
ABOVE = [[0.0, 0], [1, 3]]
BELOW = [[3.0, 1], [0, 0]]


@pytest.mark.parametrize("method", EIGEN)
@pytest.mark.parametrize(
    ("channels", "length", "expected"),
    [
        ([1], 1, ABOVE),
        # Its own channel is lowest there, so that is where the axis points to.
        ([-1], 1, BELOW),
        ([3, 4], 5, ABOVE),
        ([-3, 4], 5, ABOVE),
        ([3, -4], 5, BELOW),
        ([-3, -4], 5, BELOW),
        # More channels than places.
        ([2, 1, 0, 2, 4], 5, ABOVE),
        ([2, -1, 0, 2, -4], 5, BELOW),
        ([-2, 1, 0, -2, 4], 5, ABOVE),
        ([-2, -1, 0, -2, -4], 5, BELOW),
    ],
)
def test_the_first_component_points_to_where_the_channels_sum_is_above_its_mean(
    method: Method, channels: list[int], length: int, expected: list[list[float]]
) -> None:
    # Every channel is a multiple of one grid, so their vector is the principal axis. Constants
    # change nothing.
    axis = torch.tensor(channels).double().view(1, -1, 1, 1)
    values = axis * GRID + torch.arange(len(channels)).view(1, -1, 1, 1)
    gradients = torch.full_like(values, 1e-3 if method == "eigengradcam" else torch.nan)
    activations = 1e3 * values if method == "eigengradcam" else values
    raw = METHODS[method](activations, gradients)
    assert_close(raw, length * torch.tensor([expected]).double())


def test_the_stronger_of_two_components_is_taken() -> None:
    # At right angles over the places; the second channel has less.
    values = torch.tensor([[[[1, 1], [-1, -1]], [[0.9, -0.9], [0.9, -0.9]]]]).double()
    strongest = torch.tensor([[[1, 1], [0, 0]]]).double()
    assert_close(METHODS["eigencam"](values, values), strongest)
    assert_close(METHODS["eigencam"](values.flip(1), values), strongest)


@pytest.mark.parametrize("method", EIGEN)
def test_the_eigen_methods_sign_is_each_samples_own(method: Method) -> None:
    axes = torch.tensor([[3, 4], [3, -4], [-3, 4], [-3, -4]]).double()
    values = axes[:, :, None, None] * GRID
    raw = METHODS[method](values, torch.ones_like(values))
    assert_close(raw, 5 * torch.tensor([ABOVE, BELOW, ABOVE, BELOW]).double())


@pytest.mark.parametrize("channels", [6, 60])
@pytest.mark.parametrize("sign", [1, -1])
def test_behind_a_layer_norm_the_sign_is_that_of_the_few_hot_locations(
    channels: int, sign: int
) -> None:
    torch.manual_seed(0)
    axis = torch.randn(1, channels, 1, 1)
    grid = torch.zeros(4, 5)
    grid[1, 2:4] = 1
    values = sign * (axis - axis.mean()) * (grid - 0.2)
    # The sums over the channels are rounding errors, of either sign.
    noise = 1e-7 * torch.randn(8, *values.shape[1:])
    raw = METHODS["eigencam"](values + noise, values)
    assert (
        raw.flatten(1).argsort(1, descending=True)[:, :2].sort(1).values == torch.tensor([7, 8])
    ).all()


@pytest.mark.parametrize("channels", [1, 3, 19, 20, 21, 60])
def test_the_first_component_is_that_of_a_singular_value_decomposition(channels: int) -> None:
    torch.manual_seed(channels)
    values = torch.randn(3, channels, 4, 5, dtype=torch.float64) + 1
    raw = METHODS["eigencam"](values, values)

    centred = values.flatten(2) - values.flatten(2).mean(2, keepdim=True)
    _, strengths, places = torch.linalg.svd(centred, full_matrices=False)
    component = strengths[:, :1] * places[:, 0]
    sign = (component * centred.sum(1)).sum(1, keepdim=True).sign()
    assert_close(raw, (sign * component).relu().view(3, 4, 5), rtol=1e-9, atol=1e-12)


# Any values


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (2, 40, 5, 3), (1, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_raw_maps_are_one_grid_a_sample_and_never_below_zero(
    method: Method, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    activations, gradients = torch.randn(2, *shape, dtype=dtype)
    raw = METHODS[method](activations, gradients)
    samples, _, height, width = shape
    assert raw.shape == (samples, height, width)
    assert raw.dtype == dtype
    assert (raw >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_zero_activations_give_zeros(method: Method) -> None:
    zero_activations, some = torch.zeros(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    zeros = torch.zeros(1, 4, 4)
    assert METHODS[method](zero_activations, some).equal(zeros)
    assert METHODS[method](zero_activations, zero_activations).equal(zeros)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "eigencam"])
def test_zero_gradients_give_zeros(method: Method) -> None:
    some, flat = torch.randn(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    assert METHODS[method](some, flat).equal(torch.zeros(1, 4, 4))


@pytest.mark.parametrize("channels", [3, 300])
def test_a_spatially_constant_layer_has_no_component(channels: int) -> None:
    # 0.1 and its like are no sums of few powers of two: what rounding leaves would be a map too.
    torch.manual_seed(0)
    alike = torch.rand(2, channels, 1, 1).expand(-1, -1, 7, 7)
    maps = normalise_maps(METHODS["eigencam"](alike, alike))
    assert maps.evidence.tolist() == [False, False]
    assert not maps.values.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [3, 30])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38, -3e38])
@pytest.mark.parametrize("where", ["activations", "gradients", "both"])
def test_a_sample_that_is_not_finite_does_not_affect_the_others(
    method: Method, channels: int, value: float, where: str
) -> None:
    torch.manual_seed(0)
    activations, gradients = torch.randn(2, 3, channels, 4, 5)
    expected = METHODS[method](activations, gradients)
    if where != "gradients":
        activations[1, :, 1:3] = value
    if where != "activations":
        gradients[1, 1] = value
    raw = METHODS[method](activations, gradients)
    assert raw.shape == expected.shape
    assert_close(raw[[0, 2]], expected[[0, 2]])


# Against other libraries

Raw = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Comparison:
    """Activations and gradients (3, K, h, w) by layer, of three classes of one photo.

    ``ours`` are from the hooks, ``theirs`` from pytorch-grad-cam.
    """

    network: nn.Module
    inputs: Tensor
    classes: list[int]
    ours: dict[str, Raw]
    theirs: dict[str, Raw]

    @property
    def targets(self) -> list[ClassifierOutputTarget]:
        return [ClassifierOutputTarget(index) for index in self.classes]


NETWORKS = {
    "resnet50": ("layer4.2", "layer3"),
    "resnet18": ("layer4.1", "layer3"),
    "efficientnet-lite0": ("_bn1", "_blocks.10"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def compared(request: pytest.FixtureRequest, efficientnet_lite0: nn.Module) -> Comparison:
    lite = request.param == "efficientnet-lite0"
    network = efficientnet_lite0 if lite else with_batchnorm_statistics(request.param)
    names = NETWORKS[request.param]
    hooked = HookedNetwork(copy.deepcopy(network), names, photo())
    # The predicted class, the next, and one with a low score.
    ranks = hooked.forward(photo(), []).logits[0].argsort(descending=True)
    classes = ranks[[0, 1, 500]].tolist()
    inputs = photo().expand(3, -1, -1, -1)
    output = hooked.forward(inputs, names)
    gradients = gradients_of(output, range(3), classes)
    ours = {name: (output.activations[name].detach(), gradients[name]) for name in names}

    # In the order in which the network runs them.
    modules = [network.get_submodule(name) for name in reversed(names)]
    with pytorch_grad_cam.GradCAM(network, modules) as cam:
        cam(inputs, [ClassifierOutputTarget(index) for index in classes])
        recorded = cam.activations_and_grads
        pairs = list(zip(recorded.activations, recorded.gradients, strict=True))
    return Comparison(
        network, inputs, classes, ours, dict(zip(reversed(names), pairs, strict=True))
    )


def by_captum(method: Method, name: str, compared: Comparison) -> Tensor:
    module = compared.network.get_submodule(name)
    classes = torch.tensor(compared.classes)
    raw = LayerGradCam(compared.network, module).attribute(
        compared.inputs, classes, relu_attributions=True
    )
    return cast(Tensor, raw.squeeze(1).detach())


def by_pytorch_grad_cam(method: Method, name: str, compared: Comparison) -> Tensor:
    # Its own result is resized to the input, and its scaling adds 1e-7 to the maximum that it
    # divides by. So take the map that it has before: `get_cam_image` of what its pass recorded.
    module = compared.network.get_submodule(name)
    activations, gradients = compared.theirs[name]
    with PEERS[method](compared.network, [module]) as cam:
        arrays = activations.numpy(), gradients.numpy()
        raw = cam.get_cam_image(compared.inputs, module, compared.targets, *arrays, False)
    if method in EIGEN:
        raw = with_our_sign(raw, activations if method == "eigencam" else activations * gradients)
    return torch.from_numpy(raw).relu()


def with_our_sign(component: Any, values: Tensor) -> Any:
    """Their principal axis has whatever sign LAPACK gives it; ours has a rule."""
    centred = (values - values.mean(dim=(2, 3), keepdim=True)).double().numpy()
    total = centred.sum(1)
    sums = (component * total).sum(axis=(1, 2), keepdims=True)
    # Behind a layer norm the channels' sum is the same everywhere.
    cubes = (component.astype(float) ** 3).sum(axis=(1, 2), keepdims=True)
    flat = [
        np.linalg.norm(a) < 1e-4 * np.linalg.norm(b) for a, b in zip(total, centred, strict=True)
    ]
    signs = np.sign(np.where(np.reshape(flat, (-1, 1, 1)), cubes, sums))
    return component * signs.astype(component.dtype)


Reference = Callable[[Method, str, Comparison], Tensor]


@pytest.mark.parametrize("layer_index", [0, 1], ids=["last layer", "earlier layer"])
@pytest.mark.parametrize(
    ("method", "reference"),
    [("gradcam", by_captum), *((method, by_pytorch_grad_cam) for method in PEERS)],
    ids=lambda of: getattr(of, "__name__", of),
)
def test_maps_equal_those_of_another_library(
    method: Method, reference: Reference, layer_index: int, compared: Comparison
) -> None:
    name = list(compared.ours)[layer_index]
    maps = normalise_maps(METHODS[method](*compared.ours[name]))
    raw = reference(method, name, compared)
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    evidence = high > low

    assert maps.evidence.equal(evidence.flatten())
    assert maps.evidence[0]
    assert maps.values.dtype == torch.float32
    assert maps.values.shape == raw.shape
    expected = (raw - low) / torch.where(evidence, high - low, 1)
    assert_close(maps.values, expected, rtol=0, atol=5e-5)
    assert_close(maps.peak, high.flatten(), rtol=1e-4, atol=0)
    # The three maps, of three classes, differ by far more than the tolerance: comparing them says
    # something. EigenCAM's is of no class.
    differ = min(torch.pdist(maps.values.flatten(1), p=torch.inf)) > 0.01
    assert bool(differ) is (method != "eigencam")
