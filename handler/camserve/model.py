"""An unpacked archive -> a network with its hooks, made fast and warm."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from camserve.errors import RequestError, SettingsError
from camserve.explain.hooks import HookedNetwork
from camserve.explain.targets import resolve_targets
from camserve.networks import acceleration
from camserve.networks.acceleration import AccelerationResult
from camserve.networks.checks import check_network
from camserve.networks.classifier import Network
from camserve.runtime import cores, memory
from camserve.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """What answers a model's requests.

    Attributes:
        settings: of the operator.
        network: the classifier.
        forward_paths: through the network, the fastest first, each with the hooks of the layers
            that it can explain.
        fast: how the first of them runs.
        batch_size: how many photos share a forward pass at most.
        threads: that a worker computes, and decodes and draws pictures in.
    """

    settings: Settings
    network: Network
    forward_paths: tuple[HookedNetwork, ...]
    fast: AccelerationResult
    batch_size: int
    threads: int

    @classmethod
    def load(cls, config: Mapping[str, Any], directory: Path, device: torch.device) -> LoadedModel:
        """Load an unpacked archive, make its network fast and register the hooks.

        Every kernel that a batch of up to ``batchSize`` photos needs is built when it returns.

        Args:
            config: the parsed model-config.yaml.
            directory: of the archive's files.
            device: where the network runs.

        Raises:
            SettingsError: a setting, a file or a layer does not fit; the message names it.
        """
        settings = Settings.from_yaml(config)
        batch_size, workers = config.get("batchSize", 1), config.get("maxWorkers", 1)
        threads = cores.worker_threads(settings.threads, workers)
        torch.set_num_threads(threads)
        network = Network.load(settings, directory, device)
        memory.release_memory()
        example, other = (network.example(settings.preprocess.crop, seed) for seed in (0, 1))
        # A network that would be explained wrongly stops the load; one that cannot be made fast
        # does not.
        check_network(network.module, settings.served, example, other, batch_size, settings.layout)
        fast = acceleration.accelerate(
            network.module,
            settings.layer,
            example,
            batch_size,
            threads,
            settings.precision,
            settings.compile,
        )
        ways = []
        if fast.cut is not None:
            place = {settings.layer: fast.cut.layer}
            ways.append(HookedNetwork(fast.cut, place, example))
        if fast.cut is None or len(settings.served) > 1:
            ways.append(HookedNetwork(network.module, settings.served, example))
        else:
            # What the fast trunk was made of is needed no more.
            network = replace(network, module=fast.cut)
        settings = _fitted(settings, network, ways[0].classes)
        for way in ways:
            _warm_up(way, example, batch_size, network.memory_format)
        memory.release_memory()
        logger.info(
            "%s on %s, %d classes, layers %s, %s, %s%s, %d threads",
            settings.arch, device, len(network.labels), ", ".join(settings.served),
            fast.precision, "compiled" if fast.compiled else "eager",
            f" ({fast.reason})" if fast.reason else "", threads,
        )  # fmt: skip
        return cls(settings, network, tuple(ways), fast, batch_size, threads)

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """(K, h, w) of each served layer's output, by name."""
        return {name: shape for way in self.forward_paths for name, shape in way.shapes.items()}


def _fitted(settings: Settings, network: Network, classes: int) -> Settings:
    """The operator's settings held to the network's classes; a default ``top_k`` is cut to them."""
    labels = network.labels
    if classes != len(labels):
        raise SettingsError(
            f"the network scores {classes} classes, but {settings.labels} names {len(labels)}; "
            "accepted: a label for each class (--labels; ImageNet's 1000 are the default)"
        )
    defaults = settings.defaults
    try:
        resolve_targets(labels, defaults.target, settings.limits.targets)
    except RequestError as error:
        raise SettingsError(f"handler.defaults.target: {error.message}") from None
    defaults = defaults.model_copy(update={"top_k": min(defaults.top_k, classes)})
    return settings.model_copy(update={"defaults": defaults})


def _warm_up(
    way: HookedNetwork, example: torch.Tensor, batch_size: int, memory_format: torch.memory_format
) -> None:
    """Have every kernel built: one is made for each shape that comes along."""
    for size in range(1, batch_size + 1):
        batch = example.expand(size, -1, -1, -1)
        scores = way.forward(batch.contiguous(memory_format=memory_format), [*way.shapes][:1])
        torch.autograd.grad(scores.logits.sum(), list(scores.activations.values()))
