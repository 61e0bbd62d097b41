"""Runs a network on a batch and checks that it returns class scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError, describe_exception


def run_network(network: nn.Module, photos: Tensor) -> Any:
    """Run a network without recording gradients.

    Args:
        network: in eval mode.
        photos: (N, 3, H, W), normalised, on its device.

    Returns:
        Whatever its forward returns.

    Raises:
        SettingsError: its forward raises an exception; the message names it and its source line.
    """
    try:
        with torch.no_grad():
            # A copy: a network may change its input in place.
            return network(photos.clone())
    except (Exception, SystemExit) as failure:
        # A forward written by others may raise any exception.
        hint = " A network that takes one photo at a time is served with --set batchSize=1"
        raise SettingsError(
            f"the network fails on a batch of shape {tuple(photos.shape)}: "
            f"{describe_exception(failure)}; accepted: a network that takes photos "
            "(N, 3, height, width) alone and gives scores (N, classes)."
            f"{hint if len(photos) > 1 else ''}"
        ) from None


def class_scores(output: Any, batch_size: int) -> Tensor:
    """A network's output as scores (N, C) in float64.

    Args:
        output: what the network returned for a batch.
        batch_size: N, the number of photos in the batch.

    Raises:
        SettingsError: it is no floating-point tensor (N, C), or C is 1.
    """
    if (
        not isinstance(output, Tensor)
        or output.ndim != 2
        or len(output) != batch_size
        or not output.is_floating_point()
    ):
        raise SettingsError(
            "the network must give class scores of shape (N, C), a tensor of floating-point "
            f"numbers; for a batch of {batch_size} it gives: {_describe(output)}. Wrap it in a "
            "module that returns the scores alone, and package that as module:callable"
        )
    if output.shape[1] < 2:
        raise SettingsError(
            f"the network gives {output.shape[1]} score for a photo, and the probability of a "
            "single class is always 1; accepted: two classes or more. Of one logit s for yes or "
            "no, torch.cat([torch.zeros_like(s), s], dim=1) makes two"
        )
    return output.double()


def _describe(output: Any, depth: int = 2) -> str:
    """An output's type, with the shapes of the tensors in it."""
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} tensor {tuple(output.shape)}"
    name = type(output).__name__
    if is_dataclass(output) and not isinstance(output, type):
        output = vars(output)
    if depth and isinstance(output, Mapping):
        parts = [f"{key}: {_describe(value, depth - 1)}" for key, value in [*output.items()][:5]]
    elif depth and isinstance(output, list | tuple):
        parts = [_describe(value, depth - 1) for value in output[:5]]
    else:
        return name
    return f"{name} of {len(output)} ({', '.join(parts)})"
