"""A structure of tensors keeps its shape, types and all else that is in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camserve.explain.host_copy import copy_to_host, map_tensors


@dataclass(frozen=True)
class Part:
    name: str
    rows: list[int]
    values: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Whole:
    parts: list[Part]
    total: Tensor


def structure() -> Whole:
    parts = [Part(f"part {n}", [n], (torch.tensor([n]), torch.tensor([n, -n]))) for n in range(2)]
    return Whole(parts, torch.tensor(7.5))


def test_every_tensor_of_a_structure_is_mapped_and_nothing_else() -> None:
    mapped = map_tensors(torch.neg, structure())
    assert isinstance(mapped, Whole)
    assert mapped.total.item() == -7.5
    assert [(part.name, part.rows) for part in mapped.parts] == [("part 0", [0]), ("part 1", [1])]
    values = [[value.tolist() for value in part.values] for part in mapped.parts]
    assert values == [[[0], [0, 0]], [[-1], [-1, 1]]]


def test_on_the_cpu_nothing_is_copied() -> None:
    values = structure()
    assert copy_to_host(values, torch.device("cpu")) is values
