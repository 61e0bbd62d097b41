"""Loads a checkpoint into the network that it is for, and says what was taken from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from camserve.errors import describe_exception
from camserve.networks import set_eval
from camserve.settings import Task
from camserve_cli.packaging.checkpoint import Checkpoint, StateDict, quantised
from camserve_cli.packaging.checkpoint_keys import is_averaged, kind_of_copy
from camserve_cli.packaging.errors import WeightsError
from camserve_cli.packaging.misfit import Misfit, Wanted
from camserve_cli.packaging.tensor_names import NameMatch, matches

_NAMED: Final = 5


@dataclass(frozen=True)
class FittedWeights:
    """A network's weights.

    Attributes:
        state: what the loaded network itself saves; it loads strictly, with no conversion.
        notes: what a person should know of how they were found.
    """

    state: dict[str, Tensor]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    state_dict: StateDict
    match: NameMatch

    @property
    def key(self) -> str:
        """What ``--weights-key`` would choose it by."""
        return ".".join(filter(None, [self.state_dict.key, self.match.prefix.removesuffix(".")]))


def fit_weights(
    network: nn.Module,
    checkpoint: Checkpoint,
    arch: str,
    labels: int,
    labels_given: bool,
    task: Task = "multiclass",
) -> FittedWeights:
    """Load a checkpoint into a network, and put the network into eval mode.

    Args:
        network: as its architecture builds it; it is changed.
        checkpoint: its state dicts, of which the first that fits is taken.
        arch: the network's, for messages.
        labels: how many there are.
        labels_given: by the person, and not ImageNet's by default.
        task: that the network is packaged for.

    Raises:
        WeightsError: none fits, or the one that does is quantised or not finite; the message says
            why and what is accepted.
    """
    set_eval(network)
    expected = _state_dict(network, arch)
    if not expected:
        return FittedWeights(
            {}, (f"{arch} has no weights; those of {checkpoint.name} are not used",)
        )
    shapes = {name: value.shape for name, value in expected.items()}
    choices = [
        _Choice(one, match)
        for one in checkpoint.state_dicts
        for match in matches(shapes, {n: v.shape for n, v in one.tensors.items()})
    ]
    # An average of the weights is taken where there is nothing else, or where it is asked for.
    choices.sort(key=lambda choice: is_averaged(choice.key))
    if not choices:
        wanted = Wanted(arch, shapes, labels, labels_given, task)
        return _load_as_network_does(network, checkpoint, wanted)
    chosen, *others = choices
    _check_values(checkpoint, chosen, expected, network)
    state = OrderedDict(
        (name, chosen.state_dict.tensors[chosen.match.names[name]])
        if name in chosen.match.names
        # A count that only training uses.
        else (name, value)
        for name, value in expected.items()
    )
    _load(network, state, _metadata(chosen, network), checkpoint, arch)
    return FittedWeights(dict(network.state_dict()), tuple(_notes(checkpoint, chosen, others)))


def _state_dict(network: nn.Module, arch: str) -> dict[str, Tensor]:
    """A network's tensors by name.

    Raises:
        WeightsError: it has others than tensors with a shape, or its own code fails.
    """
    try:
        with torch.no_grad():
            found = dict(network.state_dict())
    except Exception as failure:
        # A module may override state_dict and raise any exception.
        raise WeightsError(
            f"the network {arch} fails where its state dict is made: {describe_exception(failure)};"
            " accepted: a network whose state_dict() gives its tensors by name"
        ) from None
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"the network {arch} keeps {name!r} in its state dict, which is no tensor; "
                "accepted: a network whose state dict has tensors alone"
            )
        if is_lazy(value):
            raise WeightsError(
                f"the network {arch} has {name!r} without a shape, as of a LazyLinear or LazyConv2d"
                " that has not run; accepted: a callable that runs the network on a photo before "
                "it returns it, or layers with their sizes, as nn.Linear"
            )
    return found


def _load_as_network_does(
    network: nn.Module, checkpoint: Checkpoint, wanted: Wanted
) -> FittedWeights:
    """Load names or shapes of an older version, which the network's own code converts."""
    for one in checkpoint.state_dicts:
        try:
            network.load_state_dict(one.with_metadata())
        except Exception:  # noqa: S112 - what does not fit is described below
            continue
        note = f"{checkpoint.name} is of an older version of {wanted.arch}, which converts it"
        place = [_taken(checkpoint, one.key)] if one.key else []
        return FittedWeights(dict(network.state_dict()), (*place, note))
    raise WeightsError(Misfit.nearest(checkpoint, wanted).describe())


