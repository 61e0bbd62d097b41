"""The test oracle: judges whether the answer to a call is acceptable."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import inference_pb2
import jsonschema
import open_inference_grpc_pb2 as oip

from camserve.errors import HTTP_STATUS
from devtools.fuzzing import generators, photos
from devtools.fuzzing.calls import Call
from devtools.fuzzing.server_target import Answer
from devtools.paths import ROOT

# By status, exceptions of TorchServe's frontend on requests that no handler sees;
# docs/reliability.md.
_FRONTEND_FAULTS: Final = {
    "500": (
        "ErrorDataDecoderException",
        "ArrayIndexOutOfBoundsException",
        "StringIndexOutOfBoundsException",
    ),
    "501": ("Model versioning is not yet supported",),
}
# By gRPC status code, messages of the frontend where it rejects a request itself.
_REJECTED_BY_FRONTEND: Final = {
    "INTERNAL": ("is required", "not found", "does not exist"),
    "NOT_FOUND": ("not found", "does not exist"),
    "UNIMPLEMENTED": ("is unimplemented",),
    # Invalid protobuf, or NaN in a tensor: an exception in Java, of which gRPC gives no message.
    "UNKNOWN": ("",),
}
# The codes of the edge's own answers that no handler gives; docs/errors.md.
_EDGE_CODES: Final = (
    "unauthorized", "not_found", "method_not_allowed", "request_timeout", "request_too_large",
    "rate_limited", "headers_too_large", "not_implemented",
)  # fmt: skip
# The message of deploy/envoy.yaml for paths that it does not route.
_NOT_ROUTED: Final = "no such path here"
_PROBABILITY_TOLERANCE: Final = 1e-6
_METHODS_WITH_BODY: Final = (generators.PREDICTIONS, generators.STREAM, generators.INFER)


@dataclass(frozen=True)
class Verdict:
    """The judgement of an answer.

    Attributes:
        outcome: a short name, for counting.
        problem: why the answer is not acceptable; empty where it is.
        frontend_fault: a 5xx answer that TorchServe's frontend gives without the handler; empty
            for any other.
    """

    outcome: str
    problem: str = ""
    frontend_fault: str = ""


def judge(
    call: Call, answer: Answer, predicts_color: bool = False, through_edge: bool = False
) -> Verdict:
    """The verdict on an answer.

    Args:
        predicts_color: the model predicts the colour of a valid photo.
        through_edge: it came through deploy/envoy.yaml.
    """
    if not call.must_succeed:
        if through_edge and _is_by_edge(call, answer):
            return Verdict(f"edge {answer.code}")
        if by_frontend := _frontend_verdict(call, answer):
            return by_frontend
    if answer.code == "none" or (call.protocol != "http" and answer.code != "OK"):
        return Verdict(answer.code, f"{answer.code}: {answer.detail[:300]}")
    if call.protocol != "http" and call.method not in _METHODS_WITH_BODY:
        return Verdict("OK")
    try:
        body = _body(call, answer)
    except (ValueError, IndexError) as failure:
        return Verdict(answer.code, f"{answer.code}: no valid body: {failure}")
    invalid = next(_schema().iter_errors(body), None)
    if invalid is not None:
        return Verdict(answer.code, f"{answer.code}: against the schema: {invalid.message[:300]}")
    errors = _errors(body)
    outcome = errors[0].get("code", "?") if errors else "answered"
    problem = next(filter(None, map(_error_problem, errors)), "")
    if call.protocol == "http" and not answer.code.startswith(("2", "4")):
        problem = problem or f"status {answer.code}: {outcome}"
    if call.must_succeed:
        problem = problem or _valid_photo_problem(call, body, predicts_color)
    return Verdict(outcome, problem)


def _is_by_edge(call: Call, answer: Answer) -> bool:
    """Whether the edge rejected a call by itself."""
    if call.protocol != "http":
        return answer.code == "UNIMPLEMENTED" and _NOT_ROUTED in answer.detail
    body = b"".join(answer.body)
    if not body:
        # Over HTTP/2, it answers some invalid HTTP by an empty 4xx; a content type of gRPC by
        # gRPC's answer.
        as_grpc = any("application/grpc" in value.lower() for _, value in call.headers)
        return answer.code.startswith("4") or (answer.code == "200" and as_grpc)
    try:
        error = json.loads(body)["error"]
        return error["code"] in _EDGE_CODES and str(error["status"]) == answer.code
    except (ValueError, LookupError, TypeError):
        return False


def _frontend_verdict(call: Call, answer: Answer) -> Verdict | None:
    """The verdict on an answer that TorchServe gives without the handler; None for others."""
    if call.protocol != "http":
        for message in _REJECTED_BY_FRONTEND.get(answer.code, ()):
            if message in answer.detail and (message or not answer.detail):
                return Verdict(f"frontend {answer.code}")
        return None
    text = b"".join(answer.body).decode("utf-8", "replace")
    for message in _FRONTEND_FAULTS.get(answer.code, ()):
        if message in text:
            return Verdict(f"frontend {answer.code}", frontend_fault=f"{answer.code} {message}")
    try:
        body = json.loads(text)
    except ValueError:
        return None
    if isinstance(body, dict) and body.keys() == {"code", "type", "message"}:
        if answer.code.startswith("4"):
            return Verdict(f"frontend {answer.code}")
        return Verdict(f"frontend {answer.code}", f"{answer.code}: {text[:300]}")
    return None


def _body(call: Call, answer: Answer) -> Any:
    """The reply as JSON, over any protocol.

    Raises:
        ValueError: the answer has no valid body.
    """
    if call.method == generators.INFER and call.protocol == "unary":
        return _v2_json(oip.ModelInferResponse.FromString(answer.body[0]))
    (body,) = answer.body
    if call.protocol != "http":
        body = inference_pb2.PredictionResponse.FromString(body).prediction
    return json.loads(body, parse_constant=_reject_constant)


def _v2_json(reply: Any) -> dict[str, Any]:
    """An Open Inference reply as KServe v2 has it in JSON."""
    outputs = []
    for tensor in reply.outputs:
        ((_, values),) = tensor.contents.ListFields() or ((None, ()),)
        data = list(values)
        if tensor.datatype == "BYTES":
            # TorchServe sends each text as JSON, quotes included.
            data = [json.loads(text) for text in data]
        shape = list(tensor.shape)
        outputs.append(
            {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data}
        )
    names = ("id", "model_name", "model_version")
    return {**{name: getattr(reply, name) for name in names}, "outputs": outputs}


def _reject_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


@cache
def _schema() -> Any:
    schema = json.loads((ROOT / "docs" / "reply.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def _errors(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Every error in a body, of the request or of one of its photos."""
    # In KServe v2, "error" is the text of what stands under "error_detail".
    errors = [body.get("error_detail", body["error"])] if "error" in body else []
    for reply in (*body.get("predictions", ()), *body.get("explanations", ())):
        if "error" in reply:
            errors.append(reply["error"])
    for tensor in body.get("outputs", ()):
        if tensor["name"] == "error":
            errors += [json.loads(text) for text in tensor["data"] if text]
    return errors


