"""The input tensors of KServe v2 -> a JSON object for each photo."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pybase64

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.options import Options
from camserve.protocols import photo_tensors
from camserve.protocols.binary_tensors import BINARY_SIZE
from camserve.protocols.json_limits import check_same
from camserve.protocols.kserve_checks import check_photo_count
from camserve.protocols.photo_tensors import INPUT_KIND
from camserve.protocols.tensor_elements import (
    InputTensor,
    complete_shape,
    disagreement,
    flat_elements,
    parse_tensor,
)
from camserve.settings import Limits

#: The name of the input tensor that holds the photos. A tensor of another name holds them where it
#: is the only one that is no option.
IMAGE: Final = "image"
_OPTIONS: Final = (*Options.model_fields, INPUT_KIND)
#: What KServe's and Triton's clients say of a tensor, and not of a photo. ``content_type`` is
#: MLServer's word for how a client encoded it.
_TENSOR_PARAMETERS: Final = (BINARY_SIZE, "binary_data", "content_type")
_USAGE_HINT: Final = (
    'send the photos as an input "image" of datatype "BYTES" and shape [n], in base64 where the '
    "body is JSON"
)


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
    tensors = [parse_tensor(tensor) for tensor in inputs]
    photo_name = _photo_name(tensors)
    elements: dict[str, list[Any]] = {}
    all_parameters = dict(parameters)
    for tensor in tensors:
        is_photo = tensor.name == photo_name
        values = (
            _photo_elements(tensor, limits, from_grpc)
            if is_photo
            else flat_elements(tensor, limits, from_grpc)
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
        return flat_elements(tensor, limits, from_grpc)
    if datatype not in ("UINT8", "FP32"):
        if isinstance(tensor.data, list):
            elements = flat_elements(tensor, limits, from_grpc)
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
            raise disagreement(tensor, f"{len(tensor.data)} bytes", from_grpc)
        shape = complete_shape(tensor, (len(tensor.data) // size,), from_grpc)
        data: bytes | memoryview = tensor.data
    else:
        nested, flat = photo_tensors.flatten(tensor.data, what)
        shape = complete_shape(tensor, nested, from_grpc)
        if flat and isinstance(flat[0], str):
            return flat
        data = photo_tensors.pack(datatype, flat, what)
    if datatype == "UINT8" and (len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)):
        # The bytes of a file, as Triton's pipelines that decode photos take them.
        return [bytes(data)]
    return list(photo_tensors.split(datatype, shape, data, what))


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
