"""Many wishes in one pass: each explanation is the one that its photo and target have alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from camserve.explain import explanations, hooks, maps
from camserve.explain.explanations import ExplanationRequest, LayerMap, ScoreExplanation
from camserve.explain.methods import METHODS
from camserve.explain.targets import ClassRef, Target, TopRank
from camserve.images.geometry import InputFrame
from camserve.images import Heatmap
from camserve.options import Method
from tests.support.small_networks import BY_HAND, GRIDS, Squares, photo, settled

TOP = tuple(Target(TopRank(place)) for place in range(4))
WISHES = [
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
class Served:
    """A network with its hooks, an untouched copy of it, and a photo for each wish."""

    layers: hooks.HookedNetwork
    hooked: nn.Module
    plain: nn.Module
    inputs: Tensor


@pytest.fixture(scope="module")
def served() -> Served:
    plain = settled("resnet18", 6)
    hooked = copy.deepcopy(plain)
    torch.manual_seed(2)
    cat = photo()[..., 64:160, 64:160]
    shifted = [cat.roll(11 * n, n % 2 + 2) for n in range(len(WISHES) - 2)]
    inputs = torch.cat([*shifted, -cat, torch.randn_like(cat)])
    names = (*LAYERS, "layer1", "layer2.1", "layer4")
    return Served(hooks.HookedNetwork(hooked, names, cat), hooked, plain, inputs)


def ordered(logits: Tensor) -> Tensor:
    return logits.detach().argsort(dim=1, descending=True, stable=True)


def explained(
    served: Served, inputs: Tensor, wishes: Sequence[ExplanationRequest]
) -> list[list[ScoreExplanation]]:
    scores = served.layers.forward(inputs, explanations.required_layers(wishes))
    return explanations.explain_batch(scores, wishes).explained


def alone(
    network: nn.Module, photo: Tensor, target: Target, layer: str, method: Method
) -> tuple[int, int | None, maps.Maps]:
    """The classes of one target, and its map, with the whole network on the tape."""
    outputs: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    (logits,) = network(photo)
    handle.remove()
    order = ordered(logits[None])[0].tolist()

    def index(one: ClassRef) -> int:
        return order[one.rank] if isinstance(one, TopRank) else one

    toward = index(target.class_ref)
    against = None if target.against is None else index(target.against)
    score = logits[toward] if against is None else logits[toward] - logits[against]
    (gradients,) = torch.autograd.grad(score, outputs)
    return toward, against, maps.normalise_maps(METHODS[method](outputs[0].detach(), gradients))


def assert_same_map(ours: LayerMap, expected: maps.Maps) -> None:
    assert ours.values.dtype == np.float32
    assert_allclose(ours.values, expected.values[0], rtol=0, atol=1e-4)
    assert_allclose(ours.peak, expected.peak.item(), rtol=1e-4)
    assert ours.evidence is expected.evidence.item()


# A batch of unlike wishes


@pytest.fixture(scope="module")
def together(served: Served) -> list[list[ScoreExplanation]]:
    return explained(served, served.inputs, WISHES)


@pytest.mark.parametrize("n", range(len(WISHES)))
def test_an_explanation_is_the_one_that_its_photo_and_target_have_alone(
    n: int, served: Served, together: list[list[ScoreExplanation]]
) -> None:
    wish = WISHES[n]
    assert len(together[n]) == len(wish.targets)
    for target, one in zip(wish.targets, together[n], strict=True):
        assert len(one.maps) == len(wish.layers)
        for layer, ours in zip(wish.layers, one.maps, strict=True):
            toward, against, maps = alone(
                served.plain, served.inputs[n : n + 1], target, layer, wish.method
            )
            assert (one.class_id, one.against) == (toward, against)
            assert_same_map(ours, maps)


def test_the_explanations_differ_from_one_another(together: list[list[ScoreExplanation]]) -> None:
    """Else the test before this one would say little."""
    values = [
        layer_map.values
        for n in (0, 2, 3, 4, 6, 9)
        for one in {(one.class_id, one.against): one for one in together[n]}.values()
        for layer_map in one.maps
        if layer_map.evidence
    ]
    assert len(values) > 10
    pairs = [(one, other) for place, one in enumerate(values) for other in values[:place]]
    apart = [abs(one - other).max() for one, other in pairs if one.shape == other.shape]
    assert min(apart) > 0.01


def test_the_same_target_twice_is_answered_twice(together: list[list[ScoreExplanation]]) -> None:
    _, first, second = together[0]
    assert first.class_id == second.class_id == 3
    assert_allclose(first.maps[0].values, second.maps[0].values, rtol=0, atol=1e-6)


def test_a_class_against_itself_has_no_evidence(together: list[list[ScoreExplanation]]) -> None:
    one = together[5][1]
    assert (one.class_id, one.against) == (5, 5)
    assert [(map.peak, map.evidence, map.values.any()) for map in one.maps] == [
        (0, False, False)
    ] * 2


@pytest.mark.parametrize(
    "wishes",
    [
        WISHES[::-1],
        [replace(wish, targets=wish.targets[::-1]) for wish in WISHES],
        [replace(wish, layers=wish.layers[::-1]) for wish in WISHES],
    ],
    ids=["photos", "targets", "layers"],
)
def test_the_order_of_what_is_wished_for_changes_nothing_else(
    wishes: list[ExplanationRequest], served: Served, together: list[list[ScoreExplanation]]
) -> None:
    turned = wishes == WISHES[::-1]
    inputs = served.inputs.flip(0) if turned else served.inputs
    found = explained(served, inputs, wishes)
    if turned:
        wishes, found = wishes[::-1], found[::-1]
    for wish, asked, ours, expected in zip(WISHES, wishes, found, together, strict=True):
        ours = ours if asked.targets == wish.targets else ours[::-1]
        for one, same in zip(ours, expected, strict=True):
            assert (one.class_id, one.against) == (same.class_id, same.against)
            maps = one.maps if asked.layers == wish.layers else one.maps[::-1]
            for map, other in zip(maps, same.maps, strict=True):
                assert_allclose(map.values, other.values, rtol=0, atol=1e-4)


def test_a_photo_that_is_not_finite_leaves_its_neighbours_theirs(
    served: Served, together: list[list[ScoreExplanation]]
) -> None:
    inputs = served.inputs.clone()
    inputs[3, :, 20:30], inputs[4] = torch.nan, torch.inf
    found = explained(served, inputs, WISHES)
    assert [len(ones) for ones in found] == [len(wish.targets) for wish in WISHES]
    for n in set(range(len(WISHES))) - {3, 4}:
        for one, same in zip(found[n], together[n], strict=True):
            for map, other in zip(one.maps, same.maps, strict=True):
                assert_allclose(map.values, other.values, rtol=0, atol=1e-4)


# What it takes


@pytest.mark.parametrize(
    ("wishes", "backwards"),
    [
        (WISHES, 4),
        (WISHES[:2], 3),
        ([WISHES[4], WISHES[6]], 1),
        ([WISHES[4]] * 5, 1),
        ([WISHES[1]] * 3, 0),
    ],
)
def test_one_forward_and_as_many_backwards_as_a_photo_has_targets(
    wishes: list[ExplanationRequest],
    backwards: int,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    names = ("conv1", "layer1", "layer4.1", "fc")
    handles = [
        served.hooked.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: ran.append(name)
        )
        for name in names
    ]
    plain = torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        ran.append("backward")
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    explained(served, served.inputs[: len(wishes)], wishes)
    for handle in handles:
        handle.remove()
    assert ran == [*names, *["backward"] * backwards]


def test_no_map_is_made_that_nobody_asked_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(method: Method) -> Callable[[Tensor, Tensor], Tensor]:
        plain = METHODS[method]

        def make(activations: Tensor, gradients: Tensor) -> Tensor:
            made.append(len(activations))
            return plain(activations, gradients)

        return make

    for method in METHODS:
        monkeypatch.setitem(METHODS, method, counted(method))
    explained(served, served.inputs, WISHES)
    assert sum(made) == sum(len(wish.targets) * len(wish.layers) for wish in WISHES)


def test_a_photos_further_targets_cost_no_backward_to_its_neighbours_layers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[int] = []
    plain = torch.autograd.grad

    def counted(logits: Tensor, layers: Sequence[Tensor], weights: Tensor, **kwargs: Any) -> Any:
        reached.append(len(layers))
        return plain(logits, layers, weights, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    # One target at layer2.0; three at layer4.1.
    explained(served, served.inputs[:2], [WISHES[4], WISHES[0]])
    assert reached == [2, 1, 1]


def test_a_pass_has_to_hold_the_layers_of_all_photos_that_are_explained() -> None:
    assert explanations.required_layers(WISHES) == LAYERS
    assert explanations.required_layers(WISHES[1:2]) == ()
    assert explanations.required_layers([]) == ()


def test_where_nothing_is_wished_for_nothing_is_explained(served: Served) -> None:
    assert explained(served, served.inputs[:2], [WISHES[1]] * 2) == [[], []]


# By hand

A, B = GRIDS[0, 0], GRIDS[0, 1]
# Class 0's weights of the two channels are 5 and -1, class 1's -5 and 2, class 2's 0 and 3.
CONTRASTS = {
    (0, 2): 5 * A - 4 * B,
    (2, 0): -5 * A + 4 * B,
    (0, 1): 10 * A - 3 * B,
    (2, 1): 5 * A + B,
}


@pytest.mark.parametrize(("toward", "against"), CONTRASTS)
def test_a_contrast_is_the_map_of_the_difference_of_the_scores(toward: int, against: int) -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    scores = layers.forward(GRIDS, ["pick"])
    wish = ExplanationRequest((Target(toward, against), Target(toward)), ("pick",), "gradcam")
    ((contrast, plain),) = explanations.explain_batch(scores, [wish]).explained

    expected = maps.normalise_maps(CONTRASTS[toward, against].relu()[None])
    assert (contrast.class_id, contrast.against) == (toward, against)
    assert_same_map(contrast.maps[0], expected)
    assert (plain.class_id, plain.against) == (toward, None)
    assert_allclose(plain.maps[0].values, BY_HAND[toward][1], atol=1e-6)


def test_a_rank_is_looked_up_in_its_photos_own_order() -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    # The classes' order is 0, 2, 1, and with the channels exchanged 2, 1, 0.
    scores = layers.forward(torch.cat([GRIDS, GRIDS[:, [1, 0, 2]]]), ["pick"])
    wish = ExplanationRequest(
        (Target(TopRank(1), TopRank(2)), Target(2), Target(TopRank(0), 1)), ("pick",), "gradcam"
    )
    found = explanations.explain_batch(scores, [wish, wish]).explained
    assert [[(one.class_id, one.against) for one in ones] for ones in found] == [
        [(2, 1), (2, None), (0, 1)],
        [(1, 0), (2, None), (2, 1)],
    ]


# Against pytorch-grad-cam


@dataclass(frozen=True)
class Difference:
    """A target of pytorch-grad-cam's."""

    toward: int
    against: int

    def __call__(self, output: Tensor) -> Tensor:
        return output[self.toward] - output[self.against]


