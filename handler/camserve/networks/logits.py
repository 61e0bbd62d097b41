"""Checks that a network's scores are what the settings say: logits, probabilities, or logarithms.

As something else they would be explained, and told as probabilities, wrongly and without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.forward import class_scores, run_network
from camserve.networks.outputs import ScoreReader
from camserve.settings import Task

#: How far a sum of probabilities may be from 1, and its logarithm from 0; bfloat16 rounds to this.
_SUM_TOLERANCE: Final = 4e-3
#: How close to 0 a log-sigmoid comes for large scores.
_SATURATED: Final = 1e-2
#: The amplitudes of the noise that replaces a layer's activations, as multiples of their standard
#: deviation. Which one makes a head's scores leave [0, 1] depends on the head.
_NOISE_FACTORS: Final = (1.0, -1.0, 1e3, -1e3, 1e6, -1e6)
_ACCEPTED_OUTPUTS: Final = (
    "handler.output=logits for a network without softmax or sigmoid at its end, "
    "probabilities for one that ends in a softmax or sigmoid, log_probabilities for one that ends "
    "in a log-softmax or log-sigmoid"
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
            whatever the input; or they should be probabilities or their logarithms, and are not; or
            those of all classes together add up to 1, and each should have one of its own.
    """
    if reader.output == "logits":
        _check_logits(scores, reader.task, stress_scores)
    else:
        _check_probabilities(scores, reader, stress_scores())


def _check_logits(scores: Tensor, task: Task, stress_scores: Callable[[], Tensor]) -> None:
    softmax_task = "" if task == "multiclass" else "handler.task=multiclass with "
    if _is_within_0_and_1(scores):
        stressed = stress_scores()
        # A head that takes a root or a logarithm, or overflows, gives NaN or infinity for some.
        finite = stressed.isfinite()
        scores = torch.cat([scores, stressed[finite.all(dim=1)]])
        if not _is_within_0_and_1(stressed[finite]) or _is_constant(scores):
            return
        if scores.shape[1] > 1 and _add_up_to_1(scores):
            _refuse_as_logits(
                "probabilities that add up to 1: it ends in a softmax",
                f"{softmax_task}handler.output=probabilities for a network that ends in a softmax",
            )
        _refuse_as_logits(
            "values from 0 to 1 whatever it is shown: it ends in a sigmoid or the like",
            f"{'handler.task=multilabel with ' if task == 'multiclass' else ''}"
            "handler.output=probabilities for a network that ends in a sigmoid",
        )
    if scores.shape[1] > 1 and _are_log_probabilities(scores):
        scores = torch.cat([scores, _finite_rows(stress_scores())])
        if _are_log_probabilities(scores) and not _is_constant(scores):
            _refuse_as_logits(
                "logarithms of probabilities: it ends in a log-softmax",
                f"{softmax_task}handler.output=log_probabilities for it",
            )
    elif float(scores.max()) < 0:
        scores = torch.cat([scores, _finite_rows(stress_scores())])
        # Those of a log-sigmoid come close to 0, whatever they are of.
        if -_SATURATED < float(scores.max()) <= 0 and not _is_constant(scores):
            multilabel = "handler.task=multilabel with " if task == "multiclass" else ""
            _refuse_as_logits(
                "values that come up to 0 and never above, whatever it is shown: it ends in a "
                "log-sigmoid",
                f"{multilabel}handler.output=log_probabilities for it",
            )
    elif scores.shape[1] > 1 and _is_scaled_softmax(scores):
        scores = torch.cat([scores, _finite_rows(stress_scores())])
        if _is_scaled_softmax(scores) and not _is_constant(scores):
            total = float(scores[0].sum())
            _refuse_as_logits(
                f"values from 0 on that add up to {total:.4g} whatever it is shown: it ends in a "
                "softmax, which is scaled",
                "the softmax without the factor, and handler.output=probabilities, or a network "
                "that gives logits",
            )


def _is_scaled_softmax(scores: Tensor) -> bool:
    """Whether scores (N, C) are at least 0 and have the same sum in each row."""
    sums = scores.double().sum(1)
    same = bool((sums - sums[0]).abs().max() <= 1e-5 * sums[0].abs())
    return bool(scores.min() >= 0) and float(sums[0]) > 0 and same


def _check_probabilities(scores: Tensor, reader: ScoreReader, stressed: Tensor) -> None:
    in_logs = reader.output == "log_probabilities"
    every = torch.cat([scores, _finite_rows(stressed)])
    for values in (scores, every):
        low, high = float(values.min()), float(values.max())
        if high > (0 if in_logs else 1) + _SUM_TOLERANCE or (low < -_SUM_TOLERANCE and not in_logs):
            raise SettingsError(
                f"the network gives values from {low:.3g} to {high:.3g}, and handler.output says "
                f"{reader.output}; accepted: {_ACCEPTED_OUTPUTS}"
            )
    if reader.task == "binary":
        return
    if in_logs:
        scores, every = scores.exp(), every.exp()
    if reader.task == "multiclass" and not _add_up_to_1(scores):
        raise SettingsError(
            "the network gives probabilities that do not add up to 1 over the classes, and "
            "handler.task says multiclass; accepted: handler.task=multilabel for a network that "
            f"ends in a sigmoid for each class, or {_ACCEPTED_OUTPUTS}"
        )
    if reader.task == "multilabel" and _add_up_to_1(every) and not _is_constant(every):
        raise SettingsError(
            "the network gives probabilities that add up to 1 over the classes: it ends in a "
            "softmax, and handler.task says multilabel; accepted: handler.task=multiclass, as of "
            "the classes of a softmax one alone is right"
        )


def check_no_batch_softmax(batches: Sequence[Tensor], stress_scores: Callable[[], Tensor]) -> None:
    """Refuse scores that add up to 1 over the photos of a batch, for each class.

    Args:
        batches: the scores (N, C) of batches of photos.
        stress_scores: as of :func:`check_scores`, each row from a batch of one.
    """
    if not all(_is_within_0_and_1(scores) and _add_up_to_1(scores.T) for scores in batches):
        return
    # A sigmoid of single photos may be 1 as well, but not for all activations.
    if all(len(scores) == 1 for scores in batches) and not bool((stress_scores() == 1).all()):
        return
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


def _finite_rows(scores: Tensor) -> Tensor:
    """The rows of (M, C) without NaN and infinity, as some heads give for strong noise."""
    return scores[scores.isfinite().all(dim=1)]


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
        f"{setting} (--set)"
    )
