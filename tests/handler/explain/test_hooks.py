"""The forward hooks: what a pass captures and records, by hand and on any CNN."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from camserve.errors import SettingsError
from camserve.explain import ForwardOutput, HookedNetwork
from camserve.networks import GridLayout
from camserve.networks.layers import default_layer
from tests.support.small_networks import (
    BY_HAND,
    GRIDS,
    LOGITS,
    Squares,
    gradients_of,
    hooks_of,
    photo,
    with_batchnorm_statistics,
)

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


CAPTURED = {
    "the default": slice(1),
    "the next": slice(1, 2),
    "the first in the network": slice(3, 4),
    "the middle": slice(1, 3),
    "all": slice(None),
}


@dataclass(frozen=True)
class ReferenceNetwork:
    """A network, and what its untouched copy computes without this project.

    Gradients are those of class 1 for the first input and of class 2 for the second.
    """

    network: nn.Module
    names: list[str]
    inputs: Tensor
    logits: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]


@pytest.fixture(scope="module", params=LAYERS)
def reference(request: pytest.FixtureRequest, efficientnet_lite0: nn.Module) -> ReferenceNetwork:
    names = LAYERS[request.param]
    lite = request.param == "efficientnet-lite0"
    network = (
        copy.deepcopy(efficientnet_lite0) if lite else with_batchnorm_statistics(request.param, 5)
    )
    inputs = torch.cat([photo(), photo().flip(2)])[..., 64:160, 64:160].contiguous()
    activations: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        # Cloned before an in-place operation after the layer, as a ReLU in VGG and DenseNet.
        return lambda module, args, output: activations.update({name: output.clone()})

    def keep_on_tape(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            outputs[name] = output
            # DenseNet's last ReLU is an in-place function, not a module that can be set.
            return output.clone()

        return hook

    handles = [network.get_submodule(name).register_forward_hook(record(name)) for name in names]
    with torch.no_grad():
        logits = network(inputs)
    for handle in handles:
        handle.remove()

    recorded = copy.deepcopy(network)
    for module in recorded.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  # typed as a tensor or module
    for name in names:
        recorded.get_submodule(name).register_forward_hook(keep_on_tape(name))
    score = recorded(inputs)[[0, 1], [1, 2]].sum()
    gradients = torch.autograd.grad(score, list(outputs.values()))
    by_name = dict(zip(outputs, gradients, strict=True))
    return ReferenceNetwork(network, names, inputs, logits, activations, by_name)


@pytest.fixture(scope="module")
def hooked_network(reference: ReferenceNetwork) -> Iterator[HookedNetwork]:
    hooked = HookedNetwork(reference.network, reference.names, reference.inputs[:1])
    yield hooked
    hooked.close()


def test_the_default_layer_of_a_cnn_is_its_last_grid(reference: ReferenceNetwork) -> None:
    hooks = hooks_of(reference.network)
    photos = reference.inputs[:1], reference.inputs[1:]
    assert default_layer(reference.network, *photos) == reference.names[0]
    assert hooks_of(reference.network) == hooks


@pytest.mark.parametrize("captured", CAPTURED.values(), ids=CAPTURED)
def test_scores_activations_and_gradients_equal_those_of_the_plain_network(
    captured: slice, reference: ReferenceNetwork, hooked_network: HookedNetwork
) -> None:
    names = reference.names[captured]
    output = hooked_network.forward(reference.inputs, names)
    assert list(output.activations) == names
    assert_close(output.logits.detach(), reference.logits, rtol=1e-5, atol=1e-6)

    gradients = gradients_of(output, [0, 1], [1, 2])
    assert list(gradients) == names
    for name in names:
        expected = GridLayout("grid", *reference.activations[name].shape[1:])
        assert hooked_network.layouts[name] == expected
        scale = reference.gradients[name].abs().max().item()
        assert scale > 0
        assert_close(gradients[name], reference.gradients[name], rtol=1e-4, atol=1e-5 * scale)
        # After the forward and backward pass through the head.
        activations = output.activations[name].detach()
        assert_close(activations, reference.activations[name], rtol=1e-5, atol=1e-6)


def test_the_trunk_is_not_recorded(
    reference: ReferenceNetwork, hooked_network: HookedNetwork
) -> None:
    name, *_, first = reference.names
    recorded_flags: list[bool] = []
    handle = reference.network.get_submodule(first).register_forward_hook(
        lambda module, args, output: recorded_flags.append(output.requires_grad)
    )
    output = hooked_network.forward(reference.inputs, [name])
    handle.remove()
    activations = output.activations[name]
    # Hooked, but not captured in this pass.
    assert recorded_flags == [False]
    assert activations.is_leaf
    assert activations.grad_fn is None
    assert activations.requires_grad
    assert output.logits.requires_grad
    assert not any(parameter.requires_grad for parameter in reference.network.parameters())


def test_recording_begins_at_the_first_of_several_layers(
    reference: ReferenceNetwork, hooked_network: HookedNetwork
) -> None:
    activations = hooked_network.forward(reference.inputs, reference.names).activations
    leaves = [name for name in reference.names if activations[name].is_leaf]
    assert leaves == reference.names[-1:]
    assert all(value.requires_grad for value in activations.values())


def test_a_pass_that_captures_no_layer_records_nothing(
    reference: ReferenceNetwork, hooked_network: HookedNetwork
) -> None:
    output = hooked_network.forward(reference.inputs, [])
    assert output.activations == {}
    assert not output.logits.requires_grad
    assert_close(output.logits, reference.logits, rtol=1e-5, atol=1e-6)


def test_outside_of_a_forward_the_hooked_network_is_the_plain_one(
    reference: ReferenceNetwork, hooked_network: HookedNetwork
) -> None:
    logits = reference.network(reference.inputs)
    assert not logits.requires_grad
    assert_close(logits, reference.logits, rtol=1e-5, atol=1e-6)


def test_close_removes_the_hooks() -> None:
    network = Squares()
    hooked = HookedNetwork(network, ["before", "pick", "before"], GRIDS)
    assert hooks_of(network) == 2
    hooked.close()
    assert hooks_of(network) == 0


def test_under_no_grad_the_head_is_recorded_all_the_same() -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    with torch.no_grad():
        output = hooked.forward(GRIDS, ["pick"])
    assert gradients_of(output, [0], [0])["pick"].tolist() == [BY_HAND[0][0]]


# Several layers


class Branches(Squares):
    """Two paths from the input to their sum, which is 3 A^k in channel k."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.joined = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        channels = self.pick(self.before(inputs))
        joined = self.joined(self.once(1 * channels) + self.twice(2 * channels))
        scores: Tensor = self.fc(joined.square().sum(dim=(2, 3)))
        return scores


