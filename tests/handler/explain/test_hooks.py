"""The hooks, the short backwards and the normalisation: by hand, and on any CNN."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from camserve.errors import SettingsError
from camserve.explain import backward, hooks, methods
from camserve.explain.maps import Maps, normalise_maps
from camserve.networks.layers import last_spatial_layer
from tests.support.small_networks import (
    BY_HAND,
    GRIDS,
    LOGITS,
    Squares,
    gradients_of,
    hooks_of,
    one_hot,
    photo,
    settled,
)


def maps_of(layers: hooks.HookedNetwork, name: str, inputs: Tensor, classes: Sequence[int]) -> Maps:
    """Input n's map of class n."""
    scores = layers.forward(inputs, [name])
    gradients = gradients_of(scores, range(len(classes)), classes)
    activations = scores.activations[name].detach()
    return normalise_maps(methods.gradcam(activations, gradients[name]))


# By hand


@pytest.mark.parametrize("classes", [[0], [1], [2], [0, 1, 2], [2, 0]])
def test_a_map_is_the_one_worked_out_by_hand(classes: list[int]) -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    scores = layers.forward(GRIDS.expand(3, -1, -1, -1), ["pick"])
    assert layers.classes == 3
    assert layers.shapes == {"pick": (2, 2, 2)}
    assert scores.logits.tolist() == [LOGITS] * 3

    gradients = gradients_of(scores, range(len(classes)), classes)["pick"]
    activations = scores.activations["pick"][: len(classes)].detach()
    maps = normalise_maps(methods.gradcam(activations, gradients))

    expected = [BY_HAND[c] for c in classes]
    assert gradients.tolist() == [gradient for gradient, _, _ in expected]
    assert maps.peak.tolist() == [peak for _, _, peak in expected]
    assert maps.evidence.tolist() == [peak > 0 for _, _, peak in expected]
    assert maps.values.dtype == torch.float64
    values = torch.tensor([values for _, values, _ in expected], dtype=torch.float64)
    assert_close(maps.values, values, rtol=0, atol=1e-15)


@pytest.mark.parametrize("samples", [[0, 1, 2], [2, 0], [1]])
def test_a_gradient_is_that_of_the_sample_it_was_asked_for(samples: list[int]) -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    scores = layers.forward(torch.cat([GRIDS, 10 * GRIDS, -GRIDS]), ["pick"])
    gradients = gradients_of(scores, samples, [0] * len(samples))["pick"]
    of_class_0 = torch.tensor(BY_HAND[0][0]).double()
    assert_close(gradients, torch.stack([of_class_0 * (1, 10, -1)[n] for n in samples]))


@pytest.mark.parametrize(
    ("samples", "rounds"),
    [
        ([], []),
        ([1], [[0]]),
        ([0, 1, 2], [[0, 1, 2]]),
        ([2, 2, 2], [[0], [1], [2]]),
        ([0, 0, 1, 0, 2, 1], [[0, 2, 4], [1, 5], [3]]),
    ],
)
def test_a_samples_second_score_has_its_gradient_in_the_second_round(
    samples: list[int], rounds: list[list[int]]
) -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    scores = layers.forward(torch.cat([GRIDS, 10 * GRIDS, -GRIDS]), ["pick"])
    classes = [place % 3 for place in range(len(samples))]
    weights = one_hot(scores, classes)
    found = list(backward.score_gradients(scores, samples, weights, [["pick"]] * len(samples)))

    assert [places for places, _ in found] == rounds
    for places, gradients in found:
        expected = [
            torch.tensor(BY_HAND[classes[place]][0]) * (1, 10, -1)[samples[place]]
            for place in places
        ]
        assert_close(gradients["pick"], torch.stack(expected).double())


def test_a_difference_of_two_scores_has_the_difference_of_their_gradients() -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    scores = layers.forward(GRIDS, ["pick"])
    weights = one_hot(scores, [0]) - one_hot(scores, [2])
    ((_, gradients),) = backward.score_gradients(scores, [0], weights, [["pick"]])
    by_hand = torch.tensor(BY_HAND[0][0]) - torch.tensor(BY_HAND[2][0])
    assert_close(gradients["pick"], by_hand.double()[None])


