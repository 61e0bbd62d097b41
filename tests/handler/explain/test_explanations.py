"""Many requests in one batch: each explanation is the one that its photo and target get alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM  # type: ignore[import-untyped]
from pytorch_grad_cam.utils.model_targets import (  # type: ignore[import-untyped]
    ClassifierOutputTarget,
)
from torch import Tensor, nn

from camserve.explain import (
    ExplanationRequest,
    HookedNetwork,
    LayerMap,
    ScoreExplanation,
    explain_batch,
    maps,
    required_layers,
)
from camserve.explain.methods import METHODS
from camserve.explain.targets import ClassRef, Target, TopRank
from camserve.images import Heatmap, InputFrame
from camserve.options import Method
from camserve.preprocess_settings import InputSize
from tests.support.small_networks import BY_HAND, GRIDS, Squares, photo, with_batchnorm_statistics

TOP = tuple(Target(TopRank(rank)) for rank in range(4))
REQUESTS = [
    ExplanationRequest((Target(TopRank(0)), Target(3), Target(3)), ("layer4.1",), "gradcam"),
    ExplanationRequest((), ("layer1",), "gradcam"),
    ExplanationRequest(
        (Target(0, 4), Target(4, 0), Target(TopRank(1), TopRank(0))), ("layer3",), "hirescam"
    ),
    ExplanationRequest(TOP, ("layer4.1", "layer3"), "layercam"),
    ExplanationRequest((Target(2),), ("layer2.0",), "eigengradcam"),
    ExplanationRequest(
        (Target(1), Target(5, 5), Target(TopRank(0))), ("layer3", "layer4.1"), "gradcam++"
    ),
    ExplanationRequest((Target(TopRank(5)),), ("layer4.0",), "xgradcam"),
    ExplanationRequest(
        (Target(0), Target(TopRank(2), 0), Target(0, TopRank(2))), ("layer4.1",), "eigencam"
    ),
    ExplanationRequest(
        (Target(0), Target(0)), ("layer2.0", "layer4.0", "layer4.1"), "gradcam_elementwise"
    ),
    ExplanationRequest((Target(TopRank(5), TopRank(0)), Target(1)), ("layer4.1",), "gradcam"),
]
LAYERS = ("layer4.1", "layer3", "layer2.0", "layer4.0")


@dataclass(frozen=True)
class NetworkUnderTest:
    """A network with its hooks, an untouched copy of it, and a photo for each request."""

    hooked: HookedNetwork
    plain: nn.Module
    inputs: Tensor


@pytest.fixture(scope="module")
def network() -> NetworkUnderTest:
    plain = with_batchnorm_statistics("resnet18", 6)
    torch.manual_seed(2)
    cat = photo()[..., 64:160, 64:160]
    shifted = [cat.roll(11 * n, n % 2 + 2) for n in range(len(REQUESTS) - 2)]
    inputs = torch.cat([*shifted, -cat, torch.randn_like(cat)])
    names = (*LAYERS, "layer1", "layer2.1", "layer4")
    hooked = HookedNetwork(copy.deepcopy(plain), names, cat)
    return NetworkUnderTest(hooked, plain, inputs)


def explain(
    network: NetworkUnderTest, inputs: Tensor, requests: Sequence[ExplanationRequest]
) -> list[list[ScoreExplanation]]:
    output = network.hooked.forward(inputs, required_layers(requests))
    return explain_batch(output, requests).explained


def explain_alone(
    plain: nn.Module, photo: Tensor, target: Target, layer: str, method: Method
) -> tuple[int, int | None, maps.Maps]:
    """The classes of one target, and its map, by a backward pass through the whole network."""
    outputs: list[Tensor] = []
    handle = plain.get_submodule(layer).register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    (logits,) = plain(photo)
    handle.remove()
    order = logits.detach().argsort(descending=True, stable=True).tolist()

    def index(ref: ClassRef) -> int:
        return order[ref.rank] if isinstance(ref, TopRank) else ref

    class_id = index(target.class_ref)
    against = None if target.against is None else index(target.against)
    score = logits[class_id] if against is None else logits[class_id] - logits[against]
    (gradients,) = torch.autograd.grad(score, outputs)
    return class_id, against, maps.normalise_maps(METHODS[method](outputs[0].detach(), gradients))


def assert_same_map(actual: LayerMap, expected: maps.Maps) -> None:
    assert actual.values.dtype == np.float32
    assert_allclose(actual.values, expected.values[0], rtol=0, atol=1e-4)
    assert_allclose(actual.peak, expected.peak.item(), rtol=1e-4)
    assert actual.evidence is expected.evidence.item()


def assert_maps_close(actual: Sequence[LayerMap], expected: Sequence[LayerMap]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert_allclose(a.values, b.values, rtol=0, atol=1e-4)


# A batch of different requests


@pytest.fixture(scope="module")
def batch(network: NetworkUnderTest) -> list[list[ScoreExplanation]]:
    return explain(network, network.inputs, REQUESTS)


@pytest.mark.parametrize("n", range(len(REQUESTS)))
def test_an_explanation_equals_that_of_its_photo_and_target_alone(
    n: int, network: NetworkUnderTest, batch: list[list[ScoreExplanation]]
) -> None:
    request = REQUESTS[n]
    assert len(batch[n]) == len(request.targets)
    for target, explanation in zip(request.targets, batch[n], strict=True):
        assert len(explanation.maps) == len(request.layers)
        for layer, actual in zip(request.layers, explanation.maps, strict=True):
            class_id, against, maps = explain_alone(
                network.plain, network.inputs[n : n + 1], target, layer, request.method
            )
            assert (explanation.class_id, explanation.against) == (class_id, against)
            assert_same_map(actual, maps)


def test_the_explanations_differ_from_one_another(batch: list[list[ScoreExplanation]]) -> None:
    """Otherwise the test before this one would prove little."""
    values = [
        layer_map.values
        for n in (0, 2, 3, 4, 6, 9)
        for explanation in {(e.class_id, e.against): e for e in batch[n]}.values()
        for layer_map in explanation.maps
        if layer_map.evidence
    ]
    assert len(values) > 10
    differences = [abs(a - b).max() for a, b in combinations(values, 2) if a.shape == b.shape]
    assert min(differences) > 0.01


def test_the_same_target_twice_is_answered_twice(batch: list[list[ScoreExplanation]]) -> None:
    _, first, second = batch[0]
    assert first.class_id == second.class_id == 3
    assert_allclose(first.maps[0].values, second.maps[0].values, rtol=0, atol=1e-6)


def test_a_class_against_itself_has_no_evidence(batch: list[list[ScoreExplanation]]) -> None:
    explanation = batch[5][1]
    assert (explanation.class_id, explanation.against) == (5, 5)
    assert [map.peak for map in explanation.maps] == [0, 0]
    assert [map.evidence for map in explanation.maps] == [False, False]
    assert not any(map.values.any() for map in explanation.maps)


@pytest.mark.parametrize(
    "requests",
    [
        REQUESTS[::-1],
        [replace(request, targets=request.targets[::-1]) for request in REQUESTS],
        [replace(request, layers=request.layers[::-1]) for request in REQUESTS],
    ],
    ids=["photos", "targets", "layers"],
)
def test_order_of_photos_targets_and_layers_does_not_matter(
    requests: list[ExplanationRequest],
    network: NetworkUnderTest,
    batch: list[list[ScoreExplanation]],
) -> None:
    reversed_photos = requests == REQUESTS[::-1]
    inputs = network.inputs.flip(0) if reversed_photos else network.inputs
    explained = explain(network, inputs, requests)
    if reversed_photos:
        requests, explained = requests[::-1], explained[::-1]
    for original, request, actual, expected in zip(
        REQUESTS, requests, explained, batch, strict=True
    ):
        actual = actual if request.targets == original.targets else actual[::-1]
        for a, b in zip(actual, expected, strict=True):
            assert (a.class_id, a.against) == (b.class_id, b.against)
            assert_maps_close(a.maps if request.layers == original.layers else a.maps[::-1], b.maps)


def test_a_photo_that_is_not_finite_does_not_affect_the_others(
    network: NetworkUnderTest, batch: list[list[ScoreExplanation]]
) -> None:
    inputs = network.inputs.clone()
    inputs[3, :, 20:30], inputs[4] = torch.nan, torch.inf
    explained = explain(network, inputs, REQUESTS)
    assert [len(of_photo) for of_photo in explained] == [
        len(request.targets) for request in REQUESTS
    ]
    for n in set(range(len(REQUESTS))) - {3, 4}:
        for actual, expected in zip(explained[n], batch[n], strict=True):
            assert_maps_close(actual.maps, expected.maps)


# Cost


@pytest.mark.parametrize(
    ("requests", "backwards"),
    [
        (REQUESTS, 4),
        (REQUESTS[:2], 3),
        ([REQUESTS[4], REQUESTS[6]], 1),
        ([REQUESTS[4]] * 5, 1),
        ([REQUESTS[1]] * 3, 0),
    ],
)
def test_one_forward_and_as_many_backwards_as_a_photo_has_targets(
    requests: list[ExplanationRequest],
    backwards: int,
    network: NetworkUnderTest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    names = ("conv1", "layer1", "layer4.1", "fc")
    handles = [
        network.hooked.network.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: ran.append(name)
        )
        for name in names
    ]
    grad = torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        ran.append("backward")
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    explain(network, network.inputs[: len(requests)], requests)
    for handle in handles:
        handle.remove()
    assert ran == [*names, *["backward"] * backwards]


def test_only_requested_maps_are_computed(
    network: NetworkUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    map_counts: list[int] = []

    def counted(method: Method) -> Callable[[Tensor, Tensor], Tensor]:
        function = METHODS[method]

        def count(activations: Tensor, gradients: Tensor) -> Tensor:
            map_counts.append(len(activations))
            return function(activations, gradients)

        return count

    for method in METHODS:
        monkeypatch.setitem(METHODS, method, counted(method))
    explain(network, network.inputs, REQUESTS)
    # Each once more with rounding errors.
    assert sum(map_counts) == 2 * sum(
        len(request.targets) * len(request.layers) for request in REQUESTS
    )


def test_a_further_backward_pass_goes_only_to_the_layers_of_its_photos(
    network: NetworkUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer_counts: list[int] = []
    grad = torch.autograd.grad

    def counted(logits: Tensor, layers: Sequence[Tensor], weights: Tensor, **kwargs: Any) -> Any:
        layer_counts.append(len(layers))
        return grad(logits, layers, weights, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    # One target at layer2.0; three at layer4.1.
    explain(network, network.inputs[:2], [REQUESTS[4], REQUESTS[0]])
    assert layer_counts == [2, 1, 1]


def test_the_required_layers_are_those_of_all_photos_with_targets() -> None:
    assert required_layers(REQUESTS) == LAYERS
    assert required_layers(REQUESTS[1:2]) == ()
    assert required_layers([]) == ()


def test_without_targets_nothing_is_explained(network: NetworkUnderTest) -> None:
    assert explain(network, network.inputs[:2], [REQUESTS[1]] * 2) == [[], []]


# By hand

A, B = GRIDS[0, 0], GRIDS[0, 1]
# Class 0's weights of the two channels are 5 and -1, class 1's -5 and 2, class 2's 0 and 3.
CONTRASTS = {
    (0, 2): 5 * A - 4 * B,
    (2, 0): -5 * A + 4 * B,
    (0, 1): 10 * A - 3 * B,
    (2, 1): 5 * A + B,
}


@pytest.mark.parametrize(("class_id", "against"), CONTRASTS)
def test_a_contrast_is_the_map_of_the_difference_of_the_scores(class_id: int, against: int) -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    output = hooked.forward(GRIDS, ["pick"])
    request = ExplanationRequest(
        (Target(class_id, against), Target(class_id)), ("pick",), "gradcam"
    )
    ((contrast, plain),) = explain_batch(output, [request]).explained

    expected = maps.normalise_maps(CONTRASTS[class_id, against].relu()[None])
    assert (contrast.class_id, contrast.against) == (class_id, against)
    assert_same_map(contrast.maps[0], expected)
    assert (plain.class_id, plain.against) == (class_id, None)
    assert_allclose(plain.maps[0].values, np.array(BY_HAND[class_id][1]), atol=1e-6)


def test_a_rank_is_looked_up_in_its_photos_own_order() -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    # The classes' order is 0, 2, 1, and with the channels exchanged 2, 1, 0.
    output = hooked.forward(torch.cat([GRIDS, GRIDS[:, [1, 0, 2]]]), ["pick"])
    request = ExplanationRequest(
        (Target(TopRank(1), TopRank(2)), Target(2), Target(TopRank(0), 1)), ("pick",), "gradcam"
    )
    explained = explain_batch(output, [request, request]).explained
    assert [[(e.class_id, e.against) for e in of_photo] for of_photo in explained] == [
        [(2, 1), (2, None), (0, 1)],
        [(1, 0), (2, None), (2, 1)],
    ]


# Against pytorch-grad-cam


@dataclass(frozen=True)
class Difference:
    """A target of pytorch-grad-cam: a score minus another."""

    class_id: int
    against: int

    def __call__(self, output: Tensor) -> Tensor:
        return output[self.class_id] - output[self.against]


@pytest.mark.parametrize("layer", ["layer4.1", "layer3"])
@pytest.mark.parametrize(("method", "peer"), [("gradcam", GradCAM), ("hirescam", HiResCAM)])
def test_contrasts_equal_pytorch_grad_cams_of_a_difference(
    layer: str, method: Method, peer: Any, network: NetworkUnderTest
) -> None:
    pairs = [(0, 3), (3, 0), (5, 1), (1, 2)]
    inputs = network.inputs[: len(pairs)]
    requests = [ExplanationRequest((Target(*pair),), (layer,), method) for pair in pairs]
    layer_maps = [explanation.maps[0] for (explanation,) in explain(network, inputs, requests)]

    targets = [Difference(*pair) for pair in pairs]
    module = network.plain.get_submodule(layer)
    with peer(network.plain, [module]) as cam:
        cam(inputs, targets)
        recorded = cam.activations_and_grads
        arrays = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
        raw = torch.from_numpy(cam.get_cam_image(inputs, module, targets, *arrays, False)).relu()
    assert sum(map.evidence for map in layer_maps) > 2
    for n, layer_map in enumerate(layer_maps):
        assert_same_map(layer_map, maps.normalise_maps(raw[n : n + 1]))


@pytest.mark.parametrize(
    "layers",
    [
        ("layer4.0", "layer4.1"),
        ("layer4.1", "layer4"),
        ("layer3", "layer4.1"),
        ("layer2.0", "layer2.1", "layer3", "layer4.0", "layer4.1"),
    ],
)
@pytest.mark.parametrize(
    ("method", "peer"), [("gradcam", GradCAM), ("hirescam", HiResCAM), ("layercam", LayerCAM)]
)
def test_the_mean_over_layers_equals_pytorch_grad_cams(
    layers: tuple[str, ...], method: Method, peer: Callable[..., Any], network: NetworkUnderTest
) -> None:
    inputs, side = network.inputs[:3], network.inputs.shape[-1]
    classes = [0, 3, 5]
    requests = [ExplanationRequest((Target(index),), layers, method) for index in classes]
    frame = InputFrame.full(side, side)
    heatmaps = [
        Heatmap([map.values for map in explanation.maps], InputSize(side, side)).resample(frame)
        for (explanation,) in explain(network, inputs, requests)
    ]

    modules = [network.plain.get_submodule(layer) for layer in layers]
    with peer(network.plain, modules) as cam:
        expected = cam(inputs, [ClassifierOutputTarget(index) for index in classes])
    assert expected.shape == (3, side, side)
    assert_allclose(heatmaps, expected, rtol=0, atol=1e-3)
    assert min(heatmap.max() for heatmap in heatmaps) == 1
