"""The networks and archives that the handler's tests share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from camserve.networks import build
from camserve.pipeline import Pipeline
from camserve_cli.packaging import pretrained
from tests.support import color_resnet, task_network

CONFIG = Path(__file__).parents[2] / "handler" / "model-config.yaml"

#: What serves :mod:`task_network`.
TASK_SECTION: dict[str, Any] = {
    "arch": "tests.support.task_network:build",
    "layer": "cells",
    "compile": "off",
    "precision": "float32",
    "preprocess": {"fit": "stretch", "crop": 64, "mean": [0, 0, 0], "std": [1, 1, 1]},
}

#: An unpacked archive: its parsed model-config.yaml and its directory.
Archive = tuple[dict[str, Any], Path]


@pytest.fixture(scope="session")
def make_archive(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Archive]:
    """Unpack an archive of the constructed ResNet50; keywords go over its ``handler:`` section.

    It is a narrow one, which loads in half the time; ``arch_kwargs={}`` makes it a usual one.
    """

    @cache
    def weights_of(items: tuple[tuple[str, Any], ...]) -> Path:
        weights, _ = color_resnet.write_archive_inputs(
            tmp_path_factory.mktemp("weights"), **dict(items)
        )
        return weights

    def make(labels: list[str] = color_resnet.LABELS, **section: Any) -> Archive:
        directory = tmp_path_factory.mktemp("archive")
        kwargs = section.setdefault("arch_kwargs", color_resnet.NARROW)
        (directory / "weights.safetensors").hardlink_to(weights_of(tuple(kwargs.items())))
        (directory / "labels.json").write_text(json.dumps(labels))
        config = yaml.safe_load(CONFIG.read_text())
        config["handler"] |= section
        (directory / "model-config.yaml").write_text(yaml.safe_dump(config))
        return config, directory

    return make


@pytest.fixture(scope="session")
def load(make_archive: Callable[..., Archive]) -> Callable[..., Pipeline]:
    """Load an archive of the constructed ResNet50; arguments as of ``make_archive``."""

    def load(*labels: list[str], **section: Any) -> Pipeline:
        config, directory = make_archive(*labels, **section)
        return Pipeline.load(
            config, directory, {"name": "colours", "version": "1.0"}, torch.device("cpu")
        )

    return load


@pytest.fixture(scope="session")
def load_task(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """Load an archive of :mod:`task_network`; keywords go over its ``handler:`` section."""

    def load(
        labels: Sequence[str] = task_network.LABELS, batch_size: int = 2, **section: Any
    ) -> Pipeline:
        directory = tmp_path_factory.mktemp("task")
        arch_kwargs = section.setdefault("arch_kwargs", {})
        state = task_network.build(**arch_kwargs).state_dict()
        save_file(state, directory / "weights.safetensors")
        (directory / "labels.json").write_text(json.dumps(list(labels)))
        config = yaml.safe_load(CONFIG.read_text()) | {"batchSize": batch_size}
        config["handler"] |= TASK_SECTION | section
        return Pipeline.load(
            config, directory, {"name": "task", "version": "1.0"}, torch.device("cpu")
        )

    return load


@pytest.fixture(scope="session")
def color_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    return load()


@pytest.fixture(scope="session")
def efficientnet_lite0() -> nn.Module:
    """The ImageNet CNN that a package carries, its parameters not frozen; copy it to hook it."""
    network = build(
        pretrained.FALLBACK_MODEL["arch"], pretrained.FALLBACK_MODEL["arch_kwargs"], 1000
    )
    network.load_state_dict(pretrained.read(pretrained.fallback_weights()))
    return network.eval()
