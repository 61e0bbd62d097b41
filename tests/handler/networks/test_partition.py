"""Networks split in two; test_acceleration.py serves such networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from camserve.networks import partition


class Small(nn.Module):
    """A target layer between two others, and a parameter that trunk and head read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)
        self.last, self.scale = nn.Linear(5, 6), nn.Parameter(torch.tensor(3.0))

    def forward(self, inputs: Tensor) -> Any:
        activations = self.layer(self.first(inputs) * self.scale)
        return self.last(activations.relu().mean((2, 3)) * self.scale)


class Around(Small):
    """The scores depend on the photo by a path around the layer."""

    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs) + inputs.mean()


class Residual(Small):
    """What the layer gives is added to what it reads."""

    def forward(self, inputs: Tensor) -> Any:
        before = self.first(inputs) * self.scale
        before = before[:, [0, 1, 2, 3, 0]]
        return self.last((self.layer(before[:, :4]) + before).mean((2, 3)))


class Twofold(Small):
    """The head reads a value of the trunk twice."""

    def forward(self, inputs: Tensor) -> Any:
        first = self.first(inputs)
        activations = self.layer(first * self.scale)
        return self.last(((activations[:, :4] * first) @ first).mean((2, 3))[:, [0, 1, 2, 3, 0]])


class Twice(Small):
    """The layer is called twice."""

    def forward(self, inputs: Tensor) -> Any:
        activations = self.first(inputs)
        return self.last((self.layer(activations) + self.layer(-activations)).mean((2, 3)))


class Unread(Small):
    """The layer runs, and nothing reads its output."""

    def forward(self, inputs: Tensor) -> Any:
        first = self.first(inputs)
        self.layer(first)
        return self.last(first.mean((2, 3))[:, [0, 1, 2, 3, 0]])


class Counting(Small):
    """The head reads the batch size from the photo."""

    def forward(self, inputs: Tensor) -> Any:
        activations = self.layer(self.first(inputs))
        return self.last(activations.view(inputs.size(0), 5, -1).mean(2))


INPUTS = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


@pytest.mark.parametrize("kind", [Small, Counting])
def test_trunk_and_head_together_are_the_network(kind: type[Small]) -> None:
    torch.manual_seed(0)
    network = kind()
    trunk, head = partition.split_at_layer(network, "layer", INPUTS[:1])
    activations = trunk(INPUTS)
    assert activations.shape == (2, 5, 4, 4)
    assert head(activations).equal(network(INPUTS))


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (Residual, [(2, 5, 4, 4), (2, 5, 4, 4)]),
        (Around, [(2, 5, 4, 4), ()]),
        (Twofold, [(2, 5, 4, 4), (2, 4, 4, 4)]),
    ],
)
def test_what_leads_around_the_layer_is_a_further_output_of_the_trunk(
    kind: type[Small], shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    network = kind()
    trunk, head = partition.split_at_layer(network, "layer", INPUTS[:1])
    values = trunk(INPUTS)
    assert [tuple(value.shape) for value in values] == shapes
    assert head(*values).equal(network(INPUTS))
    assert partition.PartitionedNetwork(trunk, head)(INPUTS).equal(network(INPUTS))


def test_both_parts_share_the_networks_parameters_and_have_no_others() -> None:
    network = Small()
    trunk, head = partition.split_at_layer(network, "layer", INPUTS[:1])
    expected = {id(parameter) for parameter in network.parameters()}
    parts = [{id(parameter) for parameter in part.parameters()} for part in (trunk, head)]
    assert parts[0] | parts[1] == expected
    assert parts[0] & parts[1] == {id(network.scale)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Twice, "layer 'layer' is called 2 times, not once"),
        (Unread, "the scores do not depend on layer 'layer'"),
    ],
)
def test_a_network_that_cannot_be_split_is_rejected(kind: type[Small], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partition.split_at_layer(kind(), "layer", INPUTS[:1])


def test_autograd_does_not_record_the_trunk() -> None:
    network = Small()
    partitioned = partition.PartitionedNetwork(
        *partition.split_at_layer(network, "layer", INPUTS[:1])
    )
    outputs: list[Tensor] = []
    partitioned.layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    assert partitioned(INPUTS).equal(network(INPUTS))
    (activations,) = outputs
    assert not activations.requires_grad


def test_a_graph_is_split_at_any_value_and_both_parts_share_its_parameters() -> None:
    network = Small()
    traced = fx.symbolic_trace(network)
    nodes = [node for node in traced.graph.nodes if node.op not in ("get_attr", "output")]
    (layer,) = (node for node in nodes if node.target == "layer")
    before = nodes[: nodes.index(layer) + 1]
    first, rest = partition.split_graph(traced, before, [layer], [layer], nodes[len(before) :])
    assert rest(first(INPUTS)).equal(network(INPUTS))
    assert first.scale is rest.scale is network.scale
