"""What the tests and a client's process say to each other, as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: KServe's name of a datatype, by numpy's.
_DATATYPES = {
    "object": "BYTES", "uint8": "UINT8", "int64": "INT64", "float32": "FP32", "float64": "FP64",
    "bool": "BOOL",
}  # fmt: skip


class Failure(Exception):  # noqa: N818 - the client's own exception is the error
    """A client raised an exception.

    Attributes:
        kind: the exception's class.
        message: what it says.
        status: HTTP's status, or the name of gRPC's; empty where the client knows none.
    """

    def __init__(self, kind: str, message: str, status: str) -> None:
        super().__init__(f"{kind}: [{status}] {message}")
        self.kind = kind
        self.message = message
        self.status = status


# The tests' side


def pack(name: str, array: NDArray[Any], **more: Any) -> dict[str, Any]:
    """An input tensor for a client's process.

    Args:
        name: of the tensor.
        array: its elements; of objects, bytes or text.
        more: ``shape``, where the client is to claim another; ``datatype``; ``parameters``.
    """
    if array.dtype == object:
        elements: Any = [
            base64.b64encode(one if isinstance(one, bytes) else one.encode()).decode()
            for one in array.ravel()
        ]
    else:
        elements = base64.b64encode(array.tobytes()).decode()
    return {
        "name": name,
        "datatype": _DATATYPES[array.dtype.name],
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "elements": elements,
        "claimed": more,
    }


def photos(*files: bytes, name: str = "image") -> dict[str, Any]:
    """The input of photos, as files; in base64 where the client puts them into JSON."""
    return {**pack(name, np.array(files, object)), "base64_in_json": True}


def options(**values: Any) -> list[dict[str, Any]]:
    """Inputs of one element each, which are options of all photos."""
    return [pack(name, _one(value)) for name, value in values.items()]


def _one(value: Any) -> NDArray[Any]:
    if isinstance(value, list | dict):
        value = json.dumps(value)
    return np.array([value], object if isinstance(value, str) else None)


# The client's side


def unpack(tensor: Mapping[str, Any]) -> NDArray[Any]:
    """The elements of :func:`pack`; those of objects are bytes."""
    if tensor["dtype"] == "object":
        elements = np.empty(len(tensor["elements"]), object)
        elements[:] = [base64.b64decode(one) for one in tensor["elements"]]
        return elements.reshape(tensor["shape"])
    raw = base64.b64decode(tensor["elements"])
    return np.frombuffer(raw, tensor["dtype"]).reshape(tensor["shape"])


def output(name: str, datatype: str, array: NDArray[Any]) -> dict[str, Any]:
    """An output tensor as KServe v2 has it in JSON; the elements of BYTES are text."""
    elements: Sequence[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        elements = [one.decode() if isinstance(one, bytes) else str(one) for one in elements]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": elements}
