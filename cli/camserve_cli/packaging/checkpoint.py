"""The state dicts of a checkpoint: found wherever they lie, and chosen by ``--weights-key``."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from camserve.errors import short_repr
from camserve_cli.packaging.checkpoint_file import read_content
from camserve_cli.packaging.checkpoint_keys import is_averaged, is_training_state
from camserve_cli.packaging.errors import WeightsError
from camserve_cli.packaging.file_kinds import ACCEPTED

#: How deep state dicts may lie.
_MAX_DEPTH: Final = 5


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as they lie in a checkpoint.

    Attributes:
        key: where they lie, dotted, as ``--weights-key`` has it; empty at the top.
        tensors: by name.
        metadata: the versions of the modules, by their dotted names, as torch.save keeps them;
            None where the file has none.
        others: the names of what lies among them and is no tensor.
    """

    key: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] | None = None
    others: tuple[str, ...] = ()

    def with_metadata(self) -> OrderedDict[str, Tensor]:
        """The tensors as ``load_state_dict`` takes them."""
        state = OrderedDict(self.tensors)
        if self.metadata is not None:
            state._metadata = self.metadata  # type: ignore[attr-defined]
        return state


@dataclass(frozen=True)
class Checkpoint:
    """The state dicts that a file holds.

    Attributes:
        name: of the file, for messages.
        state_dicts: at least one; averages of the weights last.
        chosen: by ``--weights-key``, so that there is only one.
    """

    name: str
    state_dicts: tuple[StateDict, ...]
    chosen: bool = False

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str = "the weights") -> Checkpoint:
        """A checkpoint of one state dict, which has been read already."""
        metadata = getattr(state, "_metadata", None)
        return cls(name, (StateDict("", state, metadata),))

    @classmethod
    def read(cls, file: Path, key: str | None = None) -> Checkpoint:
        """Read a file of any suffix; no code in it is run.

        Args:
            file: what torch.save or safetensors wrote.
            key: the dotted place of the state dict in it. Its last parts may be the beginning of
                the tensors' names, as in ``state_dict.teacher``.

        Raises:
            WeightsError: it cannot be read, holds no state dict, or none under ``key``; the keys
                that it has are named.
        """
        content = read_content(file)
        found = tuple(sorted(_find(content, ()), key=lambda one: is_averaged(one.key)))
        for one in found:
            _check_tensors(file, one)
        if key is not None:
            return cls(str(file), (_select(file, content, key, found),), chosen=True)
        if not found:
            raise WeightsError(f"{file} {_no_state_dict(content)}; {ACCEPTED}")
        return cls(str(file), found)

    @property
    def largest(self) -> StateDict:
        """The state dict with most tensors, where no network tells which is meant."""
        return max(self.state_dicts, key=lambda one: len(one.tensors))


def _find(content: Any, path: tuple[str, ...]) -> Iterator[StateDict]:
    """The state dicts in what a file holds, each before those inside it."""
    if len(path) > _MAX_DEPTH or (path and is_training_state(path[-1])):
        return
    if isinstance(content, Mapping):
        if any(isinstance(v, Tensor) and v.dim() for v in content.values()):
            yield _state_dict(content, ".".join(path))
        for name, value in content.items():
            if isinstance(name, str):
                yield from _find(value, (*path, name))
    elif isinstance(content, list | tuple) and len(content) <= 16:
        for index, value in enumerate(content):
            yield from _find(value, (*path, str(index)))


def _state_dict(content: Mapping[Any, Any], key: str) -> StateDict:
    tensors = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    others = tuple(
        str(name)
        for name, value in content.items()
        if not isinstance(value, Tensor | Mapping) or "_packed_params" in str(name)
    )
    return StateDict(key, tensors, getattr(content, "_metadata", None), others)


def _select(file: Path, content: Any, key: str, found: Sequence[StateDict]) -> StateDict:
    """The state dict under a dotted key."""
    for place in _walk(content, key):
        if isinstance(place, Mapping):
            chosen = _state_dict(place, key)
            if chosen.tensors:
                _check_tensors(file, chosen)
                return chosen
    for one in sorted(found, key=lambda one: -len(one.key)):
        inside = key.removeprefix(f"{one.key}.") if one.key else key
        if (one.key and inside == key) or not any(n.startswith(f"{inside}.") for n in one.tensors):
            continue
        start = f"{inside}."
        tensors = {n.removeprefix(start): v for n, v in one.tensors.items() if n.startswith(start)}
        metadata = one.metadata and {
            f"{name}.".removeprefix(start).removesuffix("."): version
            for name, version in one.metadata.items()
            if f"{name}.".startswith(start)
        }
        return StateDict(key, tensors, metadata)
    keys = [one.key for one in found if one.key] or sorted(
        {name.partition(".")[0] for one in found for name in one.tensors}
    )
    nearest = difflib.get_close_matches(key[:100], keys, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    more = f" and {len(keys) - 20} more" if len(keys) > 20 else ""
    raise WeightsError(
        f"--weights-key {short_repr(key)}: {file} holds no state dict there; {hint}accepted: "
        f"{', '.join(keys[:20]) + more if keys else 'none, for this file has no state dict'}"
    )


def _walk(content: Any, key: str) -> Iterator[Any]:
    """What lies at a dotted key; a part of it may contain dots itself."""
    if not key:
        yield content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            if str(name) == key:
                yield value
            elif key.startswith(f"{name}."):
                yield from _walk(value, key.removeprefix(f"{name}."))
    elif isinstance(content, list | tuple):
        first, _, rest = key.partition(".")
        if first.isdecimal() and int(first) < len(content):
            yield from _walk(content[int(first)], rest)


def _check_tensors(file: Path, found: StateDict) -> None:
    """Refuse tensors that no network is loaded from."""
    place = f"{file} ({found.key})" if found.key else str(file)
    for name in found.others:
        if "_packed_params" in name:
            raise WeightsError(f"{place} {_QUANTISED.format(name=repr(name))}")
    for name, value in found.tensors.items():
        if not isinstance(name, str):
            raise WeightsError(
                f"{place} holds a tensor named {name!r}, which is no text; accepted: names as "
                "state_dict() gives them"
            )
        if value.is_quantized:
            raise WeightsError(f"{place} {_QUANTISED.format(name=repr(name))}")
        if value.is_meta:
            raise WeightsError(
                f"{place} holds {name!r} without its values (on the meta device); accepted: "
                "weights that were loaded before they were saved"
            )
        if value.is_complex() or value.layout != torch.strided:
            raise WeightsError(
                f"{place} holds {name!r}, a tensor of {value.dtype} ({value.layout}); accepted: "
                "dense tensors of real numbers"
            )


#: What is wrong with quantised weights; ``name`` is that of the first tensor.
_QUANTISED: Final = (
    "is of a quantised network: {name} is quantised; accepted: the float weights that it was "
    "quantised from"
)


def quantised(name: str) -> str:
    """What is wrong with quantised weights, of which ``name`` is the first."""
    return _QUANTISED.format(name=repr(name))


def _no_state_dict(content: Any) -> str:
    if isinstance(content, Tensor):
        return "holds a single tensor and no state dict"
    if isinstance(content, Mapping) and content:
        keys = ", ".join(short_repr(key) for key in list(content)[:5])
        return f"holds no state dict; it has {keys}"
    kind = type(content).__name__
    return f"holds no state dict; it is {'empty' if not content else f'of type {kind}'}"