def _load(
    network: nn.Module,
    state: OrderedDict[str, Tensor],
    metadata: Mapping[str, Any] | None,
    checkpoint: Checkpoint,
    arch: str,
) -> None:
    if metadata is not None:
        state._metadata = metadata  # type: ignore[attr-defined]
    try:
        network.load_state_dict(state)
    except Exception as failure:
        # A module may override load_state_dict and raise any exception.
        raise WeightsError(
            f"{checkpoint.name} cannot be loaded into {arch}: {describe_exception(failure)}; "
            "accepted: a network that loads what its own state_dict() gives"
        ) from None


def _metadata(chosen: _Choice, network: nn.Module) -> Mapping[str, Any] | None:
    """The modules' versions: the file's own, and the network's where it has none.

    Without any, a module would take its weights for those of its first version.
    """
    versions, prefix = chosen.state_dict.metadata, chosen.match.prefix
    if versions is None or chosen.match.partly or chosen.match.unwrapped:
        return getattr(network.state_dict(), "_metadata", None)
    return {
        f"{name}.".removeprefix(prefix).removesuffix("."): version
        for name, version in versions.items()
        if f"{name}.".startswith(prefix)
    }


def _check_values(
    checkpoint: Checkpoint, chosen: _Choice, expected: Mapping[str, Tensor], network: nn.Module
) -> None:
    """Refuse weights that are quantised, or no finite numbers.

    Raises:
        WeightsError: the first such tensor is named.
    """
    for name, old in chosen.match.names.items():
        value, own = chosen.state_dict.tensors[old], expected[name]
        if own.is_floating_point() and (not value.is_floating_point() or value.dtype.itemsize == 1):
            raise WeightsError(f"{checkpoint.name} {quantised(old)} ({value.dtype})")
        if not own.is_floating_point() or not own.isfinite().all():
            continue
        if not value.isfinite().all():
            kind = "NaN" if value.isnan().any() else "infinity"
            raise WeightsError(
                f"{checkpoint.name} has {kind} in {old!r}: its training diverged, or the file is "
                "damaged; accepted: weights that are finite numbers"
            )
        if not value.to(own.dtype).isfinite().all():
            kind = str(own.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{checkpoint.name} has values in {old!r} that are too large for {kind}, in which "
                f"the network computes ({float(value.abs().max()):.3g}); accepted: weights up to "
                f"{torch.finfo(own.dtype).max:.3g}"
            )


def _taken(checkpoint: Checkpoint, key: str) -> str:
    return f"the state dict under {key!r} of {checkpoint.name} is taken"


def _notes(checkpoint: Checkpoint, chosen: _Choice, others: list[_Choice]) -> Iterator[str]:
    one, match = chosen.state_dict, chosen.match
    if one.key:
        yield _taken(checkpoint, one.key)
    if match.prefix:
        some = "those of its names that have it" if match.partly else "its names"
        yield f"the prefix {match.prefix!r} is taken off {some}"
    if match.unwrapped:
        old, new = next(
            (old, match.prefix + new)
            for new, old in match.names.items()
            if old != match.prefix + new
        )
        yield f"its names are read as the network writes them, {old!r} as {new!r}"
    # What others hold is said with them.
    prefixes = [o.match.prefix for o in others if o.state_dict is one and o.match.prefix]
    left_out = tuple(name for name in match.left_out if not name.startswith(tuple(prefixes)))
    if left_out:
        yield (
            f"not taken, as {'they lie' if len(left_out) > 1 else 'it lies'} outside of the "
            f"network: {_some(left_out)}"
        )
    if one.others:
        yield f"not taken, as no tensors: {_some(one.others)}"
    kinds = {
        value.dtype
        for value in (one.tensors[old] for old in match.names.values())
        if value.is_floating_point() and value.dtype != torch.float32
    }
    if kinds:
        names = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        yield f"the weights are {names}; they are served as float32"
    for other in others:
        average = f" ({kind_of_copy(other.key)})" if is_averaged(other.key) else ""
        yield (
            f"{checkpoint.name} has others that fit, under {other.key!r}{average}; to take those: "
            f"--weights-key {other.key}"
        )
    fitting = {other.state_dict.key for other in (chosen, *others)}
    for rest in checkpoint.state_dicts:
        if rest.key not in fitting and is_averaged(rest.key):
            yield f"{kind_of_copy(rest.key)} under {rest.key!r} is not taken, as it does not fit"


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