@pytest.mark.parametrize(
    ("raw", "values", "evidence"),
    [
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], False),
        ([[3, 3], [3, 3]], [[0, 0], [0, 0]], False),
        ([[7]], [[0]], False),
        ([[1, 3], [2, 5]], [[0, 0.5], [0.25, 1]], True),
        ([[0, 1e-30], [2e-30, 0]], [[0, 0.5], [1, 0]], True),
        ([[0, 1e-44], [0, 0]], [[0, 1], [0, 0]], True),
        ([[0, 1e38], [3e38, 2e38]], [[0, 1 / 3], [1, 2 / 3]], True),
        ([[1e38, 1e38], [1e38, 1e38]], [[0, 0], [0, 0]], False),
    ],
)
def test_normalisation_stretches_a_map_over_0_to_1(
    raw: list[list[float]], values: list[list[float]], evidence: bool
) -> None:
    single = torch.tensor([raw], dtype=torch.float32)
    maps = normalise_maps(single)
    assert_close(maps.values, torch.tensor([values], dtype=torch.float32), rtol=0, atol=1e-6)
    assert maps.evidence.tolist() == [evidence]
    assert maps.peak.tolist() == [single.max().item()]


def test_normalisation_is_per_map_and_never_over_the_batch() -> None:
    grid = torch.tensor([[1.0, 2], [3, 5]])
    maps = normalise_maps(torch.stack([grid, 1e6 * grid, torch.zeros(2, 2), 1e-20 * grid]))
    expected = torch.tensor([[0, 0.25], [0.5, 1]])
    assert_close(maps.values, torch.stack([expected, expected, torch.zeros(2, 2), expected]))
    assert maps.evidence.tolist() == [True, True, False, True]
    assert_close(maps.peak, torch.tensor([5, 5e6, 0, 5e-20]), rtol=1e-6, atol=0)


# A batch


def test_in_a_batch_a_photo_has_the_map_that_it_has_alone() -> None:
    cat = photo()
    layers = hooks.HookedNetwork(settled("resnet18"), ["layer4.1"], cat)
    torch.manual_seed(1)
    inputs = torch.cat([cat, cat.flip(3), cat.roll(60, 2), -cat, torch.randn_like(cat)])
    logits = layers.forward(inputs, ["layer4.1"]).logits
    classes = logits.argsort(descending=True)[:, :5].diagonal().tolist()

    together = maps_of(layers, "layer4.1", inputs, classes)
    alone = [maps_of(layers, "layer4.1", inputs[n : n + 1], classes[n : n + 1]) for n in range(5)]

    assert together.evidence.all()
    assert len(set(classes)) > 1
    assert_close(together.values, torch.cat([m.values for m in alone]), rtol=0, atol=1e-5)
    assert_close(together.peak, torch.cat([m.peak for m in alone]), rtol=1e-5, atol=0)


# Any CNN

# The default layer, then others from the last to the first: around it, or ones that are changed in
# place (VGG's convolutions, norms before an activation, what a shortcut is added to).
LAYERS = {
    "resnet18": ["layer4.1", "layer4", "layer4.0.bn2", "layer2.1"],
    "vgg16": ["features.29", "features.28", "features.26", "features.16"],
    "densenet121": [
        "features.norm5", "features.denseblock4", "features.denseblock3.denselayer9.norm2",
        "features.transition2.norm",
    ],
    "mobilenet_v3_small": ["features.12", "features.12.1", "features.9", "features.4.block.0.1"],
    "efficientnet_b0": [
        "features.8", "features.7.0", "features.6.1.stochastic_depth", "features.2"
    ],
    "convnext_tiny": ["features.7.2", "features.7", "features.7.0", "features.5.8"],
    "efficientnet-lite0": ["_bn1", "_conv_head", "_blocks.15", "_blocks.9._bn1"],
}  # fmt: skip
WANTED = {
    "the default": slice(1),
    "the next": slice(1, 2),
    "the first in the network": slice(3, 4),
    "the middle": slice(1, 3),
    "all": slice(None),
}


@dataclass(frozen=True)
class Subject:
    """An untouched network and what it does without this project: the truth to compare with.

    Gradients are those of class 1 for the first input and of class 2 for the second.
    """

    network: nn.Module
    names: list[str]
    inputs: Tensor
    logits: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]


