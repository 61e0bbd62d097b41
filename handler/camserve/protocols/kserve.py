"""KServe's two protocols, both ways: their bodies -> the JSON objects of the plain contract, and
the answers to these -> their bodies.

V1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
V2, which Open Inference over gRPC comes as too: .../data-plane/v2-protocol
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeGuard, get_args

import orjson
import pybase64

from camserve.errors import RequestError, shown, unknown
from camserve.options import Options, Output
from camserve.protocols.schema import (
    AnswerBody,
    ErrorBody,
    ModelBody,
    Outcome,
    Reply,
    V2Body,
    error_body,
    status_of,
    written,
)
from camserve.protocols.tensors import TENSORS, output_tensors, tensor

IMAGE: Final = "image"
_INPUTS: Final = (IMAGE, *Options.model_fields)
# More than any input needs, and few enough that their product is no work.
_AXES: Final = 4
_V1_KEYS: Final = ("instances", "parameters")
_V2_KEYS: Final = ("inputs", "outputs", "parameters", "id", "model_name", "model_version")


@dataclass(frozen=True)
class V1:
    """KServe v1.

    Attributes:
        key: under which the answers stand.
    """

    protocol: ClassVar[str] = "kserve v1"

    key: Literal["predictions", "explanations"]

    @property
    def implied(self) -> dict[str, Any]:
        """The options of a request that names none of them: nothing but the defaults."""
        return {}

    def unpack(self, body: Mapping[str, Any], at_most: int) -> tuple[list[Any], dict[str, Any]]:
        """The instances, each a JSON object with its photo, and the options of all of them.

        Raises:
            RequestError: the body is none of this protocol, or has more than ``at_most`` photos.
        """
        _check_keys("KServe v1 key", body, _V1_KEYS)
        instances = body["instances"]
        if not isinstance(instances, list) or not instances:
            raise RequestError(
                "invalid_request",
                '\'instances\' must be a list of one or more objects like {"image": {"b64": ".."}}',
            )
        _check_count(len(instances), at_most)
        return instances, _object("parameters", body.get("parameters", {}))

    def reply(self, outcomes: Sequence[Outcome], model: ModelBody) -> Reply:
        answers = [_json(outcome) for outcome in outcomes]
        return written({self.key: answers}, status_of(outcomes))

    def refused(self, error: RequestError, model: ModelBody) -> Reply:
        return written(error_body(error), error.status)


@dataclass(frozen=True)
class V2:
    """KServe v2, and Open Inference.

    Attributes:
        id: of the request, echoed.
        wanted: the names of the output tensors to send; all that there are, where empty.
        binary: the texts in BYTES inputs are in base64, as TorchServe hands on those of gRPC.
    """

    protocol: ClassVar[str] = "kserve v2"

    id: str
    wanted: tuple[str, ...] = ()
    binary: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any], binary: bool) -> V2:
        """The envelope of a body, however wrong that is: TorchServe needs its error in v2 too."""
        given = body.get("id")
        outputs = body.get("outputs")
        names = [
            output.get("name") if isinstance(output, dict) else None
            for output in (outputs if isinstance(outputs, list) else [])
        ]
        wanted = tuple(name for name in names if isinstance(name, str))
        return cls(given if _is_text(given) else "", wanted, binary)

    @property
    def implied(self) -> dict[str, Any]:
        """The options of a request that names none of them: what it wants is drawn."""
        drawn = [name for name in self.wanted if name in get_args(Output)]
        return {"outputs": drawn} if drawn else {}

    def unpack(self, body: Mapping[str, Any], at_most: int) -> tuple[list[Any], dict[str, Any]]:
        """The tensors as JSON objects, one for each element of ``image``, and the options of all.

        Raises:
            RequestError: the body is none of this protocol, its tensors do not fit together, or
                it has more than ``at_most`` photos.
        """
        _check_keys("KServe v2 key", body, _V2_KEYS)
        if not _is_text(body.get("id", "")):
            raise RequestError("invalid_request", f"'id' must be a text, not {shown(body['id'])}")
        self._check_outputs(body)
        parameters = _object("parameters", body.get("parameters", {}))
        inputs = body.get("inputs")
        if not isinstance(inputs, list):
            raise RequestError("invalid_request", f"'inputs' must be a list; {_HOW}")
        names = [one.get("name") if isinstance(one, dict) else None for one in inputs]
        if all(isinstance(name, str) for name in names) and IMAGE not in names:
            raise RequestError("missing_image", f"the request carries no photo; {_HOW}")
        tensors: dict[str, list[Any]] = {}
        for one in inputs:
            name, data, own = self._input(one)
            if name in tensors:
                raise RequestError("invalid_request", f"input {shown(name)} is given twice")
            tensors[name] = data
            for option, value in own.items():
                if parameters.setdefault(option, value) != value:
                    raise RequestError(
                        "conflicting_options", f"parameter {shown(option)} is given twice"
                    )
        images = tensors.pop(IMAGE)
        if not images:
            raise RequestError("missing_image", f"the input 'image' is empty; {_HOW}")
        _check_count(len(images), at_most)
        instances = [{IMAGE: image} for image in images]
        for name, data in tensors.items():
            data = [_text(name, element) for element in data] if self.binary else data
            if len(data) not in (1, len(images)):
                raise RequestError(
                    "invalid_request",
                    f"input {shown(name)} has {len(data)} elements; accepted: 1 or {len(images)}, "
                    f"one for each of {IMAGE!r}",
                )
            for n, instance in enumerate(instances):
                instance[name] = data[n % len(data)]
        return instances, parameters

    def reply(self, outcomes: Sequence[Outcome], model: ModelBody) -> Reply:
        answers = [None if isinstance(outcome, RequestError) else outcome for outcome in outcomes]
        tensors = list(output_tensors(answers)) if any(answers) else []
        if self.wanted:
            tensors = [one for one in tensors if one["name"] in self.wanted]
        if None in answers:
            errors = [
                orjson.dumps(error_body(outcome)["error"]).decode()
                if isinstance(outcome, RequestError)
                else ""
                for outcome in outcomes
            ]
            tensors.append(tensor("error", "BYTES", [len(errors)], errors))
        body: V2Body = {
            "id": self.id,
            "model_name": model["name"],
            "model_version": model["version"],
            "outputs": tensors,
        }
        if len(outcomes) == 1 and isinstance(outcomes[0], RequestError):
            body["error"] = error_body(outcomes[0])["error"]
        return written(body, status_of(outcomes))

    def refused(self, error: RequestError, model: ModelBody) -> Reply:
        return self.reply([error], model)

    def _check_outputs(self, body: Mapping[str, Any]) -> None:
        outputs = body.get("outputs", [])
        if not isinstance(outputs, list) or len(outputs) != len(self.wanted):
            raise RequestError(
                "invalid_request", "'outputs' must be a list of objects with the name of a tensor"
            )
        for name in self.wanted:
            if name not in TENSORS:
                raise RequestError("invalid_request", unknown("output tensor", name, TENSORS))

    def _input(self, given: Any) -> tuple[str, list[Any], dict[str, Any]]:
        """An input tensor's name, its elements, and its own parameters."""
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise RequestError("invalid_request", f"an input must be an object with a name; {_HOW}")
        name, shape = given["name"], given.get("shape")
        if name not in _INPUTS:
            raise RequestError("unknown_option", unknown("input", name, _INPUTS))
        if not isinstance(given.get("data"), list):
            raise RequestError(
                "invalid_request", f"input {shown(name)} must have its elements in a list 'data'"
            )
        data = list(_flat(given["data"], name))
        if (
            not isinstance(shape, list)
            or len(shape) > _AXES
            or not all(type(length) is int and length >= 0 for length in shape)
            or math.prod(shape) != len(data)
        ):
            raise RequestError(
                "invalid_request",
                f"input {shown(name)} has the shape {shown(shape)} and {len(data)} elements; they "
                "must agree (over gRPC, TorchServe drops raw_input_contents: use 'contents')",
            )
        return name, data, _object(f"parameters of {name}", given.get("parameters", {}))