@pytest.mark.parametrize("layer", ["layer4.1", "layer3"])
@pytest.mark.parametrize(("method", "peer"), [("gradcam", GradCAM), ("hirescam", HiResCAM)])
def test_contrasts_equal_pytorch_grad_cams_of_a_difference(
    layer: str, method: Method, peer: Any, served: Served
) -> None:
    pairs = [(0, 3), (3, 0), (5, 1), (1, 2)]
    inputs = served.inputs[: len(pairs)]
    wishes = [ExplanationRequest((Target(*pair),), (layer,), method) for pair in pairs]
    found = [one.maps[0] for (one,) in explained(served, inputs, wishes)]

    targets = [Difference(*pair) for pair in pairs]
    module = served.plain.get_submodule(layer)
    with peer(served.plain, [module]) as cam:
        cam(inputs, targets)
        recorded = cam.activations_and_grads
        arrays = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
        raw = torch.from_numpy(cam.get_cam_image(inputs, module, targets, *arrays, False)).relu()
    assert sum(map.evidence for map in found) > 2
    for n, ours in enumerate(found):
        assert_same_map(ours, maps.normalise_maps(raw[n : n + 1]))


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
    layers: tuple[str, ...], method: Method, peer: Callable[..., Any], served: Served
) -> None:
    inputs, side = served.inputs[:3], served.inputs.shape[-1]
    classes = [0, 3, 5]
    wishes = [ExplanationRequest((Target(index),), layers, method) for index in classes]
    heats = [
        Heatmap([map.values for map in one.maps], side).resample(InputFrame.full(side, side))
        for (one,) in explained(served, inputs, wishes)
    ]

    modules = [served.plain.get_submodule(layer) for layer in layers]
    with peer(served.plain, modules) as cam:
        theirs = cam(inputs, [ClassifierOutputTarget(index) for index in classes])
    assert theirs.shape == (3, side, side)
    assert_allclose(heats, theirs, rtol=0, atol=1e-3)
    assert min(heat.max() for heat in heats) == 1