@pytest.fixture(scope="module", params=LAYERS)
def subject(request: pytest.FixtureRequest, efficientnet_lite0: nn.Module) -> Subject:
    names = LAYERS[request.param]
    lite = request.param == "efficientnet-lite0"
    network = copy.deepcopy(efficientnet_lite0) if lite else settled(request.param, 5)
    inputs = torch.cat([photo(), photo().flip(2)])[..., 64:160, 64:160].contiguous()
    seen: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def see(name: str) -> Callable[..., None]:
        # What runs in place after the layer, a ReLU in VGG and DenseNet, changes the clone alone.
        return lambda module, args, output: seen.update({name: output.clone()})

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            outputs[name] = output
            # DenseNet calls its last ReLU in place as a function, which no module's setting
            # reaches.
            return output.clone()

        return hook

    handles = [network.get_submodule(name).register_forward_hook(see(name)) for name in names]
    with torch.no_grad():
        logits = network(inputs)
    for handle in handles:
        handle.remove()

    whole = copy.deepcopy(network)
    for module in whole.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for name in names:
        whole.get_submodule(name).register_forward_hook(keep(name))
    score = whole(inputs)[[0, 1], [1, 2]].sum()
    gradients = torch.autograd.grad(score, list(outputs.values()))
    by_name = dict(zip(outputs, gradients, strict=True))
    return Subject(network, names, inputs, logits, seen, by_name)


@pytest.fixture(scope="module")
def hooked(subject: Subject) -> Iterator[hooks.HookedNetwork]:
    layers = hooks.HookedNetwork(subject.network, subject.names, subject.inputs[:1])
    yield layers
    layers.close()


def test_the_default_layer_is_the_last_grid(subject: Subject) -> None:
    hooks = hooks_of(subject.network)
    assert last_spatial_layer(subject.network, subject.inputs[:1]) == subject.names[0]
    assert hooks_of(subject.network) == hooks


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_scores_activations_and_gradients_are_the_whole_networks(
    wanted: slice, subject: Subject, hooked: hooks.HookedNetwork
) -> None:
    names = subject.names[wanted]
    scores = hooked.forward(subject.inputs, names)
    assert hooked.classes == subject.logits.shape[1]
    assert list(scores.activations) == names
    assert_close(scores.logits.detach(), subject.logits, rtol=1e-5, atol=1e-6)

    gradients = gradients_of(scores, [0, 1], [1, 2])
    assert list(gradients) == names
    for name in names:
        assert hooked.shapes[name] == subject.activations[name].shape[1:]
        scale = subject.gradients[name].abs().max().item()
        assert scale > 0
        assert_close(gradients[name], subject.gradients[name], rtol=1e-4, atol=1e-5 * scale)
        # After the whole head and the backward through it.
        held = scores.activations[name].detach()
        assert_close(held, subject.activations[name], rtol=1e-5, atol=1e-6)


def test_the_trunk_leaves_no_tape(subject: Subject, hooked: hooks.HookedNetwork) -> None:
    name, *_, first = subject.names
    taped: list[bool] = []
    watch = subject.network.get_submodule(first).register_forward_hook(
        lambda module, args, output: taped.append(output.requires_grad)
    )
    scores = hooked.forward(subject.inputs, [name])
    watch.remove()
    activations = scores.activations[name]
    # Hooked, but not wanted here.
    assert taped == [False]
    assert activations.is_leaf
    assert activations.grad_fn is None
    assert activations.requires_grad
    assert scores.logits.requires_grad
    assert not any(parameter.requires_grad for parameter in subject.network.parameters())


def test_the_tape_begins_at_the_first_of_several_layers(
    subject: Subject, hooked: hooks.HookedNetwork
) -> None:
    activations = hooked.forward(subject.inputs, subject.names).activations
    leaves = [name for name in subject.names if activations[name].is_leaf]
    assert leaves == subject.names[-1:]
    assert all(held.requires_grad for held in activations.values())


def test_a_pass_that_wants_no_layer_leaves_no_tape(
    subject: Subject, hooked: hooks.HookedNetwork
) -> None:
    scores = hooked.forward(subject.inputs, [])
    assert scores.activations == {}
    assert not scores.logits.requires_grad
    assert_close(scores.logits, subject.logits, rtol=1e-5, atol=1e-6)


def test_outside_of_a_forward_the_hooked_network_is_the_plain_one(
    subject: Subject, hooked: hooks.HookedNetwork
) -> None:
    logits = subject.network(subject.inputs)
    assert not logits.requires_grad
    assert_close(logits, subject.logits, rtol=1e-5, atol=1e-6)


