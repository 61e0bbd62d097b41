"""What a network returns -> class scores (N, C), logits for a softmax or a sigmoid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from camserve.errors import SettingsError
from camserve.settings import OutputKind, Task

#: The least probability that is told apart from 0, and the least distance from 1: of float32.
_MIN_PROBABILITY: Final = 1e-37
_EPSILON: Final = 2.0**-24


@dataclass(frozen=True)
class ScoreReader:
    """Finds the class scores in what a network returns, and brings them to logits.

    Attributes:
        task: ``multiclass`` and ``multilabel`` networks give a score for each class, ``binary``
            ones a single score, of the second of two classes.
        output: what the scores are: logits, probabilities, or the logarithms of probabilities.
        keys: the names and indices that lead to the scores in what the network returns.
        axes: the number of the scores' axes.
    """

    task: Task
    output: OutputKind
    keys: tuple[str | int, ...] = ()
    axes: int = 2

    @classmethod
    def find(cls, task: Task, output: OutputKind, classes: int, returned: Any) -> ScoreReader:
        """The reader for networks that return values of this form.

        The scores are the returned tensor itself, or in a mapping, dataclass, tuple or list the
        tensor named ``logits``, else the only one of the expected shape: a row for each photo, with
        as many scores as the classes ask for, or else with any number.

        Args:
            task, output: as of the class.
            classes: the number of labels.
            returned: what the network returns for a photo.

        Raises:
            SettingsError: there is no such tensor, or there are several.
        """
        count = 1 if task == "binary" else classes
        tensors = [(keys, value) for keys, value in _tensors(returned) if _score_count(value, task)]
        for choice in (
            [one for one in tensors if one[0] in ((), ("logits",))],
            [one for one in tensors if _score_count(one[1], task) == count],
            tensors,
        ):
            if len(choice) == 1:
                ((keys, value),) = choice
                return cls(task, output, keys, value.ndim)
        raise SettingsError(
            f"the network must give class scores of shape (N, {count}), alone or as 'logits'; for "
            f"a photo it gives: {describe_output(returned)}. Wrap it in a module that returns the "
            "scores alone, and package that as module:callable:\n"
            "    class Scores(torch.nn.Module):\n"
            "        def __init__(self):\n"
            "            super().__init__()\n"
            "            self.network = build()\n"
            "        def forward(self, photos):\n"
            f"            return {_example_choice(returned)}"
        )

    def attach(self, network: nn.Module) -> RemovableHandle:
        """Make a network return logits (N, C), whatever its forward returns."""
        return network.register_forward_hook(
            lambda module, args, output: self.logits(self.scores(output))
        )

    def scores(self, returned: Any) -> Tensor:
        """The scores in what the network returned, as they are: (N, C), or (N, 1) of ``binary``."""
        for key in self.keys:
            returned = (
                getattr(returned, key)
                if isinstance(key, str) and not isinstance(returned, Mapping)
                else returned[key]
            )
        scores: Tensor = returned
        if self.axes == 1:
            return scores.unsqueeze(1)
        return scores if self.axes == 2 else scores.flatten(1)

    def logits(self, scores: Tensor) -> Tensor:
        """Scores as :meth:`scores` gives them -> logits (N, C).

        A softmax of them gives a multiclass network's probabilities, a sigmoid those of others.
        Logarithms of probabilities are such logits for the softmax; for the sigmoid those of the
        odds are. A binary network's score s becomes (-s, s).
        """
        if self.output == "probabilities":
            if self.task == "multiclass":
                return scores.clamp_min(_MIN_PROBABILITY).log()
            # Nearer to 1 a float32 sigmoid is 1, and its own gradient zero.
            odds = scores.clamp_min(_MIN_PROBABILITY).log() - (1 - scores).clamp_min(_EPSILON).log()
        elif self.output == "log_probabilities" and self.task != "multiclass":
            odds = scores - (-scores.clamp_max(-_EPSILON).expm1()).log()
        else:
            odds = scores
        return torch.cat([-odds, odds], dim=1) if self.task == "binary" else odds


def describe_output(output: Any, depth: int = 2) -> str:
    """An output's type, with the shapes of the tensors in it."""
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} tensor {tuple(output.shape)}"
    name = type(output).__name__
    named = _named_values(output)
    if depth and named:
        parts = [f"{key}: {describe_output(value, depth - 1)}" for key, value in named.items()]
    elif depth and isinstance(output, list | tuple):
        parts = [describe_output(value, depth - 1) for value in output]
    else:
        return name
    shown = ", ".join(parts[:5]) + (", .." if len(parts) > 5 else "")
    return f"{name} of {len(parts)} ({shown})"


def _named_values(output: Any) -> dict[str, Any]:
    """The values of a mapping, a dataclass or a named tuple, by name."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if is_dataclass(output) and not isinstance(output, type):
        return dict(vars(output))
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return dict(output._asdict())
    return {}


def _tensors(output: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Tensor]]:
    """All tensors in an output, each with the names and indices that lead to it."""
    if isinstance(output, Tensor):
        yield keys, output
    elif named := _named_values(output):
        for name, value in named.items():
            yield from _tensors(value, (*keys, name))
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            yield from _tensors(value, (*keys, index))


def _score_count(value: Tensor, task: Task) -> int:
    """C of scores (N, C) or (N, C, 1, ..) of one photo, in floating point; 0 for other tensors.

    A binary network's may have no axis for its only score.
    """
    if not value.is_floating_point() or len(value.shape) == 0 or value.shape[0] != 1:
        return 0
    if value.ndim == 1:
        return int(task == "binary")
    return value.shape[1] if value.numel() == value.shape[1] else 0


def _example_choice(output: Any) -> str:
    named = _named_values(output)
    if named:
        return f"self.network(photos)[{next(iter(named))!r}]"
    return "self.network(photos)[0]" if isinstance(output, list | tuple) else "self.network(photos)"