def _error_problem(error: dict[str, Any]) -> str:
    code, status, message = error.get("code"), error.get("status"), str(error.get("message"))
    if HTTP_STATUS.get(str(code)) != status:
        return f"error {code!r} with status {status}"
    if status is None or status >= 500:
        return f"{status} {code}: {message[:300]}"
    if not message.strip() or not message.isprintable():
        return f"error {code!r} with a message of raw bytes: {message[:300]!r}"
    return ""


def _valid_photo_problem(call: Call, body: dict[str, Any], predicts_color: bool) -> str:
    """Why the answer to a valid photo is wrong; empty where it belongs to the photo."""
    if errors := _errors(body):
        return f"a valid photo is rejected: {errors[0]}"
    if "outputs" in body:
        data = {tensor["name"]: tensor["data"] for tensor in body["outputs"]}
        encoded, label, probability = data["overlay"][0], data["label"][0], data["probability"][0]
    else:
        if "image" not in body:
            ((body,),) = body.values()
        encoded = body["explanations"][0]["overlay"]["b64"]
        best = body["predictions"][0]
        label, probability = best["label"], best["probability"]
    if photos.file_digest(base64.b64decode(encoded)) != call.digest:
        return "another photo's pixels came back"
    if predicts_color and label != call.label:
        return f"the prediction for a {call.label} photo is {label}"
    if not 0 <= probability <= 1 + _PROBABILITY_TOLERANCE:
        return f"a probability of {probability}"
    return ""