def test_close_takes_the_hooks_off() -> None:
    network = Squares()
    layers = hooks.HookedNetwork(network, ["before", "pick", "before"], GRIDS)
    assert hooks_of(network) == 2
    layers.close()
    assert hooks_of(network) == 0


def test_under_no_grad_the_head_is_recorded_all_the_same() -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    with torch.no_grad():
        scores = layers.forward(GRIDS, ["pick"])
    assert gradients_of(scores, [0], [0])["pick"].tolist() == [BY_HAND[0][0]]


# Several layers


class Branches(Squares):
    """Two ways from the input to the sum of both, which is 3 A^k in channel k."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.joined = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        channels = self.pick(self.before(inputs))
        joined = self.joined(self.once(1 * channels) + self.twice(2 * channels))
        return self.fc(joined.square().sum(dim=(2, 3)))


# In units of class 0's gradient at ``pick``, 2 w_k A^k: of the joined one 2 w_k 3 A^k, which both
# branches have too; of the channels, which come by both ways, three times that.
IN_BRANCHES = {"once": 3, "twice": 3, "joined": 3, "pick": 9}


@pytest.mark.parametrize(
    ("names", "leaves"),
    [
        (["once"], ["once"]),
        (["twice"], ["twice"]),
        (["once", "twice"], ["once", "twice"]),
        (["twice", "once", "joined"], ["once", "twice"]),
        (["joined"], ["joined"]),
        (["joined", "twice"], ["twice"]),
        (["pick", "twice"], ["pick"]),
        (["once", "joined", "pick", "twice"], ["pick"]),
    ],
)
def test_layers_on_two_ways_have_each_their_own_gradient(
    names: list[str], leaves: list[str]
) -> None:
    layers = hooks.HookedNetwork(Branches(), ["joined", "twice", "once", "pick"], GRIDS)
    scores = layers.forward(GRIDS, names)
    assert scores.logits.tolist() == [[9 * logit for logit in LOGITS]]
    assert sorted(name for name in names if scores.activations[name].is_leaf) == leaves
    gradients = gradients_of(scores, [0], [0])
    of_class_0 = torch.tensor([BY_HAND[0][0]]).double()
    for name in names:
        assert_close(gradients[name], IN_BRANCHES[name] * of_class_0)


def test_passes_at_the_same_time_hold_each_their_own_layers() -> None:
    network = Squares()
    layers = hooks.HookedNetwork(network, ["before", "pick", "after"], GRIDS)
    both_inside = threading.Barrier(2, timeout=30)

    def meet(module: nn.Module, args: tuple[Tensor]) -> None:
        both_inside.wait()

    network.before.register_forward_pre_hook(meet)
    network.fc.register_forward_pre_hook(meet)
    found: dict[str, hooks.ForwardOutput] = {}

    def run(name: str, factor: int) -> None:
        found[name] = layers.forward(factor * GRIDS, [name])

    threads = [threading.Thread(target=run, args=of) for of in (("before", 1), ("after", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {name: list(scores.activations) for name, scores in found.items()} == {
        "before": ["before"],
        "after": ["after"],
    }
    assert gradients_of(found["after"], [0], [0])["after"].tolist() == [
        (2 * torch.tensor(BY_HAND[0][0])).tolist()
    ]
    assert gradients_of(found["before"], [0], [0])["before"][:, :2].tolist() == [BY_HAND[0][0]]


def test_a_layer_that_was_not_hooked_cannot_be_wanted() -> None:
    layers = hooks.HookedNetwork(Squares(), ["pick"], GRIDS)
    with pytest.raises(SettingsError, match=r"'after' must run once .* not 0 times"):
        layers.forward(GRIDS, ["pick", "after"])


# What runs in place


class Changes(Squares):
    """Changes the channels in place; its scores are from their sums."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, inputs: Tensor) -> Tensor:
        channels = self.pick(self.before(inputs))
        self.change(channels)
        return self.fc(channels.sum(dim=(2, 3)))


def unrecorded(channels: Tensor) -> None:
    with torch.no_grad():
        channels.add_(1)


