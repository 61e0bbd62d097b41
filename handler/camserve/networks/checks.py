"""What a network must be like for its answers to be right: tried on pictures when it is loaded.

A network that breaks one of these would be served without an error, and explained wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, is_dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError, describe_exception
from camserve.networks.layers import check_grid, get_layer, halves_changed
from camserve.settings import Layout

#: By how much of their norm the scores of one photo may differ between two calls. Float32 kernels
#: that are chosen by the batch's size differ by less than 1e-4.
_MAX_DIFFERENCE: Final = 1e-3
#: How far a sum of probabilities, or the logarithm of it, may be from what it must be.
_SUM_TOLERANCE: Final = 1e-3
#: What a layer's activations are replaced by, as multiples of their own spread: how strong a signal
#: a head of unknown kind may need before its scores leave [0, 1].
_SIGNALS: Final = (1.0, -1.0, 1e3, -1e3, 1e6, -1e6)


@dataclass(frozen=True)
class _Outputs:
    """Of N photos: ``scores`` (N, C), and by layer what each of its calls gave."""

    scores: Tensor
    layers: Mapping[str, Sequence[Tensor]]


def check_network(
    network: nn.Module,
    layers: Sequence[str],
    photo: Tensor,
    other: Tensor,
    batch_size: int,
    layout: Layout = "auto",
) -> None:
    """Hold a network and the layers to be explained to what an explanation relies on.

    It takes a photo and gives two or more scores, as logits; the same ones each time, and whatever
    else is in the batch; and each layer's output is a grid over the photo.

    Args:
        network: in eval mode.
        layers: dotted names of its modules, the default one first.
        photo, other: (1, 3, H, W) two inputs that differ, on the network's device.
        batch_size: how many photos share a forward pass at most.
        layout: ``grid`` where somebody says that the layers' outputs are grids.

    Raises:
        SettingsError: it breaks one of these; the message says which, and what would be accepted.
    """
    modules = {name: get_layer(network, name) for name in layers}
    alone = [_run(network, modules, one).scores for one in (photo, other)]
    _check_repeats(alone[0], _run(network, modules, photo).scores)
    photos = torch.cat([halves_changed(photo, other), other])
    runs = [_run(network, modules, part) for part in torch.split(photos, batch_size)]
    for run in runs:
        _check_batch_axis(run.scores)
    scores = torch.cat([run.scores for run in runs])
    # The first of a batch and the last: samples may mix one way only.
    _check_batch(alone[0], scores[:1])
    _check_batch(alone[1], scores[-1:])
    _check_logits(scores, lambda: _driven_scores(network, modules[layers[0]], photo))
    for name in layers:
        # A layer that runs other than once, or gives no tensor, is refused where it is hooked.
        if all(len(run.layers[name]) == 1 for run in runs):
            outputs = torch.cat([run.layers[name][0] for run in runs])
            _check_samples(name, outputs, len(photos))
            check_grid(name, outputs[:5], photo.shape[2] / photo.shape[3], layout)


def _check_samples(name: str, outputs: Tensor, photos: int) -> None:
    """Hold a layer's output to have a row for each photo."""
    if len(outputs) != photos:
        raise SettingsError(
            f"layer {name!r} gives {len(outputs)} rows for {photos} photos, so that a map of one "
            "would leave out a part of what made its scores; accepted: a layer that gives "
            "(N, K, h, w) for N photos"
        )


def _run(network: nn.Module, layers: Mapping[str, nn.Module], photos: Tensor) -> _Outputs:
    """A forward pass over (N, 3, H, W).

    Raises:
        SettingsError: it fails, or gives something else than (N, C) finite scores.
    """
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                # A copy: what follows may change it in place.
                outputs[name].append(output.clone())

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(keep(name)).remove)
        scores = run(network, photos)
    scores = _scores(scores, photos)
    if not scores.isfinite().all():
        raise SettingsError(
            "the network gives scores that are no finite numbers (NaN or infinity) for an ordinary "
            "picture; accepted: weights that were trained to the end, without NaN"
        )
    return _Outputs(scores, outputs)


def run(network: nn.Module, photos: Tensor) -> Any:
    """What a network gives for (N, 3, H, W), without a tape.

    Raises:
        SettingsError: its forward raises something; the message says what, and where.
    """
    try:
        with torch.no_grad():
            # A copy: a network may change its input in place.
            return network(photos.clone())
    except (Exception, SystemExit) as failure:
        # Whatever somebody's forward raises.
        alone = " A network that takes one photo at a time is served with --set batchSize=1"
        raise SettingsError(
            f"the network fails on a batch of shape {tuple(photos.shape)}: "
            f"{describe_exception(failure)}; accepted: a network that takes photos "
            "(N, 3, height, width) alone and gives scores "
            f"(N, classes).{alone if len(photos) > 1 else ''}"
        ) from None


def _scores(output: Any, photos: Tensor) -> Tensor:
    """The network's output as scores (N, C) of N photos.

    Raises:
        SettingsError: it is something else.
    """
    if (
        not isinstance(output, Tensor)
        or output.ndim != 2
        or len(output) != len(photos)
        or not output.is_floating_point()
    ):
        raise SettingsError(
            "the network must give class scores of shape (N, C), a tensor of floating-point "
            f"numbers; for a batch of {len(photos)} it gives: {_kind(output)}. Wrap it in a module "
            "that returns the scores alone, and package that as module:callable"
        )
    if output.shape[1] < 2:
        raise SettingsError(
            f"the network gives {output.shape[1]} score for a photo, and the probability of a "
            "single class is always 1; accepted: two classes or more. Of one logit s for yes or "
            "no, torch.cat([torch.zeros_like(s), s], dim=1) makes two"
        )
    return output.double()


