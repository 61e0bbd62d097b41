"""The binary tensor data extension of KServe v2: tensors as bytes behind the JSON of a body.

The header ``Inference-Header-Content-Length`` says where the JSON ends. Behind it stand the
elements of each tensor that has the parameter ``binary_data_size`` in its place of ``data``.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_tensor_data.md
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from camserve.errors import RequestError, short_repr
from camserve.protocols.json_limits import check_count, parse_json
from camserve.protocols.schema import Datatype, TensorBody, V2Body
from camserve.settings import Limits

#: The number of bytes of the JSON; in small letters, as a server hands headers on.
HEADER_LENGTH: Final = "inference-header-content-length"
#: The parameter of a tensor that stands behind the JSON: its number of bytes.
BINARY_SIZE: Final = "binary_data_size"
#: The bytes of the length in front of each element of BYTES.
_LENGTH: Final = struct.Struct("<I")
#: How ``struct`` unpacks an element; KServe's binary tensors are in little endian.
_FORMATS: Final = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


def attach_binary(body: Any, header_length: str, limits: Limits) -> dict[str, Any]:
    """The JSON of a body, in which each binary input has its bytes as ``data``.

    Args:
        body: the JSON, and the bytes behind it; None or a text where the server has parted or
            decoded it.
        header_length: the value of the header.
        limits: of the number of values in the JSON.

    Returns:
        The parsed JSON. The ``data`` of a binary input is a memoryview, which no JSON holds.

    Raises:
        RequestError: ``invalid_request``: the header or the sizes do not fit the body;
            ``invalid_json``, ``conflicting_options``, ``json_too_large``.
    """
    if not isinstance(body, bytes | bytearray):
        raise _misfit("needs a body of the content type application/octet-stream")
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 10):
        raise _misfit(f"is {short_repr(header_length)}; accepted: the JSON's number of bytes")
    length = int(header_length)
    if length > len(body):
        raise _misfit(f"is {length}, but the body has {len(body)} bytes")
    view = memoryview(body)
    try:
        parsed = parse_json(bytes(view[:length]), limits)
    except (ValueError, RecursionError):
        raise RequestError(
            "invalid_json",
            f"the first {length} bytes of the body, which the header "
            "Inference-Header-Content-Length calls JSON, are none",
        ) from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("inputs"), list):
        raise _misfit("stands in a request that has no list 'inputs' of KServe v2")
    attached, rest = [], view[length:]
    for tensor in parsed["inputs"]:
        size = _binary_size(tensor)
        if size is not None:
            if size > len(rest):
                raise _misfit(
                    f"leaves {len(view) - length} bytes of tensors, but their "
                    f"{BINARY_SIZE!r} come to more"
                )
            tensor, rest = {**tensor, "data": rest[:size]}, rest[size:]
        attached.append(tensor)
    if rest:
        raise _misfit(f"leaves {len(rest)} bytes that belong to no tensor's {BINARY_SIZE!r}")
    return {**parsed, "inputs": attached}


def elements(datatype: Any, data: memoryview, what: str, limits: Limits) -> list[Any]:
    """The elements of a binary tensor: numbers, booleans, or bytes.

    Args:
        datatype: KServe's name.
        data: the bytes.
        what: what the error message calls the tensor.
        limits: of the number of elements.

    Raises:
        RequestError: ``invalid_request``: they are not of this datatype; ``json_too_large``.
    """
    if datatype == "BYTES":
        return list(_byte_strings(data, what, limits))
    code = _FORMATS.get(datatype) if isinstance(datatype, str) else None
    if code is None:
        raise RequestError(
            "invalid_request",
            f"{what} has the datatype {short_repr(datatype)}; accepted: BYTES, "
            f"{', '.join(_FORMATS)}",
        )
    size = struct.calcsize(f"<{code}")
    if len(data) % size:
        raise RequestError(
            "invalid_request",
            f"{what} has {len(data)} bytes; accepted: {size} for each element of {datatype}",
        )
    check_count(what, len(data) // size, limits)
    return list(struct.unpack(f"<{len(data) // size}{code}", data))


def encode_binary(body: V2Body, is_binary: Callable[[str], bool]) -> tuple[bytes, int]:
    """A reply's body with some of its tensors as bytes behind the JSON.

    Args:
        body: with all tensors in the JSON.
        is_binary: whether a tensor of this name goes behind it.

    Returns:
        The body, and the number of bytes of the JSON.
    """
    tensors: list[Mapping[str, Any]] = []
    pieces: list[bytes] = []
    for tensor in body["outputs"]:
        if is_binary(tensor["name"]):
            pieces.append(_encode(tensor["datatype"], tensor["data"]))
            tensors.append(_without_data(tensor, len(pieces[-1])))
        else:
            tensors.append(tensor)
    text = orjson.dumps({**body, "outputs": tensors})
    return b"".join([text, *pieces]), len(text)


def _without_data(tensor: TensorBody, size: int) -> Mapping[str, Any]:
    kept = {name: value for name, value in tensor.items() if name != "data"}
    return {**kept, "parameters": {BINARY_SIZE: size}}


def _encode(datatype: Datatype, data: Sequence[Any]) -> bytes:
    """The bytes of a tensor's elements."""
    if datatype == "BYTES":
        encoded = [element.encode() for element in data]
        return b"".join(part for one in encoded for part in (_LENGTH.pack(len(one)), one))
    if datatype == "BOOL":
        return bytes(data)
    return array("q" if datatype == "INT64" else "f", data).tobytes()


def _binary_size(tensor: Any) -> int | None:
    """The number of an input's bytes behind the JSON; None where its elements are in the JSON."""
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    if not isinstance(parameters, dict) or BINARY_SIZE not in parameters:
        return None
    size = parameters[BINARY_SIZE]
    if type(size) is not int or size < 0:
        raise RequestError(
            "invalid_request",
            f"{BINARY_SIZE!r} is {short_repr(size)}; accepted: the tensor's number of bytes",
        )
    if "data" in tensor:
        raise RequestError(
            "invalid_request",
            f"input {short_repr(tensor.get('name'))} has both 'data' and {BINARY_SIZE!r}; "
            "accepted: one of them",
        )
    return size


def _byte_strings(data: memoryview, what: str, limits: Limits) -> Iterator[bytes]:
    """The elements of BYTES, each behind its length in four bytes."""
    position, count = 0, 0
    while position < len(data):
        check_count(what, count := count + 1, limits)
        begin = position + _LENGTH.size
        length = _LENGTH.unpack(data[position:begin])[0] if begin <= len(data) else len(data)
        position = begin + length
        if position > len(data):
            raise RequestError(
                "invalid_request",
                f"{what} ends inside an element; accepted: before each element of BYTES its "
                "length, in 4 bytes of little endian",
            )
        yield bytes(data[begin:position])


def _misfit(what: str) -> RequestError:
    return RequestError("invalid_request", f"the header Inference-Header-Content-Length {what}")