@pytest.mark.parametrize(
    ("change", "gradient"),
    [
        (lambda channels: channels, [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        # The second channel is [[0, 1], [-1, 2]].
        (lambda channels: channels.relu_(), [[[1, 1], [1, 1]], [[0, -1], [0, -1]]]),
        (lambda channels: channels.add_(1), [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        (unrecorded, [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        (lambda channels: channels[:, 1:].mul_(3), [[[1, 1], [1, 1]], [[-3, -3], [-3, -3]]]),
    ],
    ids=["nothing", "relu_", "add_", "add_ off the tape", "mul_ on a view"],
)
def test_a_change_in_place_does_not_reach_the_activations(
    change: Callable[[Tensor], Tensor], gradient: list[list[list[float]]]
) -> None:
    layers = hooks.HookedNetwork(Changes(change), ["before", "pick"], GRIDS)
    for names in (["pick"], ["before", "pick"]):
        scores = layers.forward(GRIDS, names)
        assert_close(scores.activations["pick"].detach(), GRIDS[:, :2])
        assert gradients_of(scores, [0], [0])["pick"].tolist() == [gradient]


@pytest.mark.parametrize(
    ("name", "copied"),
    [("0", True), ("1", False)],
    ids=["a ReLU in place follows", "the layer ends in one"],
)
def test_a_copy_goes_on_only_where_something_runs_in_place(name: str, copied: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    layers = hooks.HookedNetwork(network, [name], GRIDS)
    received: list[int] = []
    network[int(name) + 1].register_forward_pre_hook(
        lambda module, args: received.append(args[0].data_ptr())
    )
    scores = layers.forward(GRIDS, [name])
    assert (received != [scores.activations[name].data_ptr()]) is copied


# Failing


class Fails:
    """A forward pre-hook that raises once."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, module: nn.Module, args: tuple[Tensor]) -> None:
        if not self.done:
            self.done = True
            raise MemoryError("once")


@pytest.mark.parametrize("place", ["before", "pick", "after", "fc"])
def test_after_an_exception_in_a_forward_the_next_is_right(place: str) -> None:
    network = Squares()
    layers = hooks.HookedNetwork(network, ["pick"], GRIDS)
    failing = network.get_submodule(place).register_forward_pre_hook(Fails())
    with pytest.raises(MemoryError, match="once"):
        layers.forward(7 * GRIDS, ["pick"])
    failing.remove()

    assert hooks_of(network) == 1
    assert not network(GRIDS).requires_grad
    scores = layers.forward(GRIDS, ["pick"])
    assert scores.logits.tolist() == [LOGITS]
    assert gradients_of(scores, [0], [0])["pick"].tolist() == [BY_HAND[0][0]]


class Twice(Squares):
    """Calls every layer twice."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + super().forward(-inputs)


class Never(Squares):
    """Has a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Conv2d(3, 2, 1)


class Dense(Squares):
    """Its scores stay a grid."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.pick(inputs)


class Severed(Squares):
    """Its scores come off the tape."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).detach()


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (Twice(), "pick", r"'pick' must run once .* not 2 times"),
        (Never(), "idle", r"'idle' must run once .* not 0 times"),
        (Squares(), "fc", r"'fc' must give .* \(N, K, h, w\), not \(1, 3\)"),
        (Squares(), "unused", r"scores do not depend on layer 'unused'"),
        (Severed(), "pick", r"scores do not depend on layer 'pick'"),
        (Dense(), "pick", r"scores of shape \(N, C\)"),
        (Squares(), "pikc", r"no layer 'pikc'.*nearest names.*\bpick\b"),
        (Squares(), "", r"no layer ''.*nearest names.*\bfc\b"),
    ],
)
def test_a_layer_that_carries_no_map_is_refused(
    network: nn.Module, name: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        hooks.HookedNetwork(network, [name], GRIDS)
    assert hooks_of(network) == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pick", "pikc"], "no layer 'pikc'"),
        (["pick", "", "after"], "no layer ''"),
        (["pick", "before", "unused"], "do not depend on layer 'unused'"),
        (["after", "fc", "pick"], "'fc' must give"),
    ],
)
def test_one_layer_of_several_that_carries_no_map_takes_all_hooks_off(
    names: list[str], message: str
) -> None:
    network = Squares()
    with pytest.raises(SettingsError, match=message):
        hooks.HookedNetwork(network, names, GRIDS)
    assert hooks_of(network) == 0
    assert not network(GRIDS).requires_grad


def test_a_forward_that_fails_while_layers_are_proven_takes_the_hooks_off() -> None:
    network = Squares()
    network.after.register_forward_pre_hook(Fails())
    with pytest.raises(MemoryError, match="once"):
        hooks.HookedNetwork(network, ["before", "pick"], GRIDS)
    # The test's own.
    assert hooks_of(network) == 1
