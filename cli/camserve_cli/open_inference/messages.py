"""ModelInferRequest -> KServe v2's HTTP body with binary tensors, and the reply's body back.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError

from camserve_cli.open_inference import tensors
from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.host import HostReply
from camserve_cli.open_inference.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)

#: The parameters with which HTTP says where elements are; in gRPC, the message says it.
_PLACES: Final = ("binary_data_size", "binary_data", "binary_data_output")
#: As many as the values of JSON that the handler takes.
_MAX_PARTS: Final = 10_000
_SHARED_MEMORY: Final = "shared_memory_region"


@dataclass(frozen=True)
class TranslatedRequest:
    """A ModelInferRequest as the body of an HTTP request.

    Attributes:
        model, version: whom it is for; the version is empty for the default one.
        body: JSON, and the raw elements of all inputs.
        json_length: of the JSON, in bytes.
        is_raw: the caller sent raw elements, and reads them.
        timeout: the caller's parameter of that name, in seconds; None without one.
    """

    model: str
    version: str
    body: bytes
    json_length: int
    is_raw: bool
    timeout: float | None


def parse_request(message: bytes) -> ModelInferRequest:
    """A message from the wire.

    Raises:
        FrontError: ``invalid_request``: it is none.
    """
    try:
        request: ModelInferRequest = ModelInferRequest.FromString(message)
    except DecodeError:
        raise FrontError("invalid_request", "the message is no ModelInferRequest") from None
    return request


def translate_request(message: bytes) -> TranslatedRequest:
    """A message from the wire -> the body of an HTTP request.

    Raises:
        FrontError: ``invalid_request``: it is no ModelInferRequest, its contents are both typed and
            raw or not those of its inputs, or a parameter has no value that JSON has.
    """
    request = parse_request(message)
    _check_counts(request)
    raw = _raw_elements(request)
    inputs = []
    for tensor, elements in zip(request.inputs, raw, strict=True):
        parameters = _parameters(tensor.parameters, f"input {tensor.name[:80]!r}")
        inputs.append({
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {**parameters, "binary_data_size": len(elements)},
        })  # fmt: skip
    outputs = [
        {"name": output.name, "parameters": _parameters(output.parameters, "an output")}
        for output in request.outputs
    ]
    parameters = _parameters(request.parameters, "the request")
    head: dict[str, Any] = {
        "id": request.id,
        "inputs": inputs,
        "parameters": {**parameters, "binary_data_output": True},
        **({"outputs": outputs} if outputs else {}),
    }
    encoded = orjson.dumps(head)
    return TranslatedRequest(
        request.model_name,
        request.model_version,
        b"".join([encoded, *raw]),
        len(encoded),
        bool(request.raw_input_contents),
        timeout_seconds(parameters),
    )


def timeout_seconds(parameters: Mapping[str, Any]) -> float | None:
    """Triton's parameter ``timeout``, in seconds; None where there is none, or no limit."""
    microseconds = parameters.get("timeout")
    if isinstance(microseconds, bool) or not isinstance(microseconds, int | float):
        return None
    return microseconds / 1e6 if microseconds > 0 else None


def translate_reply(reply: HostReply, *, is_raw: bool) -> ModelInferResponse:
    """The body of an HTTP reply -> a ModelInferResponse.

    Args:
        is_raw: write ``raw_output_contents``, which is all that Triton's clients read, and typed
            contents otherwise.

    Raises:
        FrontError: ``bad_gateway``: the host's reply is none of KServe v2 with binary tensors.
    """
    try:
        return _translate_reply(reply, is_raw)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise FrontError(
            "bad_gateway", "the model's reply is not as KServe v2 with binary tensors has it"
        ) from None


def _translate_reply(reply: HostReply, is_raw: bool) -> ModelInferResponse:
    body = memoryview(reply.body)
    json_length = len(body) if reply.json_length is None else reply.json_length
    head = orjson.loads(body[:json_length])
    response = ModelInferResponse(
        id=head.get("id", ""),
        model_name=head["model_name"],
        model_version=head.get("model_version", ""),
    )
    _write_parameters(head.get("parameters", {}), response.parameters)
    begin = json_length
    for output in head["outputs"]:
        parameters = output["parameters"]
        tensor = response.outputs.add(
            name=output["name"], datatype=output["datatype"], shape=output["shape"]
        )
        _write_parameters(parameters, tensor.parameters)
        end = begin + parameters["binary_data_size"]
        if not begin <= end <= len(body):
            raise ValueError("an output ends behind the body")
        if is_raw:
            response.raw_output_contents.append(bytes(body[begin:end]))
        else:
            tensors.to_contents(output["datatype"], body[begin:end], tensor.contents)
        begin = end
    if begin != len(body):
        raise ValueError("the body goes on behind its outputs")
    return response


def _check_counts(request: ModelInferRequest) -> None:
    """Reject a message of more parts than a request needs, before each becomes an object of JSON.

    Raises:
        FrontError: ``json_too_large``.
    """
    count = len(request.inputs) + len(request.outputs) + len(request.parameters)
    if count <= _MAX_PARTS:
        count += sum(
            len(tensor.contents.bytes_contents) + len(tensor.parameters)
            for tensor in request.inputs
        )
        count += sum(len(output.parameters) for output in request.outputs)
    if count > _MAX_PARTS:
        raise FrontError(
            "json_too_large",
            f"the message has more than {_MAX_PARTS} inputs, outputs, parameters and elements of "
            "BYTES; accepted: up to that",
        )


def _raw_elements(request: ModelInferRequest) -> list[bytes]:
    """The elements of each input."""
    raw = request.raw_input_contents
    if not raw:
        return [
            tensors.to_raw(tensor.name, tensor.datatype, tensor.contents)
            for tensor in request.inputs
        ]
    if any(tensor.contents.ByteSize() for tensor in request.inputs):
        raise FrontError(
            "invalid_request",
            "the inputs have both contents and raw_input_contents; accepted: one of them, for all "
            "inputs",
        )
    if len(raw) != len(request.inputs):
        raise FrontError(
            "invalid_request",
            f"there are {len(request.inputs)} inputs and {len(raw)} raw_input_contents; accepted: "
            "one for each input",
        )
    return list(raw)


def _parameters(parameters: Mapping[str, InferParameter], owner: str) -> dict[str, Any]:
    """Parameters as JSON has them.

    Raises:
        FrontError: ``invalid_request``: one has no value that JSON has, or asks for Triton's shared
            memory.
    """
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in _PLACES:
            continue
        kind = parameter.WhichOneof("parameter_choice")
        value = getattr(parameter, kind) if kind else None
        if value is None or (kind == "double_param" and not math.isfinite(value)):
            raise FrontError(
                "invalid_request",
                f"the parameter {name[:80]!r} of {owner} has no value, or one that is not finite",
            )
        if name == _SHARED_MEMORY:
            raise FrontError(
                "invalid_request",
                "this server has no shared memory; accepted: the elements in the message",
            )
        values[name] = value
    return values


def _write_parameters(values: Mapping[str, Any], parameters: Any) -> None:
    """Write a JSON object of parameters to a map of them."""
    for name, value in values.items():
        if name in _PLACES:
            continue
        if isinstance(value, bool):
            parameters[name].bool_param = value
        elif isinstance(value, int):
            parameters[name].int64_param = value
        elif isinstance(value, float):
            parameters[name].double_param = value
        else:
            parameters[name].string_param = value
