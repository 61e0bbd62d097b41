"""Why weights do not fit a network, in the words of the person who gave them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from torch import Size

from camserve.settings import Task, score_count
from camserve_cli.packaging.checkpoint import quantised
from camserve_cli.packaging.known_architectures import torchvision_name_of
from camserve_cli.packaging.replaced_head import build_lines
from camserve_cli.packaging.tensor_names import OPTIONAL, UNUSED, shared_parts

if TYPE_CHECKING:
    from camserve_cli.packaging.checkpoint import Checkpoint

_NAMED: Final = 3

#: Names that changes of a network leave in its state dict, what they are, and what undoes them.
_CHANGED: Final[Sequence[tuple[re.Pattern[str], str, str]]] = (
    (
        re.compile(r"\.parametrizations\."),
        "a parametrization (torch.nn.utils.parametrize)",
        "the state dict after torch.nn.utils.parametrize.remove_parametrizations",
    ),
    (
        re.compile(r"weight_g$"),
        "weight norm",
        "the state dict after torch.nn.utils.remove_weight_norm",
    ),
    (
        re.compile(r"weight_(mask)$"),
        "pruning",
        "the state dict after torch.nn.utils.prune.remove",
    ),
    (
        re.compile(r"weight_(orig|u)$"),
        "spectral norm",
        "the state dict after torch.nn.utils.remove_spectral_norm",
    ),
    (
        re.compile(r"lora_[AB]|lora_embedding"),
        "an adapter (LoRA)",
        "the state dict after merge_and_unload() of PEFT",
    ),
)
_QUANTISED: Final = re.compile(
    r"_packed_params|fake_quant|activation_post_process|qweight|qzeros|quant_map|absmax|\.SCB$"
)


@dataclass(frozen=True)
class Wanted:
    """What weights are to fit.

    Attributes:
        arch: of the network.
        shapes: of the network's tensors, by name.
        labels: how many there are.
        labels_given: by the person, and not ImageNet's by default.
        task: that the network is packaged for.
    """

    arch: str
    shapes: Mapping[str, Size]
    labels: int
    labels_given: bool
    task: Task


@dataclass(frozen=True)
class Misfit:
    """Weights, and a network that they do not fit.

    Attributes:
        name: of the weights' file.
        wanted: what they are to fit.
        given: the shapes of their tensors, by name, without the prefix under which most are found.
        prefix: that prefix.
    """

    name: str
    wanted: Wanted
    given: Mapping[str, Size]
    prefix: str

    @classmethod
    def nearest(cls, checkpoint: Checkpoint, wanted: Wanted) -> Misfit:
        """The misfit of that state dict of a checkpoint of which most is found in the network."""
        found: list[tuple[int, str, Mapping[str, Size]]] = []
        for one in checkpoint.state_dicts:
            prefix, count = _best_prefix(wanted.shapes, one.tensors)
            shapes = {
                old.removeprefix(prefix): value.shape
                for old, value in one.tensors.items()
                if old.startswith(prefix)
            }
            found.append((count, prefix, shapes))
        _, prefix, given = max(found, key=lambda one: one[0])
        return cls(checkpoint.name, wanted, given, prefix)

    @property
    def arch(self) -> str:
        return self.wanted.arch

    @property
    def expected(self) -> Mapping[str, Size]:
        return self.wanted.shapes

    @property
    def missing(self) -> list[str]:
        return [n for n in self.expected if n not in self.given and not n.endswith(OPTIONAL)]

    @property
    def unexpected(self) -> list[str]:
        return [n for n in self.given if n not in self.expected and not UNUSED.search(n)]

    @property
    def resized(self) -> list[str]:
        return [n for n, s in self.expected.items() if n in self.given and self.given[n] != s]

    def describe(self) -> str:
        """Why they do not fit and what is accepted, the likeliest cause alone."""
        for reason in (self._changed, self._class_count, self._head, self._other_architecture):
            if said := reason():
                return f"weights {self.name} do not fit {self.arch}: {said}"
        return self._differences()

    def _changed(self) -> str:
        for name in self.unexpected:
            if _QUANTISED.search(name):
                return f"{self.name} {quantised(self.prefix + name)}"
        for pattern, what, cure in _CHANGED:
            for name in self.unexpected:
                if pattern.search(name):
                    return f"{self.prefix}{name} is of {what}; accepted: {cure}"
        return ""

    def _class_count(self) -> str:
        """The case that only the number of classes differs."""
        counts = {self.given[name][:1] for name in self.resized}
        own = {self.expected[name][:1] for name in self.resized}
        if self.missing or self.unexpected or len(counts) != 1 or len(own) != 1:
            return ""
        if any(self.given[name][1:] != self.expected[name][1:] for name in self.resized):
            return ""
        if not self._in_head(self.resized):
            return ""
        ((classes,), (built,)) = (*counts, *own)
        return self._other_class_count(classes, built)

    def _other_class_count(self, classes: int, built: int) -> str:
        """What is said of weights of so many classes and a network that is built for others."""
        labels, task = self.wanted.labels, self.wanted.task
        if built != score_count(task, labels):
            return (
                f"the weights have {classes} classes, the network as it is built {built}; accepted:"
                f" an architecture of {classes} classes (--arch-kwargs), and a label for each"
            )
        if classes == 1:
            return (
                "the weights have a single score, as a network of two classes may have; accepted: "
                "--set handler.task=binary, and --labels FILE with two names, the second of which "
                "the score is of"
            )
        if task == "binary":
            return (
                f"the weights have a score for each of {classes} classes, and a network of "
                "handler.task binary has one score; accepted: handler.task multiclass or "
                f"multilabel, and --labels FILE with {classes} names"
            )
        said = f"the labels {labels}" + ("" if self.wanted.labels_given else " (ImageNet's)")
        return (
            f"the weights have {classes} classes, {said}: give --labels FILE with {classes} names"
        )

    def _head(self) -> str:
        """The case that all but the head is there."""
        head = self._head_path()
        if not self.missing or not head or not self._in_head(self.missing):
            return ""
        if not self._in_head(self.resized):
            return ""
        inside = [name for name in self.unexpected if name.startswith(f"{head}.")]
        if not self.unexpected:
            return (
                f"they have no head ({_some(self.missing)}), as those of a feature extractor; "
                "accepted: the weights of a trained classifier"
            )
        shown = _some(inside or self.unexpected)
        if len(inside) < len(self.unexpected):
            return (
                f"the head was replaced or renamed: {shown} instead of {_some(self.missing)}; "
                "build it with --arch module:callable, with the layers that it was trained with"
            )
        lines = build_lines(self.arch, [*self.missing, *inside], self.given)
        example = f" as{lines}" if lines else ", with the layers that it was trained with"
        return (
            f"the head was replaced: {shown} instead of {_some(self.missing)}; build it with "
            f"--arch module:callable{example}"
        )

    def _other_architecture(self) -> str:
        other = torchvision_name_of(self.given, self.arch)
        if not other:
            return ""
        return f"they are those of torchvision's {other}; accepted: --arch {other}"

    def _differences(self) -> str:
        """The first few names of each kind."""
        shapes = [
            f'"{n}" is {tuple(self.given[n])} instead of {tuple(self.expected[n])}'
            for n in self.resized
        ]
        differences = {
            "Wrong size of": shapes,
            "Missing key": [f'"{name}"' for name in self.missing],
            "Unexpected key": [f'"{self.prefix}{name}"' for name in self.unexpected],
        }
        told = "; ".join(f"{kind} {_some(names)}" for kind, names in differences.items() if names)
        # Counts that only training uses are in every network with batch norms.
        needed = sum(not name.endswith(OPTIONAL) for name in self.expected)
        resized = sum(not name.endswith(OPTIONAL) for name in self.resized)
        fitting = needed - len(self.missing) - resized
        return (
            f"weights {self.name} do not fit {self.arch} with {self.wanted.labels} classes "
            f"({fitting} of the network's {needed} tensors are there): {told}; "
            "accepted: the weights of this architecture, or the architecture of these weights "
            "(--arch)"
        )

    def _head_path(self) -> str:
        """The dotted name of the module that the last tensors of the network are in."""
        names = [name.split(".") for name in self.expected]
        shared = len(shared_parts(names)) if len(names) > 1 else 0
        return ".".join(names[-1][: shared + 1]) if len(names[-1]) > shared + 1 else ""

    def _in_head(self, names: Sequence[str]) -> bool:
        """Whether tensors are of the head, or of the heads that training adds."""
        head = self._head_path()
        return all(name.startswith(f"{head}.") or UNUSED.search(name) for name in names)


def _best_prefix(expected: Mapping[str, Size], given: Mapping[str, object]) -> tuple[str, int]:
    """The prefix under which most of a network's names are found, and how many those are."""
    counts: Counter[str] = Counter({"": 0})
    for name in given:
        parts = name.split(".")
        for n in range(len(parts)):
            if ".".join(parts[n:]) in expected:
                counts["".join(f"{part}." for part in parts[:n])] += 1
    # Of several the shortest.
    return max(counts.items(), key=lambda item: (item[1], -len(item[0])))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