_HOW: Final = (
    'send the photos as an input "image" of datatype "BYTES" and shape [n], in base64 where the '
    "body is JSON"
)


def envelope(body: Any, over_http: bool, explain: bool) -> V1 | V2 | None:
    """The protocol that a parsed JSON body is of; None for the plain one.

    Args:
        body: what the server parsed.
        over_http: not over gRPC, where only Open Inference has a parsed body.
        explain: the call was one for explanations.
    """
    if not isinstance(body, dict):
        return None
    if not over_http or "inputs" in body:
        return V2.of(body, binary=not over_http)
    if "instances" in body:
        return V1("explanations" if explain else "predictions")
    return None


def _flat(data: list[Any], name: str) -> Iterator[Any]:
    """The elements of lists in lists, as deep as a tensor goes."""
    level = data
    for _ in range(_AXES):
        if not any(isinstance(element, list) for element in level):
            return iter(level)
        if not all(isinstance(element, list) for element in level):
            break
        level = [inner for element in level for inner in element]
    raise RequestError("invalid_request", f"'data' of input {shown(name)} is no tensor")


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether it can be sent back: JSON may hold half a surrogate pair, which no reply can."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _text(name: str, element: Any) -> Any:
    if not isinstance(element, str):
        return element
    try:
        return pybase64.b64decode(element, validate=True).decode()
    except (binascii.Error, ValueError):
        raise RequestError("invalid_option", f"input {shown(name)} is not UTF-8 text") from None


def _check_keys(what: str, body: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in body:
        if key not in known:
            raise RequestError("invalid_request", unknown(what, key, known))


def _check_count(count: int, at_most: int) -> None:
    if count > at_most:
        raise RequestError(
            "too_many_instances", f"the request carries {count} photos; accepted: up to {at_most}"
        )


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError("invalid_request", f"{name!r} must be an object of options")
    return dict(value)


def _json(outcome: Outcome) -> AnswerBody | ErrorBody:
    return error_body(outcome) if isinstance(outcome, RequestError) else outcome
