"""KServe v2, both ways, which Open Inference over gRPC comes as too.

Its body -> the JSON objects of the plain contract, and the answers -> its body.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeGuard, get_args

import orjson
import pybase64

from camserve.errors import RequestError, short_repr, unknown_name_message
from camserve.options import Options, Output
from camserve.protocols.kserve_bodies import check_count, check_keys, options_object
from camserve.protocols.replies import PhotoOutcome, Reply, combined_status, error_body, json_reply
from camserve.protocols.schema import ModelBody, V2Body
from camserve.protocols.output_tensors import TENSORS, output_tensors, tensor

IMAGE: Final = "image"
_INPUTS: Final = (IMAGE, *Options.model_fields)
# More than any input needs, and few enough that their product is no work.
MAX_RANK: Final = 4
_KEYS: Final = ("inputs", "outputs", "parameters", "id", "model_name", "model_version")


@dataclass(frozen=True)
class KServeV2:
    """KServe v2, and Open Inference.

    Attributes:
        id: of the request, echoed.
        requested_outputs: the names of the output tensors to send; all that there are, where empty.
        base64_text: the texts in BYTES inputs are in base64, as TorchServe hands on those of gRPC.
    """

    protocol: ClassVar[str] = "kserve v2"

    id: str
    requested_outputs: tuple[str, ...] = ()
    base64_text: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any], base64_text: bool) -> KServeV2:
        """The envelope of a body, however wrong that is: TorchServe needs its error in v2 too."""
        given = body.get("id")
        outputs = body.get("outputs")
        names = [
            output.get("name") if isinstance(output, dict) else None
            for output in (outputs if isinstance(outputs, list) else [])
        ]
        requested_outputs = tuple(name for name in names if isinstance(name, str))
        return cls(given if _is_text(given) else "", requested_outputs, base64_text)

    @property
    def default_options(self) -> dict[str, Any]:
        """The options of a request that names none of them: what it wants is drawn."""
        drawn = [name for name in self.requested_outputs if name in get_args(Output)]
        return {"outputs": drawn} if drawn else {}

    def parse(
        self, body: Mapping[str, Any], max_instances: int
    ) -> tuple[list[Any], dict[str, Any]]:
        """The tensors as JSON objects, one for each element of ``image``, and the options of all.

        Raises:
            RequestError: the body is none of this protocol, its tensors do not fit together, or
                it has more than ``max_instances`` photos.
        """
        check_keys("KServe v2 key", body, _KEYS)
        if not _is_text(body.get("id", "")):
            raise RequestError(
                "invalid_request", f"'id' must be a text, not {short_repr(body['id'])}"
            )
        self._check_outputs(body)
        parameters = options_object("parameters", body.get("parameters", {}))
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
                raise RequestError("invalid_request", f"input {short_repr(name)} is given twice")
            tensors[name] = data
            for option, value in own.items():
                if parameters.setdefault(option, value) != value:
                    raise RequestError(
                        "conflicting_options", f"parameter {short_repr(option)} is given twice"
                    )
        images = tensors.pop(IMAGE)
        if not images:
            raise RequestError("missing_image", f"the input 'image' is empty; {_HOW}")
        check_count(len(images), max_instances)
        instances = [{IMAGE: image} for image in images]
        for name, data in tensors.items():
            data = [_text(name, element) for element in data] if self.base64_text else data
            if len(data) not in (1, len(images)):
                raise RequestError(
                    "invalid_request",
                    f"input {short_repr(name)} has {len(data)} elements; accepted: 1 or "
                    f"{len(images)}, one for each of {IMAGE!r}",
                )
            for n, instance in enumerate(instances):
                instance[name] = data[n % len(data)]
        return instances, parameters

    def reply(self, outcomes: Sequence[PhotoOutcome], model: ModelBody) -> Reply:
        answers = [None if isinstance(outcome, RequestError) else outcome for outcome in outcomes]
        tensors = list(output_tensors(answers)) if any(answers) else []
        if self.requested_outputs:
            tensors = [one for one in tensors if one["name"] in self.requested_outputs]
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
        return json_reply(body, combined_status(outcomes))

    def error_reply(self, error: RequestError, model: ModelBody) -> Reply:
        return self.reply([error], model)

    def _check_outputs(self, body: Mapping[str, Any]) -> None:
        outputs = body.get("outputs", [])
        if not isinstance(outputs, list) or len(outputs) != len(self.requested_outputs):
            raise RequestError(
                "invalid_request", "'outputs' must be a list of objects with the name of a tensor"
            )
        for name in self.requested_outputs:
            if name not in TENSORS:
                raise RequestError(
                    "invalid_request", unknown_name_message("output tensor", name, TENSORS)
                )

    def _input(self, given: Any) -> tuple[str, list[Any], dict[str, Any]]:
        """An input tensor's name, its elements, and its own parameters."""
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise RequestError("invalid_request", f"an input must be an object with a name; {_HOW}")
        name, shape = given["name"], given.get("shape")
        if name not in _INPUTS:
            raise RequestError("unknown_option", unknown_name_message("input", name, _INPUTS))
        if not isinstance(given.get("data"), list):
            raise RequestError(
                "invalid_request",
                f"input {short_repr(name)} must have its elements in a list 'data'",
            )
        data = list(_flat(given["data"], name))
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_RANK
            or not all(type(length) is int and length >= 0 for length in shape)
            or math.prod(shape) != len(data)
        ):
            raise RequestError(
                "invalid_request",
                f"input {short_repr(name)} has the shape {short_repr(shape)} and {len(data)} "
                "elements; they must agree (over gRPC, TorchServe drops raw_input_contents: use "
                "'contents')",
            )
        return name, data, options_object(f"parameters of {name}", given.get("parameters", {}))


_HOW: Final = (
    'send the photos as an input "image" of datatype "BYTES" and shape [n], in base64 where the '
    "body is JSON"
)


def _flat(data: list[Any], name: str) -> Iterator[Any]:
    """The elements of lists in lists, as deep as a tensor goes."""
    level = data
    for _ in range(MAX_RANK):
        if not any(isinstance(element, list) for element in level):
            return iter(level)
        if not all(isinstance(element, list) for element in level):
            break
        level = [inner for element in level for inner in element]
    raise RequestError("invalid_request", f"'data' of input {short_repr(name)} is no tensor")


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether it can be sent back: JSON may hold half a surrogate pair, which no reply can."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _text(name: str, element: Any) -> Any:
    if not isinstance(element, str):
        return element
    try:
        return pybase64.b64decode(element, validate=True).decode()
    except (binascii.Error, ValueError):
        raise RequestError(
            "invalid_option", f"input {short_repr(name)} is not UTF-8 text"
        ) from None
