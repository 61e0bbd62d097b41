"""Checks how large and deep the JSON of a request is.

The numbers of a photo that is a tensor are not counted: its size is judged as that of any photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from camserve.options import Options
from camserve.protocols.json_limits import check_structure
from camserve.protocols.photo_tensors import MAX_RANK
from camserve.settings import Limits

#: A tuple: what is compared with its names can be anything, a list too.
_OPTIONS: Final = tuple(Options.model_fields)


def check_body(body: Any, limits: Limits) -> None:
    """Reject a body that contains too many values, or is nested too deep.

    Args:
        body: as parsed from JSON; what is none has one value.
        limits: of the number of values and the depth.

    Raises:
        RequestError: ``json_too_large``.
    """
    check_structure("the body", _without_photo_numbers(body), limits)


def _without_photo_numbers(body: Any) -> Any:
    """A body in which the photos that are tensors are empty lists."""
    if not isinstance(body, Mapping):
        return body
    reduced = _reduced_photo(body)
    instances, inputs = body.get("instances"), body.get("inputs")
    if isinstance(instances, list):
        reduced["instances"] = [_reduced_instance(instance) for instance in instances]
    if isinstance(inputs, list):
        reduced["inputs"] = [_reduced_input(tensor) for tensor in inputs]
    return reduced


def _reduced_instance(instance: Any) -> Any:
    if isinstance(instance, Mapping):
        return _reduced_photo(instance)
    return [] if _begins_with_number(instance) else instance


def _reduced_photo(body: Mapping[str, Any]) -> dict[str, Any]:
    """Whatever its name: that of a photo under a wrong one is refused for that."""
    return {
        name: [] if name not in _OPTIONS and _begins_with_number(value) else value
        for name, value in body.items()
    }


def _reduced_input(tensor: Any) -> Any:
    if not isinstance(tensor, Mapping) or tensor.get("name") in _OPTIONS:
        return tensor
    return {**tensor, "data": []} if _begins_with_number(tensor.get("data")) else tensor


def _begins_with_number(value: Any) -> bool:
    """Whether nested lists begin with a number, as a tensor does; its parser checks the rest."""
    depth = 0
    while isinstance(value, list) and value and depth < MAX_RANK:
        value, depth = value[0], depth + 1
    return depth > 0 and isinstance(value, int | float)
