"""The network that is measured everywhere, and the archives that the two servers load it from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import ResNet50_Weights

from devtools.errors import SetupError

CLASSES = 1000
BATCH_SIZE = 8

# TorchServe's eager mode needs a module with one class that is constructed without arguments.
_MODEL_FILE = """\
from torch import nn
from torchvision import models


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = models.get_model({arch!r}, num_classes={classes})

    def forward(self, inputs):
        return self.network(inputs)
"""
_STOCK_CONFIG = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": BATCH_SIZE,
    "maxBatchDelay": 10,
    "responseTimeout": 300,
}


@dataclass(frozen=True)
class SeededWeights:
    """A network's random weights.

    Attributes:
        arch: torchvision's name of the network.
        state: its state dict.
        file: the same as a .safetensors file.
    """

    arch: str
    state: dict[str, Tensor]
    file: Path

    def build(self) -> nn.Module:
        """The network with these weights, in eval mode, float32, as torchvision lays it out."""
        network: nn.Module = models.get_model(self.arch, num_classes=CLASSES)
        network.load_state_dict(self.state)
        return network.eval()


def seeded_weights(arch: str, folder: Path) -> SeededWeights:
    """Random weights, the same on every run; batch norms are as torchvision initializes them.

    Raises:
        SetupError: torchvision has no such classifier.
    """
    torch.manual_seed(0)
    try:
        network: nn.Module = models.get_model(arch, num_classes=CLASSES)
    except ValueError as failure:
        raise SetupError(f"--arch {arch}: {failure}") from None
    state = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    folder.mkdir(exist_ok=True)
    file = folder / f"{arch}.safetensors"
    save_file(state, file)
    return SeededWeights(arch, state, file)


def camserve_archive(weights: SeededWeights, settings: Sequence[str], store: Path) -> Path:
    """Our archive ``ours.mar``, packaged by `camserve package`.

    Args:
        settings: values of its ``--set`` options.

    Raises:
        SetupError: it failed; with its message.
    """
    _run(
        [
            *(sys.executable, "-P", "-m", "camserve_cli", "package", "--name", "ours"),
            *("--store", store),
            *("--arch", weights.arch, "--weights", weights.file),
            *(f"--set={setting}" for setting in (f"batchSize={BATCH_SIZE}", *settings)),
        ]
    )
    return store / "ours.mar"


def stock_archive(weights: SeededWeights, store: Path, folder: Path) -> Path:
    """An archive ``stock.mar`` of TorchServe's ``image_classifier``, in eager mode as its examples.

    Args:
        folder: for the files that go into it.

    Raises:
        SetupError: torch-model-archiver failed; with its message.
    """
    files = {
        "model.py": _MODEL_FILE.format(arch=weights.arch, classes=CLASSES),
        "index_to_name.json": json.dumps(
            dict(enumerate(ResNet50_Weights.DEFAULT.meta["categories"]))
        ),
        "model-config.yaml": yaml.safe_dump(_STOCK_CONFIG),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    state = {f"network.{name}": value for name, value in weights.state.items()}
    torch.save(state, folder / "weights.pth")
    scratch = folder / "archiver"
    scratch.mkdir()
    store.mkdir(parents=True, exist_ok=True)
    _run(
        [
            Path(sys.executable).parent / "torch-model-archiver",
            *("--model-name", "stock"),
            *("--version", "1.0"),
            *("--handler", "image_classifier"),
            *("--model-file", folder / "model.py"),
            *("--serialized-file", folder / "weights.pth"),
            *("--extra-files", folder / "index_to_name.json"),
            *("--config-file", folder / "model-config.yaml"),
            *("--export-path", store),
            *("--archive-format", "zip-store"),
        ],
        # The archiver works in, and deletes, a folder of the model's name in TMPDIR.
        {"TMPDIR": str(scratch)},
    )
    return store / "stock.mar"


def with_batch_delay(archive: Path, delay: int) -> Path:
    """A copy of an archive, beside it, with another ``maxBatchDelay`` in ms."""
    copy = archive.with_name(f"{archive.stem}-{delay}.mar")
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(copy, "w") as written:
        for entry in packed.infolist():
            content = packed.read(entry)
            if entry.filename == "model-config.yaml":
                content = yaml.safe_dump(
                    {**yaml.safe_load(content), "maxBatchDelay": delay}, sort_keys=False
                ).encode()
            written.writestr(entry, content)
    return copy


def batch_delay(archive: Path) -> int:
    """An archive's ``maxBatchDelay`` in ms."""
    with zipfile.ZipFile(archive) as packed:
        return int(yaml.safe_load(packed.read("model-config.yaml"))["maxBatchDelay"])


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, as TorchServe does for a worker."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def _run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SetupError(f"{Path(command[0]).name}: {(done.stderr or done.stdout).strip()}")
