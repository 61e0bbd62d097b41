"""Runs a network on a batch and checks that it returns class scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError, describe_exception
from camserve.networks.gradient_mode import GradientsStayOn
from camserve.networks.outputs import ScoreReader, describe_output

Recorded = TypeVar("Recorded")


def run_network(network: nn.Module, photos: Tensor) -> Any:
    """Run a network without recording gradients.

    Args:
        network: in eval mode.
        photos: (N, channels, H, W), normalised, on its device.

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
        reason = describe_exception(failure)
    raise SettingsError(
        f"the network fails on a batch of shape {tuple(photos.shape)}: {reason}; "
        f"{_accepted_input(network, photos)}"
    )


def _accepted_input(network: nn.Module, photos: Tensor) -> str:
    """What a network that fails on photos (N, channels, H, W) could be given instead."""
    channels = photos.shape[1]
    others = 1 if channels == 3 else 3
    with suppress(Exception, SystemExit), torch.no_grad():
        # Any layer may be the one that counts channels; whether the network runs tells for all.
        network(photos.new_zeros(len(photos), others, *photos.shape[2:]))
        values = "one value" if others == 1 else "three values"
        return (
            f"it runs on {others} channel{'s' if others > 1 else ''}; accepted: "
            f"handler.preprocess.channels={others} (--set), with {values} each for "
            "handler.preprocess.mean and .std"
        )
    return (
        f"accepted: a network that takes photos (N, {channels}, height, width) alone, with "
        "handler.preprocess.channels 3 or 1 and handler.preprocess.crop for its input's size, and "
        f"gives scores (N, classes){_alone_hint(len(photos))}"
    )


def _alone_hint(batch_size: int) -> str:
    if batch_size == 1:
        return ""
    return ". A network that takes one photo at a time is served with --set handler.batching=alone"


@contextmanager
def recorded_outputs(
    layers: Mapping[str, nn.Module], of: Callable[[Tensor], Recorded]
) -> Iterator[dict[str, list[Recorded]]]:
    """A context that records the tensors which layers return.

    Args:
        layers: by name.
        of: what to record of each tensor; the next module may change it in place.

    Yields:
        By name, what was recorded, for each call of the layer in turn.
    """
    outputs: dict[str, list[Recorded]] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs.setdefault(name, []).append(of(output))

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(record(name)).remove)
        yield outputs


def layer_gradient(network: nn.Module, layer: nn.Module, photo: Tensor) -> Tensor | None:
    """The gradient of a random sum of the class scores with respect to a layer's output.

    Args:
        network: in eval mode; it returns class scores.
        layer: one of its modules, which is called once and returns a tensor.
        photo: (1, C, H, W).

    Returns:
        Of the output's shape; None where the scores do not depend on it.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().clone().requires_grad_())
        # The next module may change it in place.
        return leaves[-1].clone()

    hook = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad(), GradientsStayOn():
            scores = network(photo.clone())
    finally:
        hook.remove()
    if not scores.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(scores.shape, generator=generator).to(scores)
    (gradient,) = torch.autograd.grad((weights * scores).sum(), leaves, allow_unused=True)
    return gradient


def class_scores(reader: ScoreReader, returned: Any, batch_size: int) -> Tensor:
    """The class scores (N, C) in what a network returned, as they are, in float64.

    Args:
        reader: of the network's scores.
        returned: by the network, for a batch.
        batch_size: N, the number of photos in the batch.

    Raises:
        SettingsError: they are no floating-point tensor (N, C), or C is not what the task needs.
    """
    try:
        scores = reader.scores(returned)
        fits = scores.ndim == 2 and len(scores) == batch_size and scores.is_floating_point()
    except (AttributeError, IndexError, KeyError, TypeError):
        # For a batch the network returns something else than for a photo.
        fits = False
    if not fits:
        raise SettingsError(
            "the network must give class scores of shape (N, C), a tensor of floating-point "
            f"numbers; for a batch of {batch_size} it gives: {describe_output(returned)}"
            f"{_alone_hint(batch_size)}"
        )
    count = scores.shape[1]
    if reader.task == "multiclass" and count < 2:
        raise SettingsError(
            f"the network gives {count} score for a photo, and the probability of a single class "
            "is always 1; accepted: two classes or more, or for yes or no handler.task=binary "
            "(--set), with the labels of no and of yes"
        )
    if reader.task == "binary" and count != 1:
        raise SettingsError(
            f"handler.task is binary, for a network of one score, and this one gives {count} for a "
            "photo; accepted: handler.task=multiclass where one class of these is right, "
            "multilabel where any number is"
        )
    return scores.double()
