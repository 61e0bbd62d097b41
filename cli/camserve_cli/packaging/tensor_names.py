"""Matches the names of a checkpoint's tensors with those of a network.

Trainers put prefixes before the names, in any nesting: ``module.`` (DataParallel), ``model.``
(Lightning), ``_orig_mod.`` (torch.compile). A prefix is taken off where all of the network's
tensors are then found, each of its shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Size

#: Parts of names that wrappers of a module inside a network leave: torch.compile, FSDP, activation
#: checkpoints, DataParallel.
_WRAPPERS: Final = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\."
)
#: Names of DenseNet's layers in files of the time before PyTorch 0.4, as torchvision's are.
_DENSENET: Final = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
#: Tensors that training leaves beside a network and that predict nothing: counters of FLOPs and of
#: averaged models, loss functions, metrics, and heads that are used in training alone.
UNUSED: Final = re.compile(
    r"(^|\.)(total_ops|total_params|n_averaged)$"
    r"|^(criterions?|loss(es)?|loss_\w+|\w+_loss(es)?|metrics?|(train|val|valid|test)_\w+)\."
    r"|(^|\.)(aux[12]|AuxLogits)\."
)
#: Counts that only training uses; files of the time before PyTorch 0.4.1 lack them.
OPTIONAL: Final = "num_batches_tracked"


@dataclass(frozen=True)
class NameMatch:
    """How a network's names are found in a checkpoint.

    Attributes:
        names: the network's name -> the checkpoint's.
        prefix: what is taken off the checkpoint's names, with its last dot; or empty.
        partly: the prefix stands before some of them alone, or only a part of it.
        unwrapped: parts that wrappers left are taken out of the names.
        left_out: names in the checkpoint that the network has no place for.
    """

    names: Mapping[str, str]
    prefix: str
    partly: bool
    unwrapped: bool
    left_out: tuple[str, ...]


def matches(
    expected: Mapping[str, Size], given: Mapping[str, Size], shapes: bool = True
) -> list[NameMatch]:
    """All ways in which the whole network is found in a checkpoint, the plainest first.

    Args:
        expected: the shapes of the network's tensors, by name.
        given: those of the checkpoint's.
        shapes: compare them; else the names alone.
    """
    found: list[NameMatch] = []
    for renamed in _spellings(given):
        for prefix in _prefixes(expected, renamed):
            match = _match(expected, given, renamed, prefix, shapes)
            if match and match.names not in [one.names for one in found]:
                found.append(match)
        if found:
            break
    return found


def shared_parts(names: Iterable[Sequence[str]]) -> list[str]:
    """The parts that dotted names, each split at its dots, have in common at their beginning."""
    shared = []
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _spellings(given: Mapping[str, Size]) -> Iterator[dict[str, str]]:
    """The checkpoint's names by how they are written: as they are, then without wrappers' parts."""
    yield {name: name for name in given}
    for pattern, replacement in ((_DENSENET, r"\1\2"), (_WRAPPERS, "")):
        renamed = {pattern.sub(replacement, name): name for name in given}
        # Two that become the same would be one of them by chance.
        if len(renamed) == len(given) and any(new != old for new, old in renamed.items()):
            yield renamed


def _prefixes(expected: Mapping[str, Size], renamed: Mapping[str, str]) -> Iterator[str]:
    """The prefixes under which the network's first tensor, or its largest part, may be found."""
    yield ""
    anchors = {max((n for n in expected if n.startswith(f"{child}.")), key=len, default=child)
               for child in {name.partition(".")[0] for name in expected}}  # fmt: skip
    seen = {""}
    for name in renamed:
        for anchor in anchors:
            prefix = name.removesuffix(anchor)
            if name.endswith(f".{anchor}") and prefix not in seen:
                seen.add(prefix)
                yield prefix


def _match(
    expected: Mapping[str, Size],
    given: Mapping[str, Size],
    renamed: Mapping[str, str],
    prefix: str,
    shapes: bool,
) -> NameMatch | None:
    """The network found under a prefix; parts of it may lie under the beginning of the prefix."""
    parts = prefix.split(".")[:-1]
    beginnings = ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]
    children: dict[str, list[str]] = {}
    for name in expected:
        children.setdefault(name.partition(".")[0], []).append(name)
    names: dict[str, str] = {}
    used: set[str] = set()
    for members in children.values():
        for beginning in beginnings:
            places = {name: renamed.get(beginning + name) for name in members}
            if all(
                _fits(name, old, expected, given, shapes) for name, old in places.items()
            ) and any(places.values()):
                names |= {name: old for name, old in places.items() if old}
                used.add(beginning)
                break
        else:
            return None
    taken = set(names.values())
    # Else a block inside the network would be taken for the network's own first layers.
    if prefix not in used or len(taken) < len(names):
        return None
    left_out = tuple(old for old in renamed.values() if old not in taken)
    # What stands beside the network's own layers may belong between them.
    beside = [new for new, old in renamed.items() if old not in taken and new.startswith(prefix)]
    if not all(UNUSED.search(new.removeprefix(prefix)) for new in beside):
        return None
    unwrapped = any(new != old for new, old in renamed.items())
    return NameMatch(names, prefix, len(used) > 1, unwrapped, left_out)


def _fits(
    name: str,
    old: str | None,
    expected: Mapping[str, Size],
    given: Mapping[str, Size],
    shapes: bool,
) -> bool:
    if old is None:
        return name.endswith(OPTIONAL)
    return not shapes or given[old] == expected[name]
