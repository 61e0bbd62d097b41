"""A tensor's elements: typed, as gRPC has them, and raw, as HTTP and gRPC have them.

Raw elements stand row by row, little-endian; one of BYTES is its length (uint32) and its bytes.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.open_inference_pb2 import InferTensorContents

_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True)
class _NumberFormat:
    """How a datatype's elements are written.

    Attributes:
        field: of InferTensorContents.
        code: of Python's ``array`` and ``memoryview``.
    """

    field: str
    code: str


_NUMBERS: Final = {
    "BOOL": _NumberFormat("bool_contents", "B"),
    "INT8": _NumberFormat("int_contents", "b"),
    "INT16": _NumberFormat("int_contents", "h"),
    "INT32": _NumberFormat("int_contents", "i"),
    "INT64": _NumberFormat("int64_contents", "q"),
    "UINT8": _NumberFormat("uint_contents", "B"),
    "UINT16": _NumberFormat("uint_contents", "H"),
    "UINT32": _NumberFormat("uint_contents", "I"),
    "UINT64": _NumberFormat("uint64_contents", "Q"),
    "FP32": _NumberFormat("fp32_contents", "f"),
    "FP64": _NumberFormat("fp64_contents", "d"),
}
_BYTES_FIELD: Final = "bytes_contents"
#: The datatypes that have typed contents; FP16 and BF16 are raw only.
TYPED: Final = (*_NUMBERS, "BYTES")


def to_raw(name: str, datatype: str, contents: InferTensorContents) -> bytes:
    """Typed contents -> the same elements, raw.

    Args:
        name: of the tensor, for the error message.

    Raises:
        FrontError: ``invalid_request``: the contents are in the field of another datatype, the
            datatype has none, or an element is out of its range.
    """
    number = _NUMBERS.get(datatype)
    field = _BYTES_FIELD if datatype == "BYTES" else number and number.field
    if not field:
        raise FrontError(
            "invalid_request",
            f"input {name[:80]!r} has the datatype {datatype[:80]!r}, which has no typed contents; "
            f"accepted: {', '.join(TYPED)}, or raw_input_contents",
        )
    others = [found.name for found, _ in contents.ListFields() if found.name != field]
    if others:
        raise FrontError(
            "invalid_request",
            f"input {name[:80]!r} of the datatype {datatype} has its elements in {others[0]}; "
            f"accepted: {field}",
        )
    elements = getattr(contents, field)
    if number is None:
        return b"".join(
            part for element in elements for part in (_LENGTH.pack(len(element)), element)
        )
    try:
        written = array(number.code, elements)
    except OverflowError:
        raise FrontError(
            "invalid_request", f"input {name[:80]!r} has an element that is no {datatype}"
        ) from None
    if sys.byteorder == "big":
        written.byteswap()
    return written.tobytes()


def to_contents(datatype: str, raw: memoryview, contents: InferTensorContents) -> None:
    """Raw elements -> typed contents.

    Args:
        contents: to write to.

    Raises:
        ValueError: the elements are not of the datatype, or it has no typed contents.
    """
    if datatype == "BYTES":
        contents.bytes_contents.extend(_split(raw))
        return
    number = _NUMBERS.get(datatype)
    if number is None:
        raise ValueError(f"no typed contents of the datatype {datatype!r}")
    numbers = array(number.code)
    # It raises ValueError for half an element.
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    getattr(contents, number.field).extend(numbers)


def _split(raw: memoryview) -> Iterator[bytes]:
    """The elements of a raw BYTES tensor.

    Raises:
        ValueError: a length does not fit.
    """
    begin = 0
    while begin < len(raw):
        try:
            (length,) = _LENGTH.unpack_from(raw, begin)
        except struct.error:
            raise ValueError("half a length") from None
        begin += _LENGTH.size
        if begin + length > len(raw):
            raise ValueError("an element ends behind its tensor")
        yield bytes(raw[begin : begin + length])
        begin += length
