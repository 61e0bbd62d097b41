"""Networks cut in two; what is served of them is in test_trunk.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from camserve.networks import partition


class Small(nn.Module):
    """A layer between two, and a parameter that is read on both sides of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)
        self.last, self.scale = nn.Linear(5, 6), nn.Parameter(torch.tensor(3.0))

    def forward(self, inputs: Tensor) -> Tensor:
        activations = self.layer(self.first(inputs) * self.scale)
        return self.last(activations.relu().mean((2, 3)) * self.scale)


class Around(Small):
    """The photo has another way to the scores."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + inputs.mean()


class Twice(Small):
    """The layer runs twice."""

    def forward(self, inputs: Tensor) -> Tensor:
        activations = self.first(inputs)
        return self.last((self.layer(activations) + self.layer(-activations)).mean((2, 3)))


class Counting(Small):
    """The number of samples is read off the photo."""

    def forward(self, inputs: Tensor) -> Tensor:
        activations = self.layer(self.first(inputs))
        return self.last(activations.view(inputs.size(0), 5, -1).mean(2))


INPUTS = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


@pytest.mark.parametrize("kind", [Small, Counting])
def test_the_head_after_the_trunk_is_the_network(kind: type[Small]) -> None:
    torch.manual_seed(0)
    network = kind()
    trunk, head = partition.split_at_layer(network, "layer")
    activations = trunk(INPUTS)
    assert activations.shape == (2, 5, 4, 4)
    assert head(activations).equal(network(INPUTS))


def test_both_parts_share_the_networks_parameters_and_have_no_others() -> None:
    network = Small()
    trunk, head = partition.split_at_layer(network, "layer")
    own = {id(parameter) for parameter in network.parameters()}
    parts = [{id(parameter) for parameter in part.parameters()} for part in (trunk, head)]
    assert parts[0] | parts[1] == own
    assert parts[0] & parts[1] == {id(network.scale)}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Around, "more than layer 'layer' leads from the photo to the scores"),
        (Twice, "layer 'layer' runs 2 times"),
    ],
)
def test_what_cannot_be_cut_says_why(kind: type[Small], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        partition.split_at_layer(kind(), "layer")


def test_the_trunk_of_a_cut_leaves_no_tape() -> None:
    network = Small()
    both = partition.PartitionedNetwork(*partition.split_at_layer(network, "layer"))
    seen: list[Tensor] = []
    both.layer.register_forward_hook(lambda module, args, output: seen.append(output))
    assert both(INPUTS).equal(network(INPUTS))
    (activations,) = seen
    assert not activations.requires_grad


def test_a_graph_is_cut_at_any_value_and_a_constant_goes_to_whoever_reads_it() -> None:
    network = Small()
    traced = fx.symbolic_trace(network)
    nodes = [node for node in traced.graph.nodes if node.op not in ("get_attr", "output")]
    (place,) = (node for node in nodes if node.target == "layer")
    before = nodes[: nodes.index(place) + 1]
    first, rest = partition.split_graph(traced, before, place, place, nodes[len(before) :])
    assert rest(first(INPUTS)).equal(network(INPUTS))
    assert first.scale is rest.scale is network.scale
