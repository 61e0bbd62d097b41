"""The input tensors of KServe v2 -> a JSON object for each photo."""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pybase64

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.options import Options
from camserve.protocols import binary_tensors, photo_tensors
from camserve.protocols.binary_tensors import BINARY_SIZE
from camserve.protocols.json_limits import check_same
from camserve.protocols.kserve_checks import check_photo_count, copy_options
from camserve.protocols.photo_tensors import INPUT_KIND, MAX_RANK
from camserve.settings import Limits

#: The name of the input tensor that holds the photos. A tensor of another name holds them where it
#: is the only one that is no option.
IMAGE: Final = "image"
_OPTIONS: Final = (*Options.model_fields, INPUT_KIND)
#: What KServe's and Triton's clients say of a tensor, and not of a photo. ``content_type`` is
#: MLServer's word for how a client encoded it.
_TENSOR_PARAMETERS: Final = (BINARY_SIZE, "binary_data", "content_type")
#: Triton's parameter of a tensor whose elements are not in the request.
_SHARED_MEMORY: Final = "shared_memory_region"
_USAGE_HINT: Final = (
    'send the photos as an input "image" of datatype "BYTES" and shape [n], in base64 where the '
    "body is JSON"
)


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


def parse_inputs(
    inputs: Any, parameters: Mapping[str, Any], limits: Limits, *, from_grpc: bool
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Parse the input tensors of a request.

    Args:
        inputs: the request's list of tensors.
        parameters: the request's own parameters.
        limits: of an option's text, and of the number of elements of an option.
        from_grpc: TorchServe's gRPC frontend has made the tensors.

    Returns:
        The elements of each tensor by the tensor's name, the photos under ``image``, and the
        parameters of the request and of its tensors.

    Raises:
        RequestError: a tensor is invalid, none or two hold photos, or an option has two values that
            do not mean the same.
    """
    if not isinstance(inputs, list):
        raise RequestError("invalid_request", f"'inputs' must be a list; {_USAGE_HINT}")
    tensors = [_parse_tensor(tensor) for tensor in inputs]
    photo_name = _photo_name(tensors)
    elements: dict[str, list[Any]] = {}
    all_parameters = dict(parameters)
    for tensor in tensors:
        is_photo = tensor.name == photo_name
        values = (
            _photo_elements(tensor, limits, from_grpc)
            if is_photo
            else _elements(tensor, limits, from_grpc)
        )
        key = IMAGE if is_photo else tensor.name
        if key in elements:
            _check_same(key, elements[key], values, limits)
        elements[key] = values
        for option, value in tensor.parameters.items():
            if option not in _TENSOR_PARAMETERS:
                check_same(option, all_parameters.setdefault(option, value), value, limits)
    return elements, all_parameters


def split_by_photo(
    elements: Mapping[str, list[Any]], max_instances: int, base64_text: bool
) -> list[dict[str, Any]]:
    """A JSON object for each photo, with the photo and its options.

    Args:
        elements: of each input tensor, by name. ``image`` has n; an option has n, or one for all
            photos.
        max_instances: the largest n that is accepted.
        base64_text: an option's text is in base64.

    Raises:
        RequestError: n is 0 or too large, an option has another number of elements, or its text
            cannot be decoded.
    """
    images = elements[IMAGE]
    if not images:
        raise RequestError("missing_image", f"the input of photos is empty; {_USAGE_HINT}")
    check_photo_count(len(images), max_instances)
    instances = [{IMAGE: image} for image in images]
    for name, data in elements.items():
        if name == IMAGE:
            continue
        values = [_decode_text(name, value, base64_text) for value in data]
        if len(values) not in (1, len(images)):
            each = f" or {len(images)}, one for each photo" if len(images) > 1 else ""
            raise RequestError(
                "invalid_request",
                f"input {short_repr(name)} has {len(values)} elements; accepted: 1{each}; a list "
                "of values is one text",
            )
        for index, instance in enumerate(instances):
            instance[name] = values[index % len(values)]
    return instances


def _parse_tensor(tensor: Any) -> InputTensor:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RequestError(
            "invalid_request", f"an input must be an object with a name; {_USAGE_HINT}"
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


def _photo_name(tensors: Sequence[InputTensor]) -> str:
    """The name of the input that holds the photos.

    Raises:
        RequestError: ``missing_image``: all are options; ``unknown_option``: several are none.
    """
    names = dict.fromkeys(tensor.name for tensor in tensors)
    others = [name for name in names if name not in _OPTIONS]
    if not others:
        raise RequestError("missing_image", f"the request carries no photo; {_USAGE_HINT}")
    photo_name = IMAGE if IMAGE in others else others[0]
    unknown = [name for name in others if name != photo_name]
    if unknown:
        raise RequestError(
            "unknown_option", unknown_name_message("input", unknown[0], (IMAGE, *_OPTIONS))
        )
    return photo_name


def _photo_elements(tensor: InputTensor, limits: Limits, from_grpc: bool) -> list[Any]:
    """The photos of a tensor: files in base64 or as they are, or tensors."""
    what, datatype = tensor.what, tensor.datatype
    if datatype == "BYTES":
        return _elements(tensor, limits, from_grpc)
    if datatype not in ("UINT8", "FP32"):
        if isinstance(tensor.data, list):
            elements = _elements(tensor, limits, from_grpc)
            if not elements or not {*map(type, elements)} <= {int, float}:
                # Files whose datatype is not named; what else there is among them fails by itself.
                return elements
        raise RequestError(
            "invalid_request",
            f"{what} holds the photos and has the datatype {short_repr(datatype)}; accepted: "
            "BYTES for files, UINT8 or FP32 for numbers",
        )
    if isinstance(tensor.data, memoryview):
        # The numbers are kept as they are: those of the extension are in little endian.
        size = photo_tensors.ITEM_SIZE[datatype]
        if len(tensor.data) % size:
            raise _disagreement(tensor, f"{len(tensor.data)} bytes", from_grpc)
        shape = _complete_shape(tensor, (len(tensor.data) // size,), from_grpc)
        data: bytes | memoryview = tensor.data
    else:
        nested, flat = photo_tensors.flatten(tensor.data, what)
        shape = _complete_shape(tensor, nested, from_grpc)
        if flat and isinstance(flat[0], str):
            return flat
        data = photo_tensors.pack(datatype, flat, what)
    if datatype == "UINT8" and (len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)):
        # The bytes of a file, as Triton's pipelines that decode photos take them.
        return [bytes(data)]
    return list(photo_tensors.split(datatype, shape, data, what))


def _elements(tensor: InputTensor, limits: Limits, from_grpc: bool) -> list[Any]:
    """A tensor's elements in a flat list, which fit its shape."""
    if isinstance(tensor.data, memoryview):
        elements = binary_tensors.elements(tensor.datatype, tensor.data, tensor.what, limits)
        nested: tuple[int, ...] = (len(elements),)
    else:
        nested, elements = photo_tensors.flatten(tensor.data, tensor.what)
    _complete_shape(tensor, nested, from_grpc)
    return elements


def _complete_shape(
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
        raise _disagreement(tensor, f"nested lists of the shape {list(of_data)}", from_grpc)
    known = math.prod(length for length in shape if length != -1)
    unknown = shape.count(-1)
    if unknown == 0 and known == count:
        return shape
    if unknown and (known and count % known == 0) and (unknown == 1 or count == known):
        return tuple(count // known if length == -1 else length for length in shape)
    raise _disagreement(tensor, f"{count} elements", from_grpc)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _disagreement(tensor: InputTensor, content: str, from_grpc: bool) -> RequestError:
    hint = " (over gRPC, TorchServe drops raw_input_contents: use 'contents')" if from_grpc else ""
    shape = None if tensor.shape is None else list(tensor.shape)
    return RequestError(
        "invalid_request",
        f"{tensor.what} has the shape {short_repr(shape)} and {content}; they must agree{hint}",
    )


def _check_same(name: str, one: list[Any], other: list[Any], limits: Limits) -> None:
    """Reject a second tensor of a name, unless it is an option's and has the same values."""
    if name == IMAGE:
        raise RequestError("invalid_request", "the input of photos is given twice; give it once")
    if len(one) != len(other):
        raise RequestError("conflicting_options", f"input {short_repr(name)} is given twice")
    for value, again in zip(one, other, strict=True):
        check_same(name, value, again, limits)


def _decode_text(name: str, value: Any, base64_text: bool) -> Any:
    """Text from its bytes or base64; a value of another type is returned as it is."""
    if not isinstance(value, bytes) and not (base64_text and isinstance(value, str)):
        return value
    try:
        encoded = value if isinstance(value, bytes) else pybase64.b64decode(value, validate=True)
        return encoded.decode()
    except (binascii.Error, ValueError):
        raise RequestError(
            "invalid_option", f"input {short_repr(name)} is not UTF-8 text"
        ) from None
