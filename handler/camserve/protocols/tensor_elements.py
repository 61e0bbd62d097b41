"""An input tensor of KServe v2: its shape, and its elements in JSON or behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from camserve.errors import RequestError, short_repr
from camserve.protocols import binary_tensors, photo_tensors
from camserve.protocols.kserve_checks import copy_options
from camserve.protocols.photo_tensors import MAX_RANK
from camserve.settings import Limits

#: Triton's parameter of a tensor whose elements are not in the request.
_SHARED_MEMORY: Final = "shared_memory_region"


@dataclass(frozen=True)
class InputTensor:
    """An input tensor, with its elements not parsed yet.

    Attributes:
        name: of the tensor.
        datatype: KServe's name, as the caller wrote it.
        shape: the lengths of its axes, -1 for any; None where the caller leaves it out.
        data: the elements: nested lists, or bytes where they stand behind the JSON.
        parameters: of the tensor.
    """

    name: str
    datatype: Any
    shape: tuple[int, ...] | None
    data: list[Any] | memoryview
    parameters: dict[str, Any]

    @property
    def what(self) -> str:
        """What an error message calls it."""
        return f"input {short_repr(self.name)}"


def parse_tensor(tensor: Any) -> InputTensor:
    """An input of a request, as JSON has it.

    Raises:
        RequestError: ``invalid_request``: it is no tensor, or its elements are not in the request.
    """
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RequestError(
            "invalid_request",
            'an input must be an object with a name, as {"name": "image", "datatype": "BYTES", '
            '"shape": [1], "data": [".."]}',
        )
    name, shape, data = tensor["name"], tensor.get("shape"), tensor.get("data")
    parameters = copy_options(f"parameters of {name}", tensor.get("parameters", {}))
    if _SHARED_MEMORY in parameters:
        raise RequestError(
            "invalid_request",
            f"input {short_repr(name)} is in shared memory, which this server has not; accepted: "
            "its elements in the request",
        )
    if not isinstance(data, list | memoryview):
        raise RequestError(
            "invalid_request",
            f"input {short_repr(name)} must have its elements in a list 'data'",
        )
    if shape is not None and not (
        isinstance(shape, list)
        and len(shape) <= MAX_RANK
        and all(type(length) is int and length >= -1 for length in shape)
    ):
        raise RequestError(
            "invalid_request",
            f"input {short_repr(name)} has the shape {short_repr(shape)}; accepted: a list of up "
            f"to {MAX_RANK} lengths, -1 for any",
        )
    return InputTensor(
        name, tensor.get("datatype"), None if shape is None else tuple(shape), data, parameters
    )


def flat_elements(tensor: InputTensor, limits: Limits, from_grpc: bool) -> list[Any]:
    """A tensor's elements in a flat list, which fit its shape."""
    if isinstance(tensor.data, memoryview):
        elements = binary_tensors.elements(tensor.datatype, tensor.data, tensor.what, limits)
        nested: tuple[int, ...] = (len(elements),)
    else:
        nested, elements = photo_tensors.flatten(tensor.data, tensor.what)
    complete_shape(tensor, nested, from_grpc)
    return elements


def complete_shape(
    tensor: InputTensor, of_data: tuple[int, ...], from_grpc: bool
) -> tuple[int, ...]:
    """A tensor's shape without -1, as its data complete it.

    Args:
        tensor: with or without a shape.
        of_data: the lengths of the nested lists; the number of elements where there is one list.
        from_grpc: for the error message.

    Raises:
        RequestError: ``invalid_request``: shape and data do not agree, or leave several lengths
            open.
    """
    shape, count = tensor.shape, math.prod(of_data)
    if shape is None:
        return of_data
    if len(shape) == len(of_data) and all(
        length in (-1, actual) for length, actual in zip(shape, of_data, strict=True)
    ):
        return of_data
    if len(_without_ones(of_data)) > 1 and _without_ones(shape) != _without_ones(of_data):
        # Only a flat list has no order of axes of its own.
        raise disagreement(tensor, f"nested lists of the shape {list(of_data)}", from_grpc)
    known = math.prod(length for length in shape if length != -1)
    unknown = shape.count(-1)
    if unknown == 0 and known == count:
        return shape
    if unknown and (known and count % known == 0) and (unknown == 1 or count == known):
        return tuple(count // known if length == -1 else length for length in shape)
    raise disagreement(tensor, f"{count} elements", from_grpc)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def disagreement(tensor: InputTensor, content: str, from_grpc: bool) -> RequestError:
    hint = " (over gRPC, TorchServe drops raw_input_contents: use 'contents')" if from_grpc else ""
    shape = None if tensor.shape is None else list(tensor.shape)
    return RequestError(
        "invalid_request",
        f"{tensor.what} has the shape {short_repr(shape)} and {content}; they must agree{hint}",
    )