# In units of class 0's gradient at ``pick``, 2 w_k A^k: of the joined one 2 w_k 3 A^k, which both
# branches have too; of the channels, which take both paths, three times that.
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
def test_layers_on_two_paths_have_each_their_own_gradient(
    names: list[str], leaves: list[str]
) -> None:
    hooked = HookedNetwork(Branches(), ["joined", "twice", "once", "pick"], GRIDS)
    output = hooked.forward(GRIDS, names)
    assert output.logits.tolist() == [[9 * logit for logit in LOGITS]]
    assert sorted(name for name in names if output.activations[name].is_leaf) == leaves
    gradients = gradients_of(output, [0], [0])
    of_class_0 = torch.tensor([BY_HAND[0][0]]).double()
    for name in names:
        assert_close(gradients[name], IN_BRANCHES[name] * of_class_0)


def test_passes_at_the_same_time_hold_each_their_own_layers() -> None:
    network = Squares()
    hooked = HookedNetwork(network, ["before", "pick", "after"], GRIDS)
    both_inside = threading.Barrier(2, timeout=30)

    def meet(module: nn.Module, args: tuple[Tensor]) -> None:
        both_inside.wait()

    network.before.register_forward_pre_hook(meet)
    network.fc.register_forward_pre_hook(meet)
    outputs: dict[str, ForwardOutput] = {}

    def run(name: str, factor: int) -> None:
        outputs[name] = hooked.forward(factor * GRIDS, [name])

    threads = [
        threading.Thread(target=run, args=arguments) for arguments in (("before", 1), ("after", 2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {name: list(output.activations) for name, output in outputs.items()} == {
        "before": ["before"],
        "after": ["after"],
    }
    assert gradients_of(outputs["after"], [0], [0])["after"].tolist() == [
        (2 * torch.tensor(BY_HAND[0][0])).tolist()
    ]
    assert gradients_of(outputs["before"], [0], [0])["before"][:, :2].tolist() == [BY_HAND[0][0]]


def test_a_layer_that_was_not_hooked_cannot_be_captured() -> None:
    hooked = HookedNetwork(Squares(), ["pick"], GRIDS)
    with pytest.raises(SettingsError, match=r"'after' must run once .* not 0 times"):
        hooked.forward(GRIDS, ["pick", "after"])


# In-place operations


class Changes(Squares):
    """Changes the channels in place; its scores are from their sums."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, inputs: Tensor) -> Tensor:
        channels = self.pick(self.before(inputs))
        self.change(channels)
        scores: Tensor = self.fc(channels.sum(dim=(2, 3)))
        return scores


def add_without_grad(channels: Tensor) -> None:
    with torch.no_grad():
        channels.add_(1)


@pytest.mark.parametrize(
    ("change", "gradient"),
    [
        (lambda channels: channels, [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        # The second channel is [[0, 1], [-1, 2]].
        (lambda channels: channels.relu_(), [[[1, 1], [1, 1]], [[0, -1], [0, -1]]]),
        (lambda channels: channels.add_(1), [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        (add_without_grad, [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        (lambda channels: channels[:, 1:].mul_(3), [[[1, 1], [1, 1]], [[-3, -3], [-3, -3]]]),
    ],
    ids=["nothing", "relu_", "add_", "add_ under no_grad", "mul_ on a view"],
)
def test_a_change_in_place_does_not_reach_the_activations(
    change: Callable[[Tensor], Tensor], gradient: list[list[list[float]]]
) -> None:
    hooked = HookedNetwork(Changes(change), ["before", "pick"], GRIDS)
    for names in (["pick"], ["before", "pick"]):
        output = hooked.forward(GRIDS, names)
        assert_close(output.activations["pick"].detach(), GRIDS[:, :2])
        assert gradients_of(output, [0], [0])["pick"].tolist() == [gradient]


@pytest.mark.parametrize(
    ("name", "cloned"),
    [("0", True), ("1", False)],
    ids=["a ReLU in place follows", "the layer ends in one"],
)
def test_the_output_is_cloned_only_before_an_in_place_operation(name: str, cloned: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    hooked = HookedNetwork(network, [name], GRIDS)
    received: list[int] = []
    network[int(name) + 1].register_forward_pre_hook(
        lambda module, args: received.append(args[0].data_ptr())
    )
    output = hooked.forward(GRIDS, [name])
    assert (received != [output.activations[name].data_ptr()]) is cloned


# Errors


class FailsOnce:
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
    hooked = HookedNetwork(network, ["pick"], GRIDS)
    failing = network.get_submodule(place).register_forward_pre_hook(FailsOnce())
    with pytest.raises(MemoryError, match="once"):
        hooked.forward(7 * GRIDS, ["pick"])
    failing.remove()

    assert hooks_of(network) == 1
    assert not network(GRIDS).requires_grad
    output = hooked.forward(GRIDS, ["pick"])
    assert output.logits.tolist() == [LOGITS]
    assert gradients_of(output, [0], [0])["pick"].tolist() == [BY_HAND[0][0]]


class Twice(Squares):
    """Runs every layer twice."""

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
        scores: Tensor = self.pick(inputs)
        return scores


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
def test_a_layer_that_cannot_be_explained_is_an_error(
    network: nn.Module, name: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        HookedNetwork(network, [name], GRIDS)
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
def test_one_invalid_layer_removes_all_hooks(names: list[str], message: str) -> None:
    network = Squares()
    with pytest.raises(SettingsError, match=message):
        HookedNetwork(network, names, GRIDS)
    assert hooks_of(network) == 0
    assert not network(GRIDS).requires_grad


def test_a_forward_that_fails_in_the_validation_removes_the_hooks() -> None:
    network = Squares()
    network.after.register_forward_pre_hook(FailsOnce())
    with pytest.raises(MemoryError, match="once"):
        HookedNetwork(network, ["before", "pick"], GRIDS)
    # The hook of this test.
    assert hooks_of(network) == 1
