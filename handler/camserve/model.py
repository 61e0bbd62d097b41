"""Loads an unpacked archive: its settings, and its network, accelerated, hooked and warmed up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from camserve.errors import RequestError, SettingsError, describe_exception
from camserve.explain import (
    ExplanationRequest,
    HookedNetwork,
    parse_condition,
    required_layers,
    resolve_targets,
)
from camserve.images import enable_decoders
from camserve.networks import (
    AccelerationResult,
    GridLayout,
    Labels,
    Network,
    ScoreReader,
    accelerate,
    check_network,
    get_layer,
    linear_head_biases,
    run_network,
)
from camserve.runtime import release_memory, worker_threads
from camserve.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to answer requests.

    Attributes:
        settings: of the operator.
        network: the classifier.
        forward_paths: the same network in several forms, the fastest first, each with hooks on the
            layers that it can explain.
        layouts: by served layer, how its output is a grid over the photo.
        acceleration: how the first of the forward paths runs.
        batch_size: the largest number of photos in a forward pass.
        threads: of a worker, to run the network in and to decode and draw pictures.
    """

    settings: Settings
    network: Network
    forward_paths: tuple[HookedNetwork, ...]
    layouts: Mapping[str, GridLayout]
    acceleration: AccelerationResult
    batch_size: int
    threads: int

    def select_path(self, request: ExplanationRequest) -> HookedNetwork:
        """The fastest forward path that has every layer that a request needs."""
        layers = set(required_layers([request]))
        return next(path for path in self.forward_paths if layers <= path.layouts.keys())

    @classmethod
    def load(cls, config: Mapping[str, Any], directory: Path, device: torch.device) -> LoadedModel:
        """Load an unpacked archive, accelerate its network and register the hooks.

        When it returns, every kernel that a batch of up to ``batchSize`` photos needs is built.
        It sets the number of threads that PyTorch uses in this process.

        Args:
            config: the parsed model-config.yaml.
            directory: of the archive's files.
            device: to run the network on.

        Raises:
            SettingsError: a setting, a file or a layer does not fit; the message names it.
        """
        settings = Settings.from_yaml(config)
        enable_decoders(settings.formats)
        batch_size, workers = config.get("batchSize", 1), config.get("maxWorkers", 1)
        if settings.batching == "alone":
            batch_size = 1
        threads = worker_threads(settings.threads, workers)
        torch.set_num_threads(threads)
        network = Network.load(settings, directory, device)
        release_memory()
        example, other = (network.example(settings.preprocess.input_size, seed) for seed in (0, 1))
        # A network that would be explained wrongly stops the load. A network that cannot be
        # accelerated does not.
        reader = ScoreReader.find(
            settings.task,
            settings.output,
            len(network.labels),
            run_network(network.module, example),
        )
        layouts = {layer: settings.layout_of(layer) for layer in settings.served}
        checked = check_network(network.module, reader, layouts, example, other, batch_size)
        reader.attach(network.module)
        settings = _check_classes(settings, network.labels, checked.classes)
        modules = {layer: get_layer(network.module, layer) for layer in settings.served}
        biases = linear_head_biases(network.module, modules, checked.layouts, example, other)
        acceleration = accelerate(
            network.module,
            settings.layer,
            example,
            batch_size=batch_size,
            threads=threads,
            precision=settings.precision,
            compile=settings.compile,
        )
        accelerated = acceleration.network
        forward_paths = []
        if accelerated is not None:
            layers = {settings.layer: accelerated.layer}
            forward_paths.append(
                HookedNetwork(
                    accelerated,
                    layers,
                    example,
                    checked.layouts,
                    bfloat16=acceleration.precision == "bfloat16",
                    biases=biases,
                )
            )
        if accelerated is None or len(settings.served) > 1:
            forward_paths.append(
                HookedNetwork(
                    network.module, settings.served, example, checked.layouts, biases=biases
                )
            )
        else:
            # Frees the original network, which no layer needs.
            network = replace(network, module=accelerated)
        for path in forward_paths:
            _warm_up(path, example, batch_size, network.memory_format)
        release_memory()
        reason = acceleration.fallback_reason
        logger.info(
            "%s on %s, %d classes, layers %s, %s, %s%s, %d threads",
            settings.arch, device, len(network.labels), ", ".join(settings.served),
            acceleration.precision, "compiled" if acceleration.compiled else "eager",
            f" ({reason})" if reason else "", threads,
        )  # fmt: skip
        return cls(
            settings,
            network,
            tuple(forward_paths),
            checked.layouts,
            acceleration,
            batch_size,
            threads,
        )


def _check_classes(settings: Settings, labels: Labels, classes: int) -> Settings:
    """Check labels and the default target against the number of class scores.

    Returns:
        The settings, with the default ``top_k`` limited to that number.

    Raises:
        SettingsError: there is not a label for each class, or the default target names none.
    """
    if settings.task == "binary" and len(labels) != 2:
        raise SettingsError(
            f"handler.task is binary, and {settings.labels} names {len(labels)}; accepted: two "
            "labels (--labels), of no and of yes, which the network's score is for"
        )
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
    try:
        if defaults.explain_when is not None:
            parse_condition(defaults.explain_when, labels)
    except RequestError as error:
        raise SettingsError(f"handler.defaults.explain_when: {error.message}") from None
    defaults = defaults.model_copy(update={"top_k": min(defaults.top_k, classes)})
    return settings.model_copy(update={"defaults": defaults})


def _warm_up(
    path: HookedNetwork, example: torch.Tensor, batch_size: int, memory_format: torch.memory_format
) -> None:
    """Run every batch size forward and backward: kernels are built for each input shape.

    Raises:
        SettingsError: the network fails on a batch of some size, or has not a row of scores for
            each of its photos.
    """
    for size in range(1, batch_size + 1):
        batch = example.expand(size, -1, -1, -1)
        smaller = f"--set batchSize={size - 1}, " if size > 1 else ""
        accepted = (
            f"accepted: a network that takes any number of photos, {smaller}or --set "
            "handler.batching=alone"
        )
        try:
            output = path.forward(
                batch.contiguous(memory_format=memory_format), [*path.layouts][:1]
            )
            torch.autograd.grad(output.logits.sum(), list(output.activations.values()))
        except SettingsError:
            raise
        except (Exception, SystemExit) as failure:
            # Of somebody's forward, or for want of memory.
            raise SettingsError(
                f"the network fails on a batch of {size}: {describe_exception(failure)}; {accepted}"
            ) from None
        rows = len(output.logits)
        if rows != size:
            raise SettingsError(
                f"the network gives scores of {rows} photos for a batch of {size}; {accepted}"
            )
