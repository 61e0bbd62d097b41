"""Tensors of a nested structure -> the same structure on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Structure = TypeVar("Structure")


def copy_to_host(values: Structure, device: torch.device) -> Structure:
    """Copy every tensor of a structure to the host, and wait for the device once.

    Args:
        values: dataclasses, lists, tuples and tensors, nested.
        device: of all the tensors. On the CPU nothing is copied.
    """
    if device.type == "cpu":
        return values
    copy: Structure = map_tensors(_start_copy, values)
    torch.cuda.synchronize(device)
    return copy


def map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """The same structure with ``function`` applied to each tensor in it."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, list | tuple):
        return type(values)(map_tensors(function, value) for value in values)
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        fields = dataclasses.fields(values)
        return type(values)(*(map_tensors(function, getattr(values, f.name)) for f in fields))
    return values


def _start_copy(tensor: Tensor) -> Tensor:
    # Only a copy into pinned memory does not block.
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)
