"""Classes that checkpoints hold beside their tensors, and that may be read: none runs any code.

torch.load stays restricted (``weights_only``). It creates tensors, and what is listed here.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import fractions
import inspect
import pathlib
import types
import uuid
from functools import cache
from importlib import import_module
from typing import Any, Final

import numpy as np
import torch
from torch.optim import lr_scheduler

#: A global as a pickle names it, and what stands for it.
SafeGlobal = tuple[Any, str]


class Placeholder:
    """Stands for an object of a class that is not needed: takes every argument and keeps none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*args: Any) -> dict[Any, Any]:
    """An empty dictionary in place of a defaultdict, to which torch.load adds no items."""
    return {}


#: Dictionaries of other classes, which torch.load would add no items to.
_DICTIONARIES: Final = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
#: Of OmegaConf, in which Hydra and Lightning keep hyperparameters.
_OMEGACONF: Final = (
    "base.ContainerMetadata", "base.Metadata", "dictconfig.DictConfig", "listconfig.ListConfig",
    "nodes.AnyNode", "nodes.BooleanNode", "nodes.BytesNode", "nodes.EnumNode", "nodes.FloatNode",
    "nodes.IntegerNode", "nodes.PathNode", "nodes.StringNode",
)  # fmt: skip


@cache
def harmless_classes() -> list[SafeGlobal]:
    """What torch.serialization.safe_globals is given."""
    numpy_types = {
        value
        for module in (np, np.dtypes)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, np.generic | np.dtype)
    }
    multiarray = import_module("numpy._core.multiarray")
    numpy_functions = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ]
    optimizers = {
        value
        for module in (torch.optim, lr_scheduler)
        for value in vars(module).values()
        if inspect.isclass(value)
    }
    plain = [
        argparse.Namespace, types.SimpleNamespace, uuid.UUID, decimal.Decimal, fractions.Fraction,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
        frozenset, dict, list, tuple, int, float, str, bool, bytes, slice, range,
        torch.torch_version.TorchVersion,
    ]  # fmt: skip
    paths = [
        (kind, f"pathlib{private}.{name}")
        # Python 3.13 has them in a private module.
        for private in ("", "._local")
        for name, kind in {
            "PosixPath": pathlib.PurePosixPath,
            "PurePosixPath": pathlib.PurePosixPath,
            "Path": pathlib.PurePosixPath,
            "WindowsPath": pathlib.PureWindowsPath,
            "PureWindowsPath": pathlib.PureWindowsPath,
        }.items()
    ]
    return [
        *((one, f"{one.__module__}.{one.__qualname__}") for one in (*plain, *numpy_types)),
        (np.ndarray, "numpy.ndarray"),
        *numpy_functions,
        *paths,
        (_plain_dict, "collections.defaultdict"),
        *((dict, name) for name in _DICTIONARIES),
        *((Placeholder, f"{one.__module__}.{one.__qualname__}") for one in optimizers),
        *((Placeholder, f"omegaconf.{name}") for name in _OMEGACONF),
        (Placeholder, "typing.Any"),
    ]
