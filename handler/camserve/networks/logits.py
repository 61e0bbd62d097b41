"""Checks that a network's scores are logits: not probabilities, nor their logarithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.forward import class_scores, run_network

#: How far a sum of probabilities may be from 1, and its logarithm from 0.
_SUM_TOLERANCE: Final = 1e-3
#: The amplitudes of the noise that replaces a layer's activations, as multiples of their standard
#: deviation. Which one makes a head's scores leave [0, 1] depends on the head.
_NOISE_FACTORS: Final = (1.0, -1.0, 1e3, -1e3, 1e6, -1e6)


def check_logits(scores: Tensor, stress_scores: Callable[[], Tensor]) -> None:
    """Refuse scores that are probabilities or logarithms of probabilities.

    Args:
        scores: (N, C), of different photos.
        stress_scores: returns the head's scores (M, C) for extreme activations. It is called only
            where the scores alone do not decide.

    Raises:
        SettingsError: they are in [0, 1], or their exponentials add up to 1, whatever the input.
    """
    if _is_within_0_and_1(scores):
        stressed = stress_scores()
        # A head that takes a root or a logarithm, or overflows, gives NaN or infinity for some.
        finite = stressed.isfinite()
        scores = torch.cat([scores, stressed[finite.all(dim=1)]])
        if not _is_within_0_and_1(stressed[finite]) or _is_constant(scores):
            return
        if float((scores.sum(dim=1) - 1).abs().max()) < _SUM_TOLERANCE:
            _refuse("probabilities that add up to 1: it ends in a softmax")
        _refuse("values from 0 to 1 whatever it is shown: it ends in a sigmoid or the like")
    if _are_log_probabilities(scores):
        stressed = stress_scores()
        scores = torch.cat([scores, stressed[stressed.isfinite().all(dim=1)]])
        if _are_log_probabilities(scores) and not _is_constant(scores):
            _refuse("logarithms of probabilities: it ends in a log-softmax")


def check_no_batch_softmax(scores: Tensor) -> None:
    """Refuse scores (N, C) that add up to 1 over the photos of a batch, for each class."""
    if _is_within_0_and_1(scores) and float((scores.sum(dim=0) - 1).abs().max()) < _SUM_TOLERANCE:
        raise SettingsError(
            "the network's scores of a class add up to 1 over the photos of a batch: it ends in a "
            "softmax over the batch (dim=0); accepted: a network that gives logits, without softmax"
        )


def noise_scores(network: nn.Module, layer: nn.Module, photo: Tensor) -> Tensor:
    """The scores of a network whose activations at a layer are replaced by noise.

    Args:
        network: in eval mode.
        layer: one of its modules.
        photo: (1, 3, H, W).

    Returns:
        (M, C), a row for each of the noise's M amplitudes.

    Raises:
        SettingsError: the network fails on it, or returns no class scores.
    """
    generator = torch.Generator().manual_seed(0)
    scores = []
    for factor in _NOISE_FACTORS:

        def replace(module: nn.Module, args: Any, output: Any, factor: float = factor) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return output
            # Each channel has a mean of its own, which pooling does not average away.
            means = torch.randn(output.shape[:2], generator=generator)
            noise = torch.randn(output.shape, generator=generator)
            noise += means.view(*output.shape[:2], *[1] * (output.ndim - 2))
            return noise.to(output) * factor * output.std().clamp_min(1)

        hook = layer.register_forward_hook(replace)
        try:
            scores.append(class_scores(run_network(network, photo), len(photo)))
        finally:
            hook.remove()
    return torch.cat(scores)


def _are_log_probabilities(scores: Tensor) -> bool:
    return float(scores.max()) <= 0 and float(scores.logsumexp(1).abs().max()) < _SUM_TOLERANCE


def _is_constant(scores: Tensor) -> bool:
    """Whether all rows are the same, as an untrained network's may be; they decide nothing."""
    return float((scores - scores[:1]).abs().max()) < _SUM_TOLERANCE


def _is_within_0_and_1(scores: Tensor) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _refuse(scores: str) -> NoReturn:
    raise SettingsError(
        f"the network gives {scores}. The server takes the softmax of the scores itself, and of "
        "such values it would tell wrong probabilities; accepted: a network that gives logits, the "
        "scores before that"
    )
