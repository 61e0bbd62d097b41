"""The weights that ``camserve package`` is given, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import PackageError, PresetError
from camserve_cli.packaging.publisher import Publisher

#: The publisher's network, of the archive's own with its weights.
MakePublisher = Callable[[nn.Module], Publisher]
#: Brings a state dict to the form that a network takes.
Convert = Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class WeightsSource:
    """Weights, and what is known with them.

    Attributes:
        checkpoint: the state dict, or several of a file.
        preprocess: the preset of the weights, or of their architecture; None where none is known.
        categories: their classes' names, or ImageNet's; empty where none are known.
        published: their name, where they are torchvision's own.
        preset_of: whose preset it is, where that is only likely to be the weights' own.
        preset_problem: why there is no preset, where a publisher has one.
        section: further keys of the section ``handler``.
        publisher: builds the publisher's own network and preparation of photos; None where these
            are not known.
        notes: what a person should know of where they come from.
        convert: brings a state dict to the form that the network takes; None where it has it.
    """

    checkpoint: Checkpoint
    preprocess: dict[str, Any] | None
    categories: tuple[str, ...]
    published: str = ""
    preset_of: str = ""
    preset_problem: str = ""
    section: Mapping[str, Any] = field(default_factory=dict)
    publisher: MakePublisher | None = None
    convert: Convert | None = None
    notes: tuple[str, ...] = ()

    def fill_section(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The section ``handler``: what a person gave, and for the rest what the weights say."""
        preprocess = {"preprocess": self.preprocess} if self.preprocess else {}
        arch_kwargs = {**self.section.get("arch_kwargs", {}), **given["arch_kwargs"]}
        return {**preprocess, **self.section, **given, "arch_kwargs": arch_kwargs}

    def converted_for(self, network: nn.Module) -> Checkpoint:
        """The checkpoint with its state dicts in the form that the network takes."""
        if self.convert is None:
            return self.checkpoint
        state_dicts = tuple(
            replace(one, tensors=self.convert(network, one.tensors))
            for one in self.checkpoint.state_dicts
        )
        return replace(self.checkpoint, state_dicts=state_dicts)


def is_file(arch: str, source: str) -> bool:
    """Whether ``--weights`` names a file: one that is there, or could not be torchvision's name."""
    return Path(source).exists() or ":" in arch or bool(re.search(r"[/\\]|\.\w{1,11}$", source))


def refuse_weights_key(key: str | None) -> None:
    """Refuse ``--weights-key`` where there is no file to choose from.

    Raises:
        PackageError: it is given.
    """
    if key is not None:
        raise PackageError("--weights-key: accepted with --weights FILE alone")


def preset_or_problem(make: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """A preset, or why there is none: settings may then say how photos are prepared."""
    try:
        return make(), ""
    except PresetError as error:
        return None, str(error)
