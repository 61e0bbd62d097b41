"""What a network returns -> class scores (N, C), logits for a softmax or a sigmoid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from camserve.errors import SettingsError, short_repr
from camserve.settings import OutputKind, Task, score_count

#: What the logarithm of 0 is taken of: the least number of float32.
_SMALLEST: Final = 1e-45
#: How deep scores may be nested in what a network returns.
_MAX_DEPTH: Final = 4


@dataclass(frozen=True)
class ScoreReader:
    """Finds the class scores in what a network returns, and brings them to logits.

    Attributes:
        task: ``multiclass`` and ``multilabel`` networks give a score for each class, ``binary``
            ones a single score, of the second of two classes.
        output: what the scores are: logits, probabilities, or the logarithms of probabilities.
        keys: the keys, attributes and indices that lead to the scores in what the network returns.
        axes: the number of the scores' axes.
        largest: the largest number in the scores' number format, and so of their gradient.
    """

    task: Task
    output: OutputKind
    keys: tuple[Any, ...] = ()
    axes: int = 2
    largest: float = torch.finfo(torch.float32).max

    @classmethod
    def find(cls, task: Task, output: OutputKind, classes: int, returned: Any) -> ScoreReader:
        """The reader for networks that return values of this form.

        The scores are the returned tensor itself. In a mapping, dataclass, tuple, list or other
        object they are the tensor named ``logits``, else the only one of the expected shape: a row
        for each photo, with as many scores as the classes ask for, or else with any number.

        Args:
            task, output: as of the class.
            classes: the number of labels.
            returned: what the network returns for a photo.

        Raises:
            SettingsError: there is no such tensor, or there are several.
        """
        count = score_count(task, classes)
        tensors = [(keys, value) for keys, value in _tensors(returned) if _score_count(value)]
        for choice in (
            [one for one in tensors if one[0] in ((), ("logits",))],
            [one for one in tensors if one[0][-1:] == ("logits",)],
            [one for one in tensors if _score_count(one[1]) == count],
            tensors,
        ):
            if len(choice) == 1:
                ((keys, value),) = choice
                return cls(task, output, keys, value.ndim, torch.finfo(value.dtype).max)
        raise SettingsError(
            f"the network must give class scores of shape (N, {count}), alone or as 'logits'; for "
            f"a photo it gives: {describe_output(returned)}. A function that builds it and picks "
            "the scores can be packaged, as --arch FILE.py:build_scores. build() makes the network "
            "as it is; the weights stay as they are:\n"
            "    def build_scores():\n"
            "        def scores(network, photos, output):\n"
            f"            return {_example_choice(returned, count)}\n"
            "        network = build()\n"
            "        network.register_forward_hook(scores)\n"
            "        return network"
        )

    def attach(self, network: nn.Module) -> RemovableHandle:
        """Make a network return logits (N, C), whatever its forward returns."""
        return network.register_forward_hook(
            lambda module, args, output: self.logits(self.scores(output))
        )

    def scores(self, returned: Any) -> Tensor:
        """The scores in what the network returned, as they are: (N, C), or (N, 1) of ``binary``."""
        for key in self.keys:
            returned = getattr(returned, key) if _is_attribute(returned) else returned[key]
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
        if self.output != "logits":
            # In float64 the distance of a float32 probability from 1 is exact.
            scores = self._log_odds(scores.double())
        return torch.cat([-scores, scores], dim=1) if self.task == "binary" else scores

    def _log_odds(self, scores: Tensor) -> Tensor:
        """Probabilities or their logarithms, in float64, as logits."""
        logs = scores if self.output == "log_probabilities" else self._log(scores)
        if self.task == "multiclass":
            return logs
        complement = -scores.expm1() if self.output == "log_probabilities" else 1 - scores
        return logs - self._log(complement)

    def _log(self, values: Tensor) -> Tensor:
        """The logarithm of values from 0 to 1, finite.

        Its gradient is finite in the scores' number format, too: 0 where it would be larger.
        """
        bounded = values.clamp_min(1 / self.largest).log()
        return bounded + (values.clamp_min(_SMALLEST).log() - bounded).detach()


def describe_output(output: Any, depth: int = 2) -> str:
    """An output's type, with the shapes of the tensors in it."""
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} tensor {tuple(output.shape)}"
    name, parts = type(output).__name__, _parts(output)
    if not depth or not parts:
        return name
    by_index = not isinstance(output, Mapping) and not _is_attribute(output)
    texts = [
        ("" if by_index else f"{key if isinstance(key, str) else short_repr(key)}: ")
        + describe_output(value, depth - 1)
        for key, value in parts[:5]
    ]
    shown = ", ".join(texts) + (", .." if len(parts) > 5 else "")
    return f"{name} of {len(parts)} ({shown})"


def _parts(output: Any) -> list[tuple[Any, Any]]:
    """The values in an output, each with its key, index or attribute's name; of a tensor, none."""
    if isinstance(output, Tensor | str | bytes | type | nn.Module):
        return []
    if isinstance(output, Mapping):
        return list(output.items())
    if is_dataclass(output):
        return [(field.name, getattr(output, field.name, None)) for field in fields(output)]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return list(zip(output._fields, output, strict=True))
    if isinstance(output, list | tuple):
        return list(enumerate(output))
    return list(getattr(output, "__dict__", {}).items())


def _is_attribute(output: Any) -> bool:
    """Whether the values in an output are its attributes, and not its items."""
    if isinstance(output, Mapping | list):
        return False
    return not isinstance(output, tuple) or hasattr(output, "_fields")


def _tensors(output: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """All tensors in an output, each with what leads to it."""
    if isinstance(output, Tensor):
        yield keys, output
    elif len(keys) < _MAX_DEPTH:
        for key, value in _parts(output):
            yield from _tensors(value, (*keys, key))


def _score_count(value: Tensor) -> int:
    """C of scores (N, C) or (N, C, 1, ..) of one photo, in floating point; 0 for other tensors.

    A single score may have no axis of its own: (N,).
    """
    if not value.is_floating_point() or value.ndim == 0 or len(value) != 1:
        return 0
    return value.numel() if value.numel() == (*value.shape, 1)[1] else 0


def _example_choice(output: Any, count: int) -> str:
    """The expression for the tensor of an output that looks most like ``count`` class scores."""
    tensors = list(_tensors(output))
    for choice, reshaped in (
        ([keys for keys, value in tensors if _score_count(value) == count], ""),
        ([keys for keys, value in tensors if _score_count(value)], ""),
        # Its photos stand along the second axis.
        ([keys for keys, value in tensors if tuple(value.shape) == (count, 1)], ".T"),
        (
            [
                keys
                for keys, value in tensors
                if value.is_floating_point() and value.numel() == count
            ],
            f".reshape(-1, {count})",
        ),
    ):
        if choice:
            return f"output{_access(output, choice[0])}{reshaped}"
    return f"...  # (N, {count}), made of output"


def _access(output: Any, keys: tuple[Any, ...]) -> str:
    """The code that leads to a value in an output."""
    code = ""
    for key in keys:
        code += f".{key}" if _is_attribute(output) else f"[{key!r}]"
        output = dict(_parts(output))[key]
    return code