def _kind(output: Any, depth: int = 2) -> str:
    """What something is, with the shapes of the tensors in it."""
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} tensor {tuple(output.shape)}"
    name = type(output).__name__
    if is_dataclass(output) and not isinstance(output, type):
        output = vars(output)
    if depth and isinstance(output, Mapping):
        parts = [f"{key}: {_kind(value, depth - 1)}" for key, value in [*output.items()][:5]]
    elif depth and isinstance(output, list | tuple):
        parts = [_kind(value, depth - 1) for value in output[:5]]
    else:
        return name
    return f"{name} of {len(output)} ({', '.join(parts)})"


def _check_batch_axis(scores: Tensor) -> None:
    """Hold scores (N, C) of a batch not to be shared out among its photos."""
    if _within_0_and_1(scores) and float((scores.sum(dim=0) - 1).abs().max()) < _SUM_TOLERANCE:
        raise SettingsError(
            "the network's scores of a class add up to 1 over the photos of a batch: it ends in a "
            "softmax over the batch (dim=0); accepted: a network that gives logits, without softmax"
        )


def _check_repeats(first: Tensor, second: Tensor) -> None:
    apart = _difference(first, second)
    if apart > _MAX_DIFFERENCE:
        raise SettingsError(
            f"the network answers otherwise when it is asked again: the scores of one photo differ "
            f"by {apart:.1%} of their norm; accepted: a network that draws no random numbers in "
            "eval mode (F.dropout needs training=self.training)"
        )


def _check_batch(alone: Tensor, together: Tensor) -> None:
    apart = _difference(alone, together)
    if apart > _MAX_DIFFERENCE:
        raise SettingsError(
            f"the network answers otherwise in a batch: a photo's scores differ by {apart:.1%} of "
            "their norm from those that it has alone; accepted: a network whose samples do not mix "
            "in eval mode (a batch norm needs running statistics), or batchSize 1 "
            "(--set batchSize=1)"
        )


def _difference(scores: Tensor, others: Tensor) -> float:
    """By how much of their norm two rows of scores (1, C) differ; what all classes share counts
    for nothing in the norm, as it does for a softmax.
    """
    centred = scores - scores.mean(dim=1, keepdim=True)
    # Scores that are all alike are a rounding error from one another.
    norm = max(float(centred.norm()), 1e-3 * float(scores.norm()), 1e-12)
    return float((scores - others).norm()) / norm


def _check_logits(scores: Tensor, driven: Callable[[], Tensor]) -> None:
    """Hold scores (N, C) to be logits rather than probabilities or their logarithms.

    Args:
        driven: gives the scores of a head whose input is as strong as can be, (M, C).
    """
    if _within_0_and_1(scores):
        strong = driven()
        # A head may take a root or a logarithm, or overflow: then some are no numbers.
        finite = strong.isfinite()
        scores = torch.cat([scores, strong[finite.all(dim=1)]])
        if not _within_0_and_1(strong[finite]) or _is_constant(scores):
            return
        if float((scores.sum(dim=1) - 1).abs().max()) < _SUM_TOLERANCE:
            _refuse("probabilities that add up to 1: it ends in a softmax")
        _refuse("values from 0 to 1 whatever it is shown: it ends in a sigmoid or the like")
    if _are_log_probabilities(scores):
        strong = driven()
        scores = torch.cat([scores, strong[strong.isfinite().all(dim=1)]])
        if _are_log_probabilities(scores) and not _is_constant(scores):
            _refuse("logarithms of probabilities: it ends in a log-softmax")


def _are_log_probabilities(scores: Tensor) -> bool:
    return float(scores.max()) <= 0 and float(scores.logsumexp(1).abs().max()) < _SUM_TOLERANCE


def _is_constant(scores: Tensor) -> bool:
    """Whether all rows are the same: of a network that was never trained, nothing is told."""
    return float((scores - scores[:1]).abs().max()) < _SUM_TOLERANCE


def _within_0_and_1(scores: Tensor) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _refuse(what: str) -> None:
    raise SettingsError(
        f"the network gives {what}. The server takes the softmax of the scores itself, and of such "
        "values it would tell wrong probabilities; accepted: a network that gives logits, the "
        "scores before that"
    )


def _driven_scores(network: nn.Module, layer: nn.Module, photo: Tensor) -> Tensor:
    """The scores (M, C) where a layer's activations are replaced by noise, ever stronger."""
    noise = torch.Generator().manual_seed(0)
    scores = []
    for signal in _SIGNALS:

        def replace(module: nn.Module, args: Any, output: Any, signal: float = signal) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return output
            # A mean for each channel, which no pooling averages away, and noise around it.
            means = torch.randn(output.shape[:2], generator=noise)
            random = torch.randn(output.shape, generator=noise)
            random += means.view(*output.shape[:2], *[1] * (output.ndim - 2))
            return random.to(output) * signal * output.std().clamp_min(1)

        hook = layer.register_forward_hook(replace)
        try:
            scores.append(_scores(run(network, photo), photo))
        finally:
            hook.remove()
    return torch.cat(scores)
