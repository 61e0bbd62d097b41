"""Reads the content of a weights file. No code in it is run."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from camserve.errors import short_repr
from camserve_cli.packaging.errors import WeightsError
from camserve_cli.packaging.file_kinds import WeightsKind, refuse, weights_kind
from camserve_cli.packaging.harmless_classes import Placeholder, harmless_classes
from camserve_cli.packaging.pickle_advice import PickleAdvice

#: torch's words for a class that is not allowed.
_NOT_ALLOWED: Final = re.compile(r"GLOBAL ([\w.]+) was not an allowed|unsupported GLOBAL ([\w.]+)")
_NAMED_CLASSES: Final = 3
_MAX_CLASSES: Final = 50


def read_content(file: Path) -> Any:
    """What a weights file holds: of a safetensors file a mapping of tensors, else any object.

    Objects of harmless classes are read (:mod:`harmless_classes`), and no others.

    Raises:
        WeightsError: it is missing, damaged, of another kind, or holds objects of other classes;
            where lines make a state dict of it, the message has them.
    """
    kind = weights_kind(file)
    try:
        if kind == "index":
            return _read_parts(file)
        if kind == "torch":
            _check_checksums(file)
        return load_file(file) if kind == "safetensors" else _restricted_load(file)
    except WeightsError:
        raise
    except Exception as failure:
        # torch.load lets through whatever a pickle can raise. Its own words would have its
        # check turned off.
        _refuse_content(file, kind, str(failure))


def _read_parts(index: Path) -> dict[str, torch.Tensor]:
    """The tensors of weights in several files, by the index that Hugging Face's libraries write.

    Raises:
        WeightsError: the index is none, or a file or a tensor that it names is missing.
    """
    accepted = "accepted: the index of save_pretrained, beside all the files that it names"
    try:
        places = json.loads(index.read_text("utf-8"))["weight_map"].items()
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as failure:
        refuse(index, f"is the index of several files, and damaged ({failure})", accepted)
    parts: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, part in places:
        if not isinstance(part, str) or Path(part).name != part:
            refuse(index, f"names {short_repr(part)}, which is no file beside it", accepted)
        if part not in parts:
            if not (index.parent / part).is_file():
                refuse(index, f"names {part}, which is not beside it", accepted)
            if weights_kind(index.parent / part) == "index":
                refuse(index, f"names {part}, which is an index itself", accepted)
            parts[part] = read_content(index.parent / part)
        found = parts[part].get(name) if isinstance(parts[part], dict) else None
        if not isinstance(found, torch.Tensor):
            refuse(index, f"names {name!r} of {part}, which does not hold it", accepted)
        tensors[name] = found
    return tensors


def _check_checksums(file: Path) -> None:
    """Refuse a file of ``torch.save`` with a damaged part, which ``torch.load`` does not notice."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged:
        refuse(file, f"is damaged: {short_repr(damaged)} in it has another checksum")


def _refuse_content(file: Path, kind: WeightsKind, reason: str) -> NoReturn:
    """Say in other words than torch's why a file cannot be read."""
    if unknown := _unknown_classes(file, reason):
        _refuse_classes(file, unknown, legacy=kind == "torch_legacy")
    if "Unsupported operand" in reason:
        refuse(
            file,
            "was saved with another pickle protocol than torch.save's"
            " own, which cannot be read without running its code",
            "accepted: the state dict saved again, with torch.save and without pickle_protocol",
        )
    if "distributed.tensor" in reason or "torch.nested" in reason:
        refuse(
            file,
            "has tensors that are distributed or nested",
            "accepted: whole tensors, as get_model_state_dict with full_state_dict=True gives",
        )
    first = next((line.strip() for line in reason.splitlines() if line.strip()), "no reason given")
    what = "is cut off or damaged" if _looks_damaged(reason) else "holds no state dict"
    told = "" if "weights_only" in first else f" ({first[:200]})"
    refuse(file, f"{what}{told}")


def _looks_damaged(reason: str) -> bool:
    return any(
        word in reason
        for word in (
            "incomplete",
            "header",
            "Header",
            "failed finding",
            "unexpected EOF",
            "corrupt",
        )
    )


def _restricted_load(file: Path, *more: tuple[Any, str], harmless: bool = True) -> Any:
    """``torch.load`` of tensors and harmless classes, and of ``more``."""
    with (
        safe_globals([*(harmless_classes() if harmless else []), *more]),
        warnings.catch_warnings(),
    ):
        # Of its pickle protocol, of typed storages, of sparse tensors: none is for the caller.
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def _unknown_classes(file: Path, reason: str) -> list[str]:
    """The dotted names of classes and functions in a file that are neither tensors nor harmless."""
    try:
        with safe_globals([*harmless_classes()]):
            found = get_unsafe_globals_in_checkpoint(file)
    except Exception:
        # It reads no file of the time before PyTorch 1.6, nor every pickle.
        found = _names_refused(file, reason)
    # A module's own layers tell less than the class that holds them.
    return sorted(set(found), key=lambda name: (name.startswith("torch."), name))


def _names_refused(file: Path, reason: str, harmless: bool = True) -> list[str]:
    """The classes that torch.load refuses, one after the other; harmless ones are let through."""
    names: list[str] = []
    while (refused := _NOT_ALLOWED.search(reason)) and len(names) < _MAX_CLASSES:
        name = refused[1] or refused[2]
        if name in names:
            break
        names.append(name)
        try:
            _restricted_load(file, *((Placeholder, name) for name in names), harmless=harmless)
        except Exception as failure:
            reason = str(failure)
    return names


def _refuse_classes(file: Path, unknown: list[str], legacy: bool) -> NoReturn:
    """Refuse a file with objects of unknown classes, with the lines that make a state dict."""
    all_names = _names_refused(file, _reason(file), harmless=False) if legacy else None
    advice = PickleAdvice(file, unknown, all_names, _restricted_load)
    shown = ", ".join(unknown[:_NAMED_CLASSES])
    if len(unknown) > _NAMED_CLASSES:
        shown += f" and {len(unknown) - _NAMED_CLASSES} more"
    what = f"holds objects of {shown} beside tensors, and reading those would run code"
    if advice.is_module:
        what = f"holds a whole pickled module ({shown}), not only a state dict of tensors"
    trust = "where its classes can be imported and for a file that you trust"
    if any(name.startswith("__main__.") for name in unknown):
        trust = "in the script that defines its classes and for a file that you trust"
    if advice.runs_code:
        trust += ", as they run its code"
    refuse(file, what, f"these lines make a state dict of it, {trust}", advice.lines)


def _reason(file: Path) -> str:
    """Why torch.load refuses a file, where nothing but tensors is let through."""
    try:
        _restricted_load(file, harmless=False)
    except Exception as failure:
        return str(failure)
    return ""
