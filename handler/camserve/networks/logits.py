"""Checks that a network's scores are what the settings say: logits, probabilities, or logarithms.

As something else they would be explained, and told as probabilities, wrongly and without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.forward import class_scores, run_network
from camserve.networks.outputs import ScoreReader

#: How far a sum of probabilities may be from 1, and its logarithm from 0.
_SUM_TOLERANCE: Final = 1e-3
#: The amplitudes of the noise that replaces a layer's activations, as multiples of their standard
#: deviation. Which one makes a head's scores leave [0, 1] depends on the head.
_NOISE_FACTORS: Final = (1.0, -1.0, 1e3, -1e3, 1e6, -1e6)
_SOFTMAX: Final = "handler.output=probabilities for a network that ends in a softmax"
_SIGMOIDS: Final = (
    "handler.task=multilabel, or binary for a single score, with handler.output=probabilities for "
    "a network that ends in a sigmoid for each class"
)


def check_scores(scores: Tensor, reader: ScoreReader, stress_scores: Callable[[], Tensor]) -> None:
    """Refuse scores that are not what a reader takes them for.

    Args:
        scores: (N, C), of different photos, as the network gives them.
        reader: says what they should be.
        stress_scores: returns the head's scores (M, C) for extreme activations. It is called only
            where the scores alone do not decide.

    Raises:
        SettingsError: they should be logits, and are in [0, 1], or their exponentials add up to 1,
            whatever the input; or they should be probabilities or their logarithms, and are not.
    """
    match reader.output:
        case "logits":
            _check_logits(scores, reader, stress_scores)
        case "probabilities":
            _check_probabilities(scores, reader, stress_scores)
        case "log_probabilities":
            if float(scores.max()) > 0:
                _refuse_output(reader, "numbers above 0, which no logarithm of a probability is")
            _check_probabilities(scores.exp(), reader, stress_scores)


def _check_logits(scores: Tensor, reader: ScoreReader, stress_scores: Callable[[], Tensor]) -> None:
    if _is_within_0_and_1(scores):
        stressed = stress_scores()
        # A head that takes a root or a logarithm, or overflows, gives NaN or infinity for some.
        finite = stressed.isfinite()
        scores = torch.cat([scores, stressed[finite.all(dim=1)]])
        if not _is_within_0_and_1(stressed[finite]) or _is_constant(scores):
            return
        if scores.shape[1] > 1 and _add_up_to_1(scores):
            _refuse_as_logits("probabilities that add up to 1: it ends in a softmax", _SOFTMAX)
        _refuse_as_logits(
            "values from 0 to 1 whatever it is shown: it ends in a sigmoid or the like", _SIGMOIDS
        )
    if reader.task == "multiclass" and _are_log_probabilities(scores):
        stressed = stress_scores()
        scores = torch.cat([scores, stressed[stressed.isfinite().all(dim=1)]])
        if _are_log_probabilities(scores) and not _is_constant(scores):
            _refuse_as_logits(
                "logarithms of probabilities: it ends in a log-softmax",
                "handler.output=log_probabilities for it",
            )


def _check_probabilities(
    probabilities: Tensor, reader: ScoreReader, stress_scores: Callable[[], Tensor]
) -> None:
    if not _is_within_0_and_1(probabilities):
        low, high = float(probabilities.min()), float(probabilities.max())
        _refuse_output(reader, f"values from {low:.3g} to {high:.3g}, which are no probabilities")
    if reader.task == "multiclass" and not _add_up_to_1(probabilities):
        _refuse_output(
            reader, "values that do not add up to 1 over the classes", f", or {_SIGMOIDS}"
        )
    if reader.task == "multilabel" and probabilities.shape[1] > 1 and _add_up_to_1(probabilities):
        stressed = stress_scores()
        stressed = stressed.exp() if reader.output == "log_probabilities" else stressed
        every = torch.cat([probabilities, stressed[stressed.isfinite().all(dim=1)]])
        if _add_up_to_1(every) and not _is_constant(every):
            _refuse_output(
                reader, "probabilities that add up to 1: it ends in a softmax",
                ", or handler.task=multiclass, since of such classes one alone is right",
            )  # fmt: skip


def check_no_batch_softmax(scores: Tensor) -> None:
    """Refuse scores (N, C) that add up to 1 over the photos of a batch, for each class."""
    sums = scores.sum(dim=0)
    if _is_within_0_and_1(scores) and float((sums - 1).abs().max()) < _SUM_TOLERANCE:
        raise SettingsError(
            "the network's scores of a class add up to 1 over the photos of a batch: it ends in a "
            "softmax over the batch (dim=0); accepted: a network that gives logits, without softmax"
        )


def noise_scores(
    network: nn.Module, reader: ScoreReader, layer: nn.Module, photo: Tensor
) -> Tensor:
    """The scores of a network whose activations at a layer are replaced by noise.

    Args:
        network: in eval mode.
        reader: of its scores.
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
            scores.append(class_scores(reader, run_network(network, photo), len(photo)))
        finally:
            hook.remove()
    return torch.cat(scores)


def _are_log_probabilities(scores: Tensor) -> bool:
    return float(scores.max()) <= 0 and float(scores.logsumexp(1).abs().max()) < _SUM_TOLERANCE


def _add_up_to_1(probabilities: Tensor) -> bool:
    return float((probabilities.sum(dim=1) - 1).abs().max()) < _SUM_TOLERANCE


def _is_constant(scores: Tensor) -> bool:
    """Whether all rows are the same, as an untrained network's may be; they decide nothing."""
    return float((scores - scores[:1]).abs().max()) < _SUM_TOLERANCE


def _is_within_0_and_1(scores: Tensor) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _refuse_as_logits(scores: str, setting: str) -> NoReturn:
    raise SettingsError(
        f"the network gives {scores}, and handler.output says logits. Probabilities made of these "
        "would be wrong; accepted: a network that gives logits, the scores before that, or "
        f"{setting}"
    )


def _refuse_output(reader: ScoreReader, scores: str, more: str = "") -> NoReturn:
    raise SettingsError(
        f"the network gives {scores}, and handler.output says {reader.output} of a "
        f"{reader.task} network; accepted: handler.output=logits for a network without softmax or "
        f"sigmoid at its end{more}"
    )
