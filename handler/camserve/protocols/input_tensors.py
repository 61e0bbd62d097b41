"""The input tensors of KServe v2 -> a JSON object for each photo."""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pybase64

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.options import Options
from camserve.protocols.json_limits import check_same
from camserve.protocols.kserve_checks import check_photo_count, copy_options
from camserve.settings import Limits

#: The name of the input tensor that holds the photos.
IMAGE: Final = "image"
_INPUT_NAMES: Final = (IMAGE, *Options.model_fields)
#: More axes than any input needs, and few enough that multiplying the lengths takes no time.
MAX_RANK: Final = 4
_USAGE_HINT: Final = (
    'send the photos as an input "image" of datatype "BYTES" and shape [n], in base64 where the '
    "body is JSON"
)


def parse_inputs(
    inputs: Any, parameters: Mapping[str, Any], limits: Limits
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Parse the input tensors of a request.

    Args:
        inputs: the request's list of tensors.
        parameters: the request's own parameters.
        limits: of an option's text.

    Returns:
        The elements of each tensor by the tensor's name, with ``image`` among them, and the
        parameters of the request and of its tensors.

    Raises:
        RequestError: a tensor is invalid, there is no ``image`` or two, or an option has two values
            that do not mean the same.
    """
    if not isinstance(inputs, list):
        raise RequestError("invalid_request", f"'inputs' must be a list; {_USAGE_HINT}")
    names = [tensor.get("name") if isinstance(tensor, dict) else None for tensor in inputs]
    if all(isinstance(name, str) for name in names) and IMAGE not in names:
        raise RequestError("missing_image", f"the request carries no photo; {_USAGE_HINT}")
    elements: dict[str, list[Any]] = {}
    all_parameters = dict(parameters)
    for tensor in inputs:
        name, data, tensor_parameters = _parse_tensor(tensor)
        if name in elements:
            _check_same(name, elements[name], data, limits)
        elements[name] = data
        for option, value in tensor_parameters.items():
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
        raise RequestError("missing_image", f"the input 'image' is empty; {_USAGE_HINT}")
    check_photo_count(len(images), max_instances)
    instances = [{IMAGE: image} for image in images]
    for name, data in elements.items():
        if name == IMAGE:
            continue
        values = [_decode_text(name, value) for value in data] if base64_text else data
        if len(values) not in (1, len(images)):
            raise RequestError(
                "invalid_request",
                f"input {short_repr(name)} has {len(values)} elements; accepted: 1 or "
                f"{len(images)}, one for each of {IMAGE!r}",
            )
        for index, instance in enumerate(instances):
            instance[name] = values[index % len(values)]
    return instances


def _check_same(name: str, one: list[Any], other: list[Any], limits: Limits) -> None:
    """Reject a second tensor of a name, unless it is an option's and has the same values."""
    if name == IMAGE:
        raise RequestError("invalid_request", f"input {IMAGE!r} is given twice; give it once")
    if len(one) != len(other):
        raise RequestError("conflicting_options", f"input {short_repr(name)} is given twice")
    for value, again in zip(one, other, strict=True):
        check_same(name, value, again, limits)


def _parse_tensor(tensor: Any) -> tuple[str, list[Any], dict[str, Any]]:
    """An input tensor's name, its elements, and its own parameters."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RequestError(
            "invalid_request", f"an input must be an object with a name; {_USAGE_HINT}"
        )
    name, shape = tensor["name"], tensor.get("shape")
    if name not in _INPUT_NAMES:
        raise RequestError("unknown_option", unknown_name_message("input", name, _INPUT_NAMES))
    if not isinstance(tensor.get("data"), list):
        raise RequestError(
            "invalid_request",
            f"input {short_repr(name)} must have its elements in a list 'data'",
        )
    elements = list(_flatten(tensor["data"], name))
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_RANK
        or not all(type(length) is int and length >= 0 for length in shape)
        or math.prod(shape) != len(elements)
    ):
        raise RequestError(
            "invalid_request",
            f"input {short_repr(name)} has the shape {short_repr(shape)} and {len(elements)} "
            "elements; they must agree (over gRPC, TorchServe drops raw_input_contents: use "
            "'contents')",
        )
    return name, elements, copy_options(f"parameters of {name}", tensor.get("parameters", {}))


def _flatten(data: list[Any], name: str) -> Iterator[Any]:
    """The elements of nested lists, which may have up to ``MAX_RANK`` levels."""
    level = data
    for _ in range(MAX_RANK):
        if not any(isinstance(element, list) for element in level):
            return iter(level)
        if not all(isinstance(element, list) for element in level):
            break
        level = [child for element in level for child in element]
    raise RequestError("invalid_request", f"'data' of input {short_repr(name)} is no tensor")


def _decode_text(name: str, value: Any) -> Any:
    """Text from its base64; a value of another type is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return pybase64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise RequestError(
            "invalid_option", f"input {short_repr(name)} is not UTF-8 text"
        ) from None
