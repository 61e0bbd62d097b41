"""Checks, when a network is loaded, that its explanations will be right.

A network that fails these checks would be served without an error and explained wrongly. They run
it on two pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.forward import class_scores, recorded_outputs, run_network
from camserve.networks.input_coverage import check_sees_whole_input
from camserve.networks.layers import convolution_grids, get_layer, output_shapes
from camserve.networks.layouts import GridLayout, find_layout
from camserve.networks.logits import check_no_batch_softmax, check_scores, noise_scores
from camserve.networks.outputs import ScoreReader
from camserve.networks.patch_movement import move_patch
from camserve.settings import Layout

#: The largest relative difference between a photo's scores in two calls. Float32 kernels chosen by
#: the batch size differ by less than 1e-4.
_MAX_DIFFERENCE: Final = 1e-3


@dataclass(frozen=True)
class CheckedNetwork:
    """What the checks found out about a network.

    Attributes:
        classes: C, the number of class scores.
        layouts: by layer, how its output is a grid over the photo.
    """

    classes: int
    layouts: Mapping[str, GridLayout]


@dataclass(frozen=True)
class _ForwardResult:
    """The results of a forward pass over N photos.

    Attributes:
        raw_scores: (N, C), as the network gives them.
        scores: (N, C), logits, finite.
        layer_outputs: by layer, the tensors that its calls returned.
    """

    raw_scores: Tensor
    scores: Tensor
    layer_outputs: Mapping[str, Sequence[Tensor]]


def check_network(
    network: nn.Module,
    reader: ScoreReader,
    layers: Mapping[str, Layout],
    photo: Tensor,
    other: Tensor,
    batch_size: int,
) -> CheckedNetwork:
    """Check that a network's scores and layers can be explained.

    It must return scores of the kind that the reader takes them for; the same scores for the same
    photo, in every call and in every batch; and each layer's output must be a grid over all of the
    photo.

    Args:
        network: in eval mode.
        reader: of its scores.
        layers: by the dotted names of the layers to explain, the default layer first, what the
            operator says of their layout.
        photo, other: (1, 3, H, W), two different inputs on the network's device.
        batch_size: the largest N of a forward pass.

    Raises:
        SettingsError: a check fails; the message says which, and what would be accepted.
    """
    modules = {name: get_layer(network, name) for name in layers}
    run = partial(_run, network, reader, modules)
    photo_scores, other_scores = run(photo).raw_scores, run(other).raw_scores
    _check_deterministic(photo_scores, run(photo).raw_scores)
    photos = torch.cat([move_patch(photo, other), other])
    results = [run(batch) for batch in torch.split(photos, batch_size)]
    stress_scores = cache(
        partial(noise_scores, network, reader, next(iter(modules.values())), photo)
    )
    check_no_batch_softmax([result.raw_scores for result in results], stress_scores)
    scores = torch.cat([result.raw_scores for result in results])
    # The first photo and the last: an operation may mix samples in one direction only.
    _check_batch_independent(photo_scores, scores[:1])
    _check_batch_independent(other_scores, scores[-1:])
    check_scores(scores, reader, stress_scores)
    sizes = [len(batch) for batch in torch.split(photos, batch_size)]
    outputs = {}
    for name in layers:
        of_batches = [_only_output(name, result) for result in results]
        for output, size in zip(of_batches, sizes, strict=True):
            _check_sample_axis(name, output, size)
        outputs[name] = torch.cat(of_batches)
    # Tokens alone do not show the grid that they are of.
    has_tokens = any(output.ndim == 3 for output in outputs.values())
    grids = convolution_grids(network, output_shapes(network, photo)) if has_tokens else set()
    input_size = photo.shape[2], photo.shape[3]
    layouts = {}
    for name, output in outputs.items():
        layouts[name] = find_layout(name, output[:-1], input_size, layers[name], grids)
    check_sees_whole_input(network, modules, layouts, photo, other)
    return CheckedNetwork(results[0].scores.shape[1], layouts)


def _run(
    network: nn.Module, reader: ScoreReader, layers: Mapping[str, nn.Module], photos: Tensor
) -> _ForwardResult:
    """Run a network on (N, 3, H, W).

    Raises:
        SettingsError: it fails, or does not return finite class scores.
    """
    with recorded_outputs(layers, torch.clone) as outputs:
        output = run_network(network, photos)
    raw_scores = class_scores(reader, output, len(photos))
    scores = reader.logits(raw_scores)
    if not scores.isfinite().all():
        raise SettingsError(
            "the network gives scores that are no finite numbers (NaN or infinity) for an ordinary "
            "picture; accepted: weights that were trained to the end, without NaN"
        )
    return _ForwardResult(raw_scores, scores, outputs)


def _only_output(name: str, result: _ForwardResult) -> Tensor:
    """The only tensor that a layer returned in a forward pass."""
    outputs = result.layer_outputs.get(name, [])
    if len(outputs) != 1:
        raise SettingsError(
            f"layer {name!r} returns {len(outputs)} tensors in a forward pass; accepted: a layer "
            "that runs once, and returns a tensor alone"
        )
    return outputs[0]


def _check_deterministic(first: Tensor, second: Tensor) -> None:
    """Compare the scores (1, C) of a photo in two calls."""
    difference = _relative_difference(first, second)
    if difference > _MAX_DIFFERENCE:
        raise SettingsError(
            f"the network answers otherwise when it is asked again: the scores of one photo differ "
            f"by {difference:.1%} of their norm; accepted: a network that draws no random numbers "
            "in eval mode (F.dropout needs training=self.training)"
        )


def _check_batch_independent(single: Tensor, batched: Tensor) -> None:
    """Compare the scores (1, C) of a photo alone and in a batch."""
    difference = _relative_difference(single, batched)
    if difference > _MAX_DIFFERENCE:
        raise SettingsError(
            f"the network answers otherwise in a batch: a photo's scores differ by "
            f"{difference:.1%} of their norm from those that it has alone; accepted: a network "
            "whose samples do not mix in eval mode (a batch norm needs running statistics), or "
            "handler.batching=alone (--set), which runs each by itself"
        )


def _check_sample_axis(name: str, outputs: Tensor, photos: int) -> None:
    """Refuse a layer whose output's first axis is not the batch's."""
    if len(outputs) != photos:
        raise SettingsError(
            f"layer {name!r} gives {len(outputs)} rows for {photos} photos, so that a map of one "
            "would leave out a part of what made its scores; accepted: a layer whose first axis "
            "has one row for each photo"
        )


def _relative_difference(scores: Tensor, others: Tensor) -> float:
    """The norm of the difference of scores (1, C), over the norm of their deviations from the mean.

    The mean is left out, as a softmax ignores it.
    """
    centred = scores - scores.mean(dim=1, keepdim=True)
    # Where all scores are equal, their deviations are rounding errors. A single score has none; a
    # sigmoid of it changes on a scale of 1.
    least = 0.1 if scores.shape[1] == 1 else 1e-12
    norm = max(float(centred.norm()), 1e-3 * float(scores.norm()), least)
    return float((scores - others).norm()) / norm
