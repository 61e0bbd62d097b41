"""Photos that are no files: tensors of pixels, or of the network's own input."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from camserve.errors import RequestError, short_repr

#: ``pixels``: 0 to 255, as a photo's file has them; ``normalized``: as the network receives them.
InputKind = Literal["pixels", "normalized"]
#: The parameter that says which of them a tensor holds.
INPUT_KIND: Final = "input_kind"
#: The datatypes of KServe that photos can have.
PhotoDatatype = Literal["UINT8", "FP32"]
#: More axes than any tensor needs, and few enough that multiplying the lengths takes no time.
MAX_RANK: Final = 4
#: The bytes of a number.
ITEM_SIZE: Final[dict[PhotoDatatype, int]] = {"UINT8": 1, "FP32": 4}
_USAGE_HINT: Final = (
    "accepted: (height, width, 3) of pixels, or 1 in place of 3 for grey, in KServe v2 also "
    "(n, height, width, 3); or the network's own input with input_kind 'normalized'"
)


@dataclass(frozen=True)
class PhotoTensor:
    """A photo as numbers.

    Attributes:
        datatype: of the numbers.
        shape: the lengths of its three axes: height, width and channels, or for the network's own
            input also channels, height and width.
        data: the numbers, row by row; FP32 in little endian.
        kind: what they are.
        is_typed: whether the caller named the datatype, which lists of JSON do not.
    """

    datatype: PhotoDatatype
    shape: tuple[int, int, int]
    data: bytes | memoryview
    kind: InputKind = "pixels"
    is_typed: bool = True

    def __len__(self) -> int:
        """The number of bytes."""
        return len(self.data)

    def with_kind(self, kind: Any) -> PhotoTensor:
        """The tensor as what the caller says that it is.

        Args:
            kind: the parameter ``input_kind``; None where the caller does not say.

        Raises:
            RequestError: ``invalid_option``: there is no such kind; ``invalid_request``: numbers
                with a fraction can be both, or whole ones cannot be ``normalized``.
        """
        if kind is not None and kind not in get_args(InputKind):
            raise RequestError(
                "invalid_option",
                f"{INPUT_KIND!r}: {short_repr(kind)} is not accepted; accepted: "
                f"{' or '.join(get_args(InputKind))}",
            )
        if self.datatype == "FP32" and kind is None:
            raise RequestError(
                "invalid_request",
                f"a photo of FP32 numbers needs the parameter {INPUT_KIND!r}; accepted: 'pixels' "
                "for numbers from 0 to 255, 'normalized' for the network's own input",
            )
        if self.datatype == "UINT8" and kind == "normalized" and not self.is_typed:
            numbers = pack("FP32", self.data, "the photo")
            return replace(self, datatype="FP32", data=numbers, kind="normalized")
        if self.datatype == "UINT8" and kind == "normalized":
            raise RequestError(
                "invalid_request",
                "a photo of UINT8 numbers cannot be 'normalized'; accepted: FP32, or the kind "
                "'pixels'",
            )
        return replace(self, kind=kind or "pixels")


def from_lists(lists: Sequence[Any]) -> PhotoTensor:
    """The photo of nested lists of numbers: UINT8 where all are whole and 0 to 255, else FP32.

    Raises:
        RequestError: ``invalid_request``: the lists are no tensor of three axes, or hold something
            else than numbers.
    """
    shape, flat = flatten(lists, "the photo")
    are_whole = set(map(type, flat)) == {int} and 0 <= min(flat) <= max(flat) <= 255
    datatype: PhotoDatatype = "UINT8" if are_whole else "FP32"
    photos = split(datatype, shape, pack(datatype, flat, "the photo"), "the photo")
    if len(photos) != 1:
        raise _wrong_shape("the photo", shape)
    return replace(photos[0], is_typed=False)


def flatten(lists: Sequence[Any], what: str) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists, and their elements row by row.

    Args:
        lists: with up to ``MAX_RANK`` levels.
        what: what the error message calls them.

    Raises:
        RequestError: ``invalid_request``: lists of a level have several lengths, or stand beside
            other elements.
    """
    level, shape = list(lists), [len(lists)]
    while level and isinstance(level[0], list):
        lengths = {len(row) if isinstance(row, list) else None for row in level}
        if len(lengths) != 1 or len(shape) == MAX_RANK:
            raise RequestError(
                "invalid_request",
                f"the lists of {what} are no tensor: on each level, all must be lists of one "
                f"length, on up to {MAX_RANK} levels",
            )
        shape.append(len(level[0]))
        level = [element for row in level for element in row]
    if list in map(type, level):
        raise RequestError(
            "invalid_request", f"the lists of {what} are no tensor: lists stand beside elements"
        )
    return tuple(shape), level


def pack(datatype: PhotoDatatype, numbers: Sequence[Any], what: str) -> bytes:
    """Numbers as bytes.

    Raises:
        RequestError: ``invalid_request``: an element is no number, or none of this datatype.
    """
    try:
        if not {*map(type, numbers)} <= {int, float}:
            raise TypeError
        return bytes(numbers) if datatype == "UINT8" else array("f", numbers).tobytes()
    except (TypeError, ValueError, OverflowError):
        accepted = "whole numbers from 0 to 255" if datatype == "UINT8" else "numbers"
        raise RequestError(
            "invalid_request", f"{what} holds elements that are no {datatype}; accepted: {accepted}"
        ) from None


def split(
    datatype: PhotoDatatype, shape: Sequence[int], data: bytes | memoryview, what: str
) -> list[PhotoTensor]:
    """The photos of a tensor: one of three axes, n of four.

    Args:
        datatype: of the numbers.
        shape: of the tensor.
        data: the numbers, row by row.
        what: what the error message calls the tensor.

    Raises:
        RequestError: ``invalid_request``: it has another number of axes, or of numbers.
    """
    if len(shape) not in (3, 4):
        raise _wrong_shape(what, shape)
    height, width, channels = shape[-3:]
    size = math.prod(shape[-3:]) * ITEM_SIZE[datatype]
    count = shape[0] if len(shape) == 4 else 1
    if size == 0 or size * count != len(data):
        raise _wrong_shape(what, shape)
    view = memoryview(data)
    return [
        PhotoTensor(datatype, (height, width, channels), view[n * size : (n + 1) * size])
        for n in range(count)
    ]


def _wrong_shape(what: str, shape: Sequence[int]) -> RequestError:
    return RequestError(
        "invalid_request",
        f"{what} is a tensor of the shape {short_repr(tuple(shape))}; {_USAGE_HINT}",
    )
