"""Maps of tokens and channels last equal pytorch-grad-cam's, with its reshape_transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam  # type: ignore[import-untyped]
import torch
from numpy.testing import assert_allclose
from pytorch_grad_cam.utils.model_targets import (  # type: ignore[import-untyped]
    ClassifierOutputTarget,
)
from torch import Tensor, nn

from camserve.explain import ExplanationRequest, HookedNetwork, explain_batch
from camserve.explain.methods import METHODS
from camserve.explain.targets import Target
from camserve.networks import GridLayout, ScoreReader, check_network, run_network
from camserve.options import Method
from camserve.settings import Layout
from tests.handler.explain.test_methods import EIGEN, PEERS, with_our_sign
from tests.support.accelerated_networks import accelerate, needs_compiled_bf16, relative_error
from tests.support.small_networks import pictures
from tests.support.transformers import CLASSES, NETWORKS, SIDE, TokenNetwork

TARGETS = [3, 0, 7]
#: A plain one, by windows, channels last, one prefix token and several; the others are alike.
QUICK = ("ViT", "Swin", "ConvNeXt", "timm ViT", "timm DINOv2 with registers")


@dataclass(frozen=True)
class Hooked:
    """A network as a whole and with its trunk compiled, and what its peer is given."""

    case: TokenNetwork
    network: nn.Module
    eager: HookedNetwork
    compiled: HookedNetwork | None
    fallback_reason: str
    inputs: Tensor


@pytest.fixture(
    scope="module",
    params=[
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS
    ],
)
def hooked(request: pytest.FixtureRequest) -> Hooked:
    case = NETWORKS[request.param]
    network, (photo, other) = case.build(), pictures(SIDE)
    names = (case.default, *case.others)
    reader = ScoreReader.find("multiclass", "logits", CLASSES, run_network(network, photo))
    declared: dict[str, Layout] = dict.fromkeys(names, "auto")
    layouts = check_network(network, reader, declared, photo, other, 8).layouts
    fast = accelerate(network, case.default, side=SIDE)
    compiled = None
    if fast.network is not None and fast.compiled:
        layers = {case.default: fast.network.layer}
        compiled = HookedNetwork(fast.network, layers, photo, layouts)
    # The peer has the network to itself.
    eager = HookedNetwork(case.build(), names, photo, layouts)
    inputs = torch.cat([photo, other, photo.flip(3)])
    return Hooked(case, network.requires_grad_(True), eager, compiled, fast.fallback_reason, inputs)


def ours(path: HookedNetwork, inputs: Tensor, layer: str, method: Method) -> list[Any]:
    requests = [ExplanationRequest((Target(index),), (layer,), method) for index in TARGETS]
    explained = explain_batch(path.forward(inputs, [layer]), requests).explained
    return [explanation.maps[0].values for (explanation,) in explained]


def peers(hooked: Hooked, layer: str, method: Method) -> Any:
    """pytorch-grad-cam's maps, before it resizes them to the input."""
    module = hooked.network.get_submodule(layer)
    targets = [ClassifierOutputTarget(index) for index in TARGETS]
    # Not every method's own pass records gradients.
    with pytorch_grad_cam.GradCAM(hooked.network, [module], hooked.case.reshape) as cam:
        cam(hooked.inputs, targets)
        recorded = cam.activations_and_grads
        activations, gradients = recorded.activations[0], recorded.gradients[0]
    with PEERS[method](hooked.network, [module], hooked.case.reshape) as cam:
        arrays = activations.numpy(), gradients.numpy()
        raw = cam.get_cam_image(hooked.inputs, module, targets, *arrays, False)
    if method in EIGEN:
        raw = with_our_sign(raw, activations if method == "eigencam" else activations * gradients)
    raw = np.maximum(raw, 0)
    low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
    return (raw - low) / np.where(high > low, high - low, 1)


@pytest.mark.parametrize("method", METHODS)
def test_maps_equal_pytorch_grad_cams(hooked: Hooked, method: Method) -> None:
    for layer in (hooked.case.default, *hooked.case.others):
        if (method, layer) == ("hirescam", "blocks.1"):
            continue
        expected = peers(hooked, layer, method)
        maps = ours(hooked.eager, hooked.inputs, layer, method)
        assert_allclose(maps, expected, rtol=0, atol=1e-4, err_msg=layer)
        assert np.ptp(expected[0]) == 1


def test_hirescam_of_tokens_that_only_a_layer_norm_reads_is_no_evidence() -> None:
    """Scaling a token changes nothing behind the norm: its gradient is orthogonal to it.

    The sum of their products is what rounding leaves of zero, which the peer stretches to a map.
    """
    case, (photo, _) = NETWORKS["timm ViT"], pictures(SIDE)
    layout = GridLayout("tokens", 48, 8, 8, 1)
    hooked = HookedNetwork(case.build(), ["blocks.1"], photo, {"blocks.1": layout})
    request = ExplanationRequest((Target(0),), ("blocks.1",), "hirescam")
    ((explanation,),) = explain_batch(hooked.forward(photo, ["blocks.1"]), [request]).explained
    assert not explanation.maps[0].evidence


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_the_compiled_trunk_are_the_same(hooked: Hooked, method: Method) -> None:
    assert hooked.compiled is not None, hooked.fallback_reason
    layer = hooked.case.default
    maps = ours(hooked.compiled, hooked.inputs, layer, method)
    # XGradCAM divides by a channel's sum, which behind a norm may be a thousandth of its values.
    tolerance = 1e-3 if method == "xgradcam" else 1e-4
    assert_allclose(maps, peers(hooked, layer, method), rtol=0, atol=tolerance)


def test_the_trunk_is_compiled_and_gives_the_same_scores_in_a_batch_of_any_size(
    hooked: Hooked,
) -> None:
    assert hooked.compiled is not None, hooked.fallback_reason
    assert hooked.fallback_reason == ""
    photos = torch.cat([hooked.inputs, hooked.inputs.flip(2), hooked.inputs[:2].flip(2, 3)])
    with torch.no_grad():
        expected = hooked.network(photos)
    for size in range(1, 9):
        output = hooked.compiled.forward(photos[:size], [hooked.case.default])
        assert_allclose(output.logits.detach(), expected[:size], rtol=1e-4, atol=1e-4)


@needs_compiled_bf16
def test_in_bfloat16_scores_and_maps_are_nearly_the_same(hooked: Hooked) -> None:
    case = hooked.case
    layout = {case.default: hooked.eager.layouts[case.default]}
    fast = accelerate(hooked.network, case.default, precision="bfloat16", side=SIDE)
    assert fast.network is not None, fast.fallback_reason
    in_bfloat16 = case is not NETWORKS["ConvNeXt"]
    reason = "" if in_bfloat16 else "not all of the trunk's convolutions are safe in bfloat16"
    assert (fast.precision == "bfloat16", fast.fallback_reason) == (in_bfloat16, reason)
    layers = {case.default: fast.network.layer}
    path = HookedNetwork(fast.network, layers, hooked.inputs[:1], layout, bfloat16=in_bfloat16)
    with torch.no_grad():
        expected = hooked.network(hooked.inputs)
    scores = path.forward(hooked.inputs, [case.default]).logits.detach()
    assert relative_error(scores, expected) < 0.02
    maps = np.array(ours(path, hooked.inputs, case.default, "gradcam"))
    exact = np.array(peers(hooked, case.default, "gradcam"))
    assert np.corrcoef(maps.ravel(), exact.ravel())[0, 1] > 0.99
