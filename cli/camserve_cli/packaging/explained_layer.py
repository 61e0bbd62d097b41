"""The layer that an archive explains by default, found in the network that is packaged."""

from __future__ import annotations

import torch
from torch import nn

from camserve.errors import SettingsError, describe_exception
from camserve.networks import ScoreReader, default_layer, run_network
from camserve.settings import Settings


def find_layer(network: nn.Module, settings: Settings, classes: int) -> str:
    """The name of the layer that the literature explains.

    Args:
        network: in eval mode, with its weights, which stay as they are. Its parameters are frozen.
        settings: of its input and its scores.
        classes: the number of labels.

    Raises:
        SettingsError: the network fails, or has no such layer.
    """
    shape = (2, settings.preprocess.channels, *settings.preprocess.input_size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    photo, other = noise[:1], noise[1:]
    returned = run_network(network, photo)
    reader = ScoreReader.find(settings.task, settings.output, classes, returned)
    zeros = [parameter for parameter in network.parameters() if not parameter.any()]
    try:
        handle = reader.attach(network)
        try:
            return default_layer(network, photo, other)
        finally:
            handle.remove()
    except SettingsError:
        raise
    except Exception as failure:
        # It bears no hooks, as what torch.jit.script makes, or fails when it is run again.
        raise SettingsError(
            "the layer to explain cannot be looked for in the network: "
            f"{describe_exception(failure)}; accepted: --layer NAME"
        ) from None
    finally:
        # The search gives those values, as they pass no gradient.
        for parameter in zeros:
            with torch.no_grad():
                parameter.zero_()
