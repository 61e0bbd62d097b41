"""The lines of Python that make a state dict of a file with objects of other classes.

The file is read with a stand-in for each such object, which keeps what the object holds and runs
none of its code. So the lines name the place of the state dict, and let through the classes that
the file has. Where the restricted reading of ``torch.load`` cannot make the objects, as of a
dictionary of one's own class, the lines have the file read as a pickle, and look for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from camserve_cli.packaging.checkpoint_keys import is_averaged, is_training_state
from camserve_cli.packaging.harmless_classes import Placeholder

#: How deep state dicts are looked for.
_MAX_DEPTH: Final = 4
#: Reads a file with a class in place of each name.
RestrictedLoad = Callable[..., Any]

_ANY_PICKLE: Final = """
import torch

def states(value, depth=0):
    if hasattr(value, 'state_dict'):
        return [value.state_dict()]
    if isinstance(value, dict):
        tensors = {{k: v for k, v in value.items() if isinstance(v, torch.Tensor)}}
        parts = value.values()
    else:
        tensors = {{}}
        held = getattr(value, '__dict__', {{}}).values()
        parts = value if isinstance(value, (list, tuple)) else held
    inside = [s for part in parts if depth < 5 for s in states(part, depth + 1)]
    return [tensors, *inside]

content = torch.load({file!r}, map_location='cpu', weights_only=False)
torch.save(max(states(content), key=len), 'weights.pth')
"""
_CLASSES: Final = """
import torch
from pkgutil import resolve_name
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
names = {names}
with safe_globals([(resolve_name(':'.join(name.rsplit('.', 1))), name) for name in names]):
    content = torch.load({file!r}, map_location='cpu')
torch.save({place}, 'weights.pth')
"""


class _Recorded(Placeholder):
    """Stands for an object, and keeps what it holds."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class PickleAdvice:
    """What a file with objects of other classes holds, and what makes a state dict of it.

    Args:
        file: the file.
        unknown: the names of classes and functions that are neither tensors nor harmless.
        all_names: those that torch.load itself refuses, of a file of the time before PyTorch 1.6;
            None of others, which torch lists itself.
        load: reads the file, with (class, name) for each name that is let through.

    Attributes:
        is_module: the state dict is that of a pickled module.
        lines: of Python.
        runs_code: the lines run whatever code the file names, and not that of its classes alone.
    """

    def __init__(
        self,
        file: Path,
        unknown: Sequence[str],
        all_names: Sequence[str] | None,
        load: RestrictedLoad,
    ) -> None:
        try:
            content = load(file, *((_Recorded, name) for name in unknown))
            places = sorted(_places(content, "content", ""), key=lambda one: is_averaged(one[0]))
        except Exception:
            # What the restricted reading cannot make, and modules from before PyTorch 1.6, which
            # bring their source.
            places = []
        self.runs_code = not places
        self.is_module = (
            places[0][1].endswith("state_dict()")
            if places
            else any(name.startswith(("torch.nn.modules.", "torchvision.")) for name in unknown)
        )
        if not places:
            self.lines = _ANY_PICKLE.format(file=str(file))
            return
        names = f"get_unsafe_globals_in_checkpoint({str(file)!r})"
        if all_names is not None:
            names = repr(list(all_names))
        self.lines = _CLASSES.format(file=str(file), names=names, place=places[0][1])


def _places(value: Any, code: str, key: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """The last key and the code of each state dict in a file's content."""
    if depth > _MAX_DEPTH or is_training_state(key):
        return
    inside: list[tuple[str, str, Any]] = []
    if isinstance(value, _Recorded) and isinstance(value.state, dict):
        if "_parameters" in value.state:
            yield key, f"{code}.state_dict()"
            return
        inside = [(str(name), f"{code}.{name}", one) for name, one in value.state.items()]
    elif isinstance(value, dict):
        if any(isinstance(one, Tensor) and one.dim() for one in value.values()):
            tensors = all(isinstance(one, Tensor) for one in value.values())
            some = f"{{k: v for k, v in {code}.items() if isinstance(v, torch.Tensor)}}"
            yield key, code if tensors else some
        inside = [(str(name), f"{code}[{name!r}]", one) for name, one in value.items()]
    elif isinstance(value, list | tuple):
        inside = [(key, f"{code}[{index}]", one) for index, one in enumerate(value)]
    for name, place, one in inside:
        yield from _places(one, place, name, depth + 1)
