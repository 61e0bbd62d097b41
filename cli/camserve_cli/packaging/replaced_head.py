"""The lines of Python that build a torchvision classifier with a head of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Size

from camserve_cli.packaging.tensor_names import shared_parts


def build_lines(arch: str, names: Sequence[str], given: Mapping[str, Size]) -> str:
    """A function that builds the network that weights with a replaced head are for.

    Args:
        arch: a torchvision name.
        names: of the head's tensors, those that it has and those that the weights have.
        given: the shapes of the weights' tensors, by name.

    Returns:
        The lines, each after a line break; empty where they cannot be known.
    """
    if ":" in arch:
        return ""
    path = shared_parts(name.split(".")[:-1] for name in names)
    start = "".join(f"{part}." for part in path)
    layers: dict[str, dict[str, Size]] = {}
    for name, shape in given.items():
        if name.startswith(start):
            place, _, kind = name.removeprefix(start).rpartition(".")
            layers.setdefault(place, {})[kind] = shape
    # A single layer of another kind, or layers with names of their own.
    if not path or not layers or not all(place.isdecimal() for place in layers):
        return ""
    built = {int(place): _layer(tensors) for place, tensors in layers.items()}
    if not all(built.values()):
        return ""
    # Layers without weights, as ReLU and Dropout, leave nothing in a state dict.
    sequence = ", ".join(built.get(index) or "..." for index in range(max(built) + 1))
    lines = [
        "from torch import nn",
        "from torchvision import models",
        "",
        "def build():",
        f"    network = models.{arch}()",
        f"    network{_access(path)} = nn.Sequential({sequence})",
        "    return network",
    ]
    if "..." in sequence:
        lines[5] += "  # ...: a layer without weights, as nn.ReLU() or nn.Dropout()"
    return ":" + "".join(f"\n    {line}".rstrip(" ") for line in lines)


def _access(path: Sequence[str]) -> str:
    return "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in path)


def _layer(tensors: Mapping[str, Size]) -> str:
    """The constructor of a layer with these tensors; empty where it cannot be known."""
    weight = tensors.get("weight")
    if weight is None:
        return ""
    bias = "" if "bias" in tensors else ", bias=False"
    if len(weight) == 2:
        return f"nn.Linear({weight[1]}, {weight[0]}{bias})"
    if len(weight) == 1:
        return f"nn.{'BatchNorm1d' if 'running_mean' in tensors else 'LayerNorm'}({weight[0]})"
    return ""
