"""Pictures of a set, and the network that is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from devtools.shortcuts.marks import DrawMarked
from devtools.shortcuts.networks import small_cnn
from devtools.shortcuts.pictures import CLASSES, Pixels, draw_scene

BATCH: Final = 64
LEARNING_RATE: Final = 1e-2
#: Training ends where the network is right on this share of pictures that it was not trained on.
ENOUGH: Final = 0.95


@dataclass(frozen=True)
class Planted:
    """What gives some classes away.

    Attributes:
        classes: their indices.
        draw: a scene with the mark.
        share: of their pictures that carry it.
    """

    classes: tuple[int, ...]
    draw: DrawMarked
    share: float


@dataclass(frozen=True)
class Pictures:
    """Pictures (N, size, size, 3) RGB, their classes (N,), and which carry the mark (N,)."""

    pixels: Pixels
    classes: NDArray[np.int64]
    marked: NDArray[np.bool_]

    def inputs(self) -> Tensor:
        """(N, 3, size, size), normalized as the archive does it."""
        return (torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def draw_pictures(
    count: int, classes: int, size: int, planted: Planted | None, generator: np.random.Generator
) -> Pictures:
    """As many pictures of each class as of another."""
    labels = np.arange(count) % classes
    pixels, marked = [], []
    for label in labels.tolist():
        scene = draw_scene(CLASSES[label], size, generator)
        mark = (
            planted is not None and label in planted.classes and generator.random() < planted.share
        )
        pixels.append(planted.draw(scene, generator) if planted and mark else scene.picture())
        marked.append(mark)
    return Pictures(np.stack(pixels), labels, np.array(marked))


def train(
    pictures: Pictures,
    held_out: Pictures,
    classes: int,
    seed: int,
    epochs: int = 14,
    build: Callable[[int], nn.Module] = small_cnn,
) -> tuple[nn.Module, float]:
    """Train a network from scratch.

    Returns:
        It, in eval mode, and its accuracy on ``held_out``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(classes).to(memory_format=torch.channels_last)
        inputs = pictures.inputs().contiguous(memory_format=torch.channels_last)
        targets = torch.from_numpy(pictures.classes)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=epochs * (len(inputs) // BATCH)
        )
        accuracy = 0.0
        for _ in range(epochs):
            network.train()
            order = torch.randperm(len(inputs))
            for begin in range(0, len(inputs) - BATCH + 1, BATCH):
                batch = order[begin : begin + BATCH]
                optimizer.zero_grad()
                loss = functional.cross_entropy(network(inputs[batch]), targets[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            network.eval()
            accuracy = _accuracy(network, held_out)
            if accuracy >= ENOUGH:
                break
    return network, accuracy


@torch.inference_mode()
def _accuracy(network: nn.Module, pictures: Pictures) -> float:
    predicted = network(pictures.inputs()).argmax(dim=1).numpy()
    return float((predicted == pictures.classes).mean())
