"""Whether an answer is one that a caller may get."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import inference_pb2
import jsonschema  # type: ignore[import-untyped]
import open_inference_grpc_pb2 as oip  # type: ignore[import-untyped]

from camserve.errors import HTTP_STATUS
from camserve_cli.paths import ROOT
from soaking import cases, photos
from soaking.calls import Call
from soaking.target import Answer

# What TorchServe's own frontend makes of requests that no handler sees; docs/reliability.md.
_FRONTEND_FAULTS: Final = {
    "500": (
        "ErrorDataDecoderException",
        "ArrayIndexOutOfBoundsException",
        "StringIndexOutOfBoundsException",
    ),
    "501": ("Model versioning is not yet supported",),
}
# gRPC's codes where it refuses a request itself.
_REFUSED_BY_FRONTEND: Final = {
    "INTERNAL": ("is required", "not found", "does not exist"),
    "NOT_FOUND": ("not found", "does not exist"),
    "UNIMPLEMENTED": ("is unimplemented",),
    # A message that is none, or NaN in a tensor: Java's exception, of which gRPC says nothing.
    "UNKNOWN": ("",),
}
# What deploy/envoy.yaml says of what it does not route.
_NOT_ROUTED: Final = "no such path here"
_SCORES_APART: Final = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What is to be said of an answer.

    Attributes:
        outcome: a short name, for counting.
        problem: what is wrong with it; empty where nothing is.
        fault: of TorchServe's frontend: an answer of 5xx that the handler has no part in; empty
            where there is none.
    """

    outcome: str
    problem: str = ""
    fault: str = ""


def judge(call: Call, answer: Answer, colours: bool = False, edge: bool = False) -> Verdict:
    """The verdict on an answer.

    Args:
        colours: the model tells the colour of the photo.
        edge: it came through deploy/envoy.yaml.
    """
    if edge and not call.digest and _by_edge(call, answer):
        return Verdict(f"edge {answer.code}")
    of_frontend = None if call.digest else _by_frontend(call, answer)
    if of_frontend:
        return of_frontend
    if answer.code == "none" or (call.protocol != "http" and answer.code != "OK"):
        return Verdict(answer.code, f"{answer.code}: {answer.says[:300]}")
    if call.protocol != "http" and call.method not in (
        cases.PREDICTIONS,
        cases.STREAM,
        cases.INFER,
    ):
        return Verdict("OK")
    try:
        body = _body(call, answer)
    except (ValueError, IndexError) as failure:
        return Verdict(answer.code, f"{answer.code}: no valid body: {failure}")
    wrong = next(_schema().iter_errors(body), None)
    if wrong is not None:
        return Verdict(answer.code, f"{answer.code}: against the schema: {wrong.message[:300]}")
    errors = _errors(body)
    outcome = errors[0].get("code", "?") if errors else "answered"
    problem = next(filter(None, map(_error_problem, errors)), "")
    if call.protocol == "http" and not answer.code.startswith(("2", "4")):
        problem = problem or f"status {answer.code}: {outcome}"
    if call.digest:
        problem = problem or _good_problem(call, body, colours)
    return Verdict(outcome, problem)


def _by_edge(call: Call, answer: Answer) -> bool:
    """Whether the edge refused a call by itself."""
    if call.protocol != "http":
        return answer.code == "UNIMPLEMENTED" and _NOT_ROUTED in answer.says
    body = b"".join(answer.body)
    if not body:
        # What is no HTTP that it takes gets a bare 4xx; what calls itself gRPC, gRPC's answer.
        as_grpc = any("application/grpc" in value.lower() for _, value in call.headers)
        return answer.code.startswith("4") or (answer.code == "200" and as_grpc)
    if answer.code == "431":
        return True
    return answer.code == "404" and _NOT_ROUTED in body.decode("utf-8", "replace")


def _by_frontend(call: Call, answer: Answer) -> Verdict | None:
    """The verdict on an answer that TorchServe gives without the handler; None for others."""
    if call.protocol != "http":
        for said in _REFUSED_BY_FRONTEND.get(answer.code, ()):
            if said in answer.says and (said or not answer.says):
                return Verdict(f"frontend {answer.code}")
        return None
    text = b"".join(answer.body).decode("utf-8", "replace")
    for said in _FRONTEND_FAULTS.get(answer.code, ()):
        if said in text:
            return Verdict(f"frontend {answer.code}", fault=f"{answer.code} {said}")
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
    """The reply as JSON has it, whatever it came by.

    Raises:
        ValueError: there is none.
    """
    if call.method == cases.INFER and call.protocol == "unary":
        return _tensors(oip.ModelInferResponse.FromString(answer.body[0]))
    (body,) = answer.body
    if call.protocol != "http":
        body = inference_pb2.PredictionResponse.FromString(body).prediction
    return json.loads(body, parse_constant=_no_number)


def _tensors(reply: Any) -> dict[str, Any]:
    """An Open Inference reply as KServe v2 has it in JSON."""
    outputs = []
    for one in reply.outputs:
        ((_, values),) = one.contents.ListFields() or ((None, ()),)
        data = list(values)
        if one.datatype == "BYTES":
            # TorchServe sends each text as JSON, quotes included.
            data = [json.loads(text) for text in data]
        shape = list(one.shape)
        outputs.append({"name": one.name, "datatype": one.datatype, "shape": shape, "data": data})
    names = ("id", "model_name", "model_version")
    return {**{name: getattr(reply, name) for name in names}, "outputs": outputs}


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


@cache
def _schema() -> Any:
    schema = json.loads((ROOT / "docs" / "reply.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def _errors(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Every error in a body, of the request or of one of its photos."""
    found = [body["error"]] if "error" in body else []
    for one in (*body.get("predictions", ()), *body.get("explanations", ())):
        if "error" in one:
            found.append(one["error"])
    for tensor in body.get("outputs", ()):
        if tensor["name"] == "error":
            found += [json.loads(text) for text in tensor["data"] if text]
    return found


def _error_problem(error: dict[str, Any]) -> str:
    code, status, message = error.get("code"), error.get("status"), str(error.get("message"))
    if HTTP_STATUS.get(str(code)) != status:
        return f"error {code!r} with status {status}"
    if status is None or status >= 500:
        return f"{status} {code}: {message[:300]}"
    if not message.strip() or not message.isprintable():
        return f"error {code!r} with a message of raw bytes: {message[:300]!r}"
    return ""


def _good_problem(call: Call, body: dict[str, Any], colours: bool) -> str:
    """What is wrong with the answer to a good photo; empty where it belongs to the photo."""
    if errors := _errors(body):
        return f"a good photo is refused: {errors[0]}"
    if "outputs" in body:
        data = {tensor["name"]: tensor["data"] for tensor in body["outputs"]}
        encoded, label, probability = data["overlay"][0], data["label"][0], data["probability"][0]
    else:
        if "image" not in body:
            ((body,),) = body.values()
        encoded = body["explanations"][0]["overlay"]["b64"]
        best = body["predictions"][0]
        label, probability = best["label"], best["probability"]
    if photos.digest_of(base64.b64decode(encoded)) != call.digest:
        return "another photo's pixels came back"
    if colours and label != call.label:
        return f"a {call.label} photo is told to be {label}"
    if not 0 <= probability <= 1 + _SCORES_APART:
        return f"a probability of {probability}"
    return ""
