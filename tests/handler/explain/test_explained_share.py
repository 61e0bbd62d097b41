"""The sum of a map over the part of the score that its layer makes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from camserve.explain import ExplanationRequest, explain_batch, required_layers
from camserve.explain.explanations import ScoreExplanation
from camserve.explain.hooks import HookedNetwork
from camserve.explain.targets import Target
from camserve.options import Method
from tests.support.small_networks import photo, with_batchnorm_statistics

LAST, OTHER = "layer4.1", "layer3"


@dataclass(frozen=True)
class NetworkUnderTest:
    hooked: HookedNetwork
    plain: nn.Module
    last: nn.Linear
    inputs: Tensor

    def explain(
        self, targets: list[Target], layers: tuple[str, ...] = (LAST,), method: Method = "gradcam"
    ) -> list[list[ScoreExplanation]]:
        """The explanations of both photos."""
        requests = [ExplanationRequest(tuple(targets), layers, method)] * 2
        output = self.hooked.forward(self.inputs, required_layers(requests))
        return explain_batch(output, requests).explained


@pytest.fixture(scope="module")
def network() -> NetworkUnderTest:
    plain = with_batchnorm_statistics("resnet18", 6)
    last = plain.get_submodule("fc")
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.bias)
    cat = photo()[..., 64:160, 64:160]
    bias = last.bias.detach().clone()
    hooked = HookedNetwork(copy.deepcopy(plain), (LAST, OTHER), cat, biases={LAST: bias})
    return NetworkUnderTest(hooked, plain.eval(), last, torch.cat([cat, -cat]))


def activations_of(network: NetworkUnderTest) -> Tensor:
    """(2, K, h, w)."""
    found: list[Tensor] = []
    layer = network.plain.get_submodule(LAST)
    handle = layer.register_forward_hook(lambda module, args, output: found.append(output))
    with torch.no_grad():
        network.plain(network.inputs)
    handle.remove()
    return found[0]


def shares_by_hand(network: NetworkUnderTest, weights: Tensor) -> list[float | None]:
    """For the score of these weights of the features (K,): the positive parts over all of it."""
    parts = torch.einsum("k,nkhw->nhw", weights, activations_of(network)).flatten(1)
    return [
        float(positive / total) if total > 0 else None
        for positive, total in zip(parts.relu().sum(1), parts.sum(1), strict=True)
    ]


def rounded(shares: list[float | None]) -> list[float | None]:
    return [None if share is None else round(share, 4) for share in shares]


@pytest.mark.parametrize("class_id", range(6))
def test_the_share_of_a_class(network: NetworkUnderTest, class_id: int) -> None:
    found = [one.maps[0].explained for (one,) in network.explain([Target(class_id)])]
    by_hand = shares_by_hand(network, network.last.weight[class_id].detach())
    assert rounded(found) == rounded(by_hand)


def test_there_are_scores_with_and_without_a_share(network: NetworkUnderTest) -> None:
    """Otherwise the test above would compare nothing but None, or never None."""
    found = [one.maps[0].explained for of_photo in network.explain([*map(Target, range(6))])
             for one in of_photo]  # fmt: skip
    assert {share is None for share in found} == {True, False}
    assert all(share is None or share >= 1 - 1e-5 for share in found)


def test_the_share_of_a_contrast(network: NetworkUnderTest) -> None:
    found = [one.maps[0].explained for (one,) in network.explain([Target(1, against=4)])]
    weights = network.last.weight.detach()
    assert rounded(found) == rounded(shares_by_hand(network, weights[1] - weights[4]))


def test_a_class_against_itself_has_no_share(network: NetworkUnderTest) -> None:
    found = network.explain([Target(1, against=1)])
    assert [one.maps[0].explained for (one,) in found] == [None, None]


@pytest.mark.parametrize("method", ["gradcam++", "layercam", "eigencam"])
def test_other_methods_have_no_share(network: NetworkUnderTest, method: Method) -> None:
    found = network.explain([Target(0), Target(1)], method=method)
    assert {one.maps[0].explained for of_photo in found for one in of_photo} == {None}


def test_other_layers_have_no_share(network: NetworkUnderTest) -> None:
    found = network.explain([Target(n) for n in range(6)], layers=(OTHER, LAST))
    shares = [[map.explained for map in one.maps] for of_photo in found for one in of_photo]
    assert {other for other, _ in shares} == {None}
    assert any(last is not None for _, last in shares)
