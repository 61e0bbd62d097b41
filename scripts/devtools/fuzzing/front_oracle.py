"""Judges the answers of the Open Inference front: none may be the server's fault."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, Final

from camserve.errors import HTTP_STATUS
from camserve_cli.open_inference import errors as front_errors
from camserve_cli.open_inference import open_inference_pb2 as pb
from devtools.fuzzing import front_calls, photos
from devtools.fuzzing.calls import Call
from devtools.fuzzing.oracle import Verdict
from devtools.fuzzing.server_target import Answer

#: The statuses of gRPC that say that the caller is at fault.
_REFUSALS: Final = ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "DEADLINE_EXCEEDED")
#: A caller's own ``timeout`` of a microsecond.
_TIMED_OUT: Final = "504"


def judge_front(call: Call, answer: Answer, predicts_color: bool = False) -> Verdict:
    """The verdict on an answer.

    Args:
        predicts_color: the model predicts the colour of a valid photo.
    """
    if call.must_succeed:
        return _valid_verdict(call, answer, predicts_color)
    if call.protocol != "http":
        acceptable = answer.code == "OK" or (answer.code in _REFUSALS and answer.detail.strip())
        problem = "" if acceptable else f"{answer.code}: {answer.detail[:300]}"
        return Verdict(answer.code, problem)
    return _http_verdict(call, answer)


def _http_verdict(call: Call, answer: Answer) -> Verdict:
    (body,) = answer.body or (b"",)
    if answer.code == "200":
        return Verdict("answered")
    if not answer.code.startswith("4") and answer.code != _TIMED_OUT:
        return Verdict(answer.code, f"{answer.code}: {answer.detail[:100]} {body[:200]!r}")
    if call.method == "HEAD" or not body.startswith(b"{"):
        # What aiohttp answers to what is no HTTP is a line of text.
        plain = call.method == "HEAD" or len(body) < 1000
        return Verdict(answer.code, "" if plain else f"{answer.code}: {body[:200]!r}")
    try:
        code, status = _error(call.target, json.loads(body))
    except (ValueError, KeyError, TypeError, StopIteration) as failure:
        return Verdict(answer.code, f"{answer.code}: no error in it: {failure!r} {body[:200]!r}")
    known = {**front_errors.HTTP_STATUS, **HTTP_STATUS}
    if known.get(code) != status:
        return Verdict(code, f"error {code!r} with status {status}")
    return Verdict(code)


def _error(path: str, told: dict[str, Any]) -> tuple[str, int]:
    """The code and the status of an error, which is a text on the paths of KServe v2."""
    if "error_detail" in told:
        detail = told["error_detail"]
        if told["error"] != detail["message"]:
            raise ValueError("the text is another than the message")
    elif "error" not in told:
        (answers,) = [told[key] for key in ("predictions", "explanations") if key in told]
        detail = next(answer["error"] for answer in answers if "error" in answer)
    elif path.startswith("/v2/") or path == "/v2":
        raise ValueError("KServe v2 has no such error")
    else:
        detail = told["error"]
    return detail["code"], detail["status"]


def _valid_verdict(call: Call, answer: Answer, predicts_color: bool) -> Verdict:
    if answer.code not in ("200", "OK"):
        return Verdict(answer.code, f"{answer.code}: {answer.detail[:300]} {answer.body}"[:500])
    try:
        overlay, label = _photo_of(call, answer.body[0])
    except (ValueError, LookupError, struct.error) as failure:
        return Verdict("answered", f"no valid body: {failure!r}")
    if photos.file_digest(base64.b64decode(overlay)) != call.digest:
        return Verdict("answered", "another photo's pixels came back")
    if predicts_color and label != call.label:
        return Verdict("answered", f"the prediction for a {call.label} photo is {label}")
    return Verdict("answered")


def _photo_of(call: Call, body: bytes) -> tuple[bytes, str]:
    """The overlay in base64, and the label of the best class."""
    if call.method == front_calls.INFER:
        reply = pb.ModelInferResponse.FromString(body)
        names = [output.name for output in reply.outputs]
        if reply.raw_output_contents:
            raw = dict(zip(names, reply.raw_output_contents, strict=True))
            return _first(raw["overlay"]), _first(raw["label"]).decode()
        typed = {output.name: output.contents.bytes_contents for output in reply.outputs}
        return typed["overlay"][0], typed["label"][0].decode()
    if call.target.startswith("/v1"):
        (answer,) = json.loads(body)["explanations"]
        overlay = answer["explanations"][0]["overlay"]["b64"]
        return overlay.encode(), answer["predictions"][0]["label"]
    # The outputs' elements stand behind the JSON, which is an object.
    head, length = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    raw, begin = {}, length
    for output in head["outputs"]:
        end = begin + output["parameters"]["binary_data_size"]
        raw[output["name"]] = body[begin:end]
        begin = end
    return _first(raw["overlay"]), _first(raw["label"]).decode()


def _first(raw: bytes) -> bytes:
    """The first element of a raw BYTES tensor."""
    (length,) = struct.unpack_from("<I", raw)
    return raw[4 : 4 + length]
