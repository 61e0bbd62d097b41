"""A network of three colours whose scores and maps are known by hand, with any end and any task.

Layer ``cells`` has the means of red, green and blue in each square of 8 x 8 pixels. A photo half
red and half green has the logits 3, 3 and -4; :data:`WEIGHT` and :data:`BIAS` say those of others.
Its arguments are names, so that an archive's ``arch_kwargs`` can hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

LABELS: Final = ["red", "green", "blue"]
CELL: Final = 8
#: Of the classes' scores, by the means of red, green and blue; and of a binary network's score.
WEIGHT: Final = np.diag([14.0, 14.0, 14.0])
BINARY_WEIGHT: Final = np.array([[14.0, 0.0, -14.0]])
BIAS: Final = -4.0


class NamedScores(NamedTuple):
    """As GoogLeNet's outputs are, with its auxiliary heads'."""

    logits: Tensor
    aux: Tensor | None


@dataclass(slots=True)
class ScoresAndFeatures:
    """A dataclass without a dictionary of its attributes."""

    features: Tensor
    scores: Tensor


class Plain:
    """An object of no library's own kind."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


def up_to_fifteen(logits: Tensor) -> Tensor:
    """Logits of up to 15 photos; as of a loop over the samples, which is not traced."""
    if len(list(logits)) > 15:
        raise ValueError("too many photos")
    return logits


#: What the network makes of its logits.
ENDS: Final[Mapping[str, Callable[[Tensor], Any]]] = {
    "logits": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(1),
    "log_softmax": lambda logits: logits.log_softmax(1),
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "detached": lambda logits: logits.detach(),
    "data": lambda logits: logits.data,
    "minus_mean": lambda logits: logits - 0.5 * logits.mean(0),
    "one_by_one": lambda logits: logits.view(1, -1),
    "first_fifteen": lambda logits: torch.split(logits, 15),
    "up_to_fifteen": up_to_fifteen,
    "half": lambda logits: logits.half(),
    "double": lambda logits: logits.double(),
    "half_sigmoid": lambda logits: logits.half().sigmoid(),
    "double_sigmoid": lambda logits: logits.double().sigmoid(),
    "grid": lambda logits: logits[:, :, None, None],
    "squeezed": lambda logits: logits.squeeze(1),
    "tuple": lambda logits: (logits, logits[:, :1].expand(-1, 7)),
    "list": lambda logits: [logits],
    "dict": lambda logits: {"logits": logits, "features": logits},
    "out": lambda logits: {"out": logits, "loss": None},
    "by_number": lambda logits: {0: logits},
    "named_tuple": lambda logits: NamedScores(logits, logits),
    "dataclass": lambda logits: ScoresAndFeatures(logits[:, :1].expand(-1, 7), logits),
    "object": Plain,
    "nested": lambda logits: ({"out": {"logits": logits, "features": logits}}, [logits]),
}
_MODES: Final[Mapping[str, Callable[[], AbstractContextManager[Any]]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}


class TaskNetwork(nn.Module):
    """(N, 3, H, W) in [0, 1] -> whatever ``end`` makes of logits (N, 3), or (N, 1) if ``binary``.

    Args:
        end: one of :data:`ENDS`.
        binary: it gives one score.
        negated: times -1.
        mode: how it switches gradients off: a key of :data:`_MODES`, or ``statement`` for a call
            of ``torch.set_grad_enabled`` that nothing undoes.
        where: in which part: ``whole``, ``decorated``, ``trunk`` or ``head``.
        batch_norm: over the photos of a batch, without statistics.
    """

    def __init__(
        self,
        end: str = "logits",
        binary: bool = False,
        negated: bool = False,
        mode: str = "",
        where: str = "",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.end, self.mode, self.where = end, mode, where
        self.means = nn.Conv2d(3, 3, CELL, stride=CELL, bias=False)
        self.norm = (
            nn.BatchNorm2d(3, affine=False, track_running_stats=False)
            if batch_norm
            else nn.Identity()
        )
        self.cells = nn.ReLU()
        self.fc = nn.Linear(3, 1 if binary else 3)
        weight = torch.tensor(BINARY_WEIGHT if binary else WEIGHT).float()
        with torch.no_grad():
            self.means.weight.copy_(torch.eye(3)[:, :, None, None] / CELL**2)
            self.fc.weight.copy_(-weight if negated else weight)
            self.fc.bias.fill_(-BIAS if negated else BIAS)
        self.eval()

    def forward(self, photos: Tensor) -> Any:
        if self.mode == "statement":
            torch.set_grad_enabled(False)
        if self.where == "decorated":
            return _MODES[self.mode]()(self._scores)(photos)  # type: ignore[operator]
        with self._gradients_in("whole"):
            return self._scores(photos)

    def _scores(self, photos: Tensor) -> Any:
        with self._gradients_in("trunk"):
            cells = self.cells(self.norm(self.means(photos)))
        with self._gradients_in("head"):
            return ENDS[self.end](self.fc(cells.mean((2, 3))))

    def _gradients_in(self, part: str) -> AbstractContextManager[Any]:
        return _MODES[self.mode]() if part == self.where else nullcontext()


def build(**kwargs: Any) -> nn.Module:
    """The network; an archive's ``arch`` names this function."""
    return TaskNetwork(**kwargs)


def stripes(*colours: str, size: int = 64) -> NDArray[np.uint8]:
    """Vertical stripes of equal width, (size, size, 3): of red, green, blue or black."""
    values = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
    stripe = size // len(colours)
    return np.concatenate(
        [np.full((size, stripe, 3), values[colour], np.uint8) for colour in colours], axis=1
    )
