"""Replies of KServe v1 and v2: the outcomes of a request's photos -> the reply's body."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from camserve.errors import RequestError
from camserve.protocols.kserve_v1 import KServeV1
from camserve.protocols.kserve_v2 import KServeV2
from camserve.protocols.replies import Reply
from camserve.protocols.requested_outputs import RequestedOutputs
from camserve.protocols.schema import (
    AnswerBody,
    ErrorFields,
    ExplanationBody,
    ModelBody,
    PredictionBody,
)
from tests.support import contract

MODEL: ModelBody = {"name": "colours", "version": "1.0"}
CAT: PredictionBody = {"class_id": 1, "label": "cat", "probability": 0.75, "score": 2.5}
EXPLANATION: ExplanationBody = {
    "class_id": 1,
    "label": "cat",
    "probability": 0.75,
    "score": 2.5,
    "method": "gradcam",
    "layer": "layer4.2",
    "evidence": True,
    "peak": 0.5,
    "map_statistics": {
        "entropy": 0.0,
        "gini": 0.5,
        "centre": [27.5, 15.0],
        "spread": 0.0,
        "border": 0.5,
        "corners": 0.0,
        "explained": None,
    },
    "map": {"shape": [1, 2], "values": [0.0, 1.0]},
}


def answer(*explanations: ExplanationBody) -> AnswerBody:
    return {
        "model": MODEL,
        "image": {"width": 40, "height": 30, "orientation": 1, "seen": [5.0, 0.0, 35.0, 30.0]},
        "predictions": [CAT],
        "explanations": list(explanations),
    }


ANSWER = answer(EXPLANATION)
INVALID_OPTION = RequestError("invalid_option", "option 'alpha': 2 is not accepted")
UNSUPPORTED_FORMAT = RequestError("unsupported_format", "the photo's format is not recognised")
INVALID_OPTION_BODY: ErrorFields = {
    "code": "invalid_option",
    "status": 400,
    "message": INVALID_OPTION.message,
}
UNSUPPORTED_FORMAT_BODY: ErrorFields = {
    "code": "unsupported_format",
    "status": 415,
    "message": UNSUPPORTED_FORMAT.message,
}


@pytest.mark.parametrize("key", ["predictions", "explanations"])
def test_a_v1_reply_has_an_answer_or_an_error_for_each_instance(
    key: Literal["predictions", "explanations"],
) -> None:
    reply = KServeV1(key).reply([ANSWER, INVALID_OPTION, answer()], MODEL)
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert json.loads(reply.body) == {key: [ANSWER, {"error": INVALID_OPTION_BODY}, answer()]}


def test_the_status_of_a_v1_reply_is_an_error_if_no_photo_is_answered() -> None:
    reply = KServeV1("predictions").reply([INVALID_OPTION, UNSUPPORTED_FORMAT], MODEL)
    assert reply.status == 415
    assert json.loads(reply.body) == {
        "predictions": [{"error": INVALID_OPTION_BODY}, {"error": UNSUPPORTED_FORMAT_BODY}]
    }


def test_a_v1_request_that_failed_as_a_whole_has_the_plain_error() -> None:
    reply = KServeV1("explanations").error_reply(INVALID_OPTION, MODEL)
    assert (reply.status, json.loads(reply.body)) == (400, {"error": INVALID_OPTION_BODY})


def test_a_v2_reply_has_the_answers_as_tensors() -> None:
    reply = KServeV2("seven").reply([ANSWER, answer()], MODEL)
    assert (reply.status, reply.content_type) == (200, "application/json")
    body = json.loads(reply.body)
    assert list(body) == ["id", "model_name", "model_version", "outputs"]
    assert (body["id"], body["model_name"], body["model_version"]) == ("seven", "colours", "1.0")
    assert contract.outcomes(body, "v2") == [ANSWER, answer()]


@pytest.mark.parametrize("request_id", ["", "7", "Häher 鳥", 'a "quoted" \\ one', "x" * 100_000])
def test_a_v2_reply_repeats_the_id(request_id: str) -> None:
    protocol = KServeV2(request_id)
    for reply in (protocol.reply([ANSWER], MODEL), protocol.error_reply(INVALID_OPTION, MODEL)):
        assert json.loads(reply.body)["id"] == request_id


@pytest.mark.parametrize(
    ("requested", "names"),
    [
        ((), {"size", "orientation", "seen", "class_id", "label", "probability", "score",
              "explained_class_id", "explained_label", "explained_probability", "explained_score",
              "method", "layer", "evidence", "peak", "map_statistics", "map"}),
        (("label",), {"label"}),
        (("map", "label", "label"), {"map", "label"}),
        (("mask",), set()),
        (("error",), set()),
    ],
)  # fmt: skip
def test_a_v2_reply_has_the_requested_tensors(requested: tuple[str, ...], names: set[str]) -> None:
    body = json.loads(KServeV2("", RequestedOutputs(requested)).reply([ANSWER], MODEL).body)
    assert {tensor["name"] for tensor in body["outputs"]} == names


def test_a_v2_reply_has_the_errors_in_a_tensor_even_if_it_was_not_requested() -> None:
    body = json.loads(
        KServeV2("", RequestedOutputs(("label",)))
        .reply([INVALID_OPTION, ANSWER, UNSUPPORTED_FORMAT], MODEL)
        .body
    )
    tensors = contract.arrays(body)
    assert tensors.keys() == {"label", "error"}
    assert tensors["label"].tolist() == [[""], ["cat"], [""]]
    first, second, third = tensors["error"]
    assert (json.loads(first), second, json.loads(third)) == (
        INVALID_OPTION_BODY,
        "",
        UNSUPPORTED_FORMAT_BODY,
    )
    assert "error" not in body
    unfiltered = json.loads(
        KServeV2("").reply([INVALID_OPTION, ANSWER, UNSUPPORTED_FORMAT], MODEL).body
    )
    assert contract.replies_in(unfiltered) == [
        {"error": INVALID_OPTION_BODY},
        ANSWER,
        {"error": UNSUPPORTED_FORMAT_BODY},
    ]


def test_the_status_of_a_v2_reply_is_an_error_if_no_photo_is_answered() -> None:
    reply = KServeV2("").reply([INVALID_OPTION, UNSUPPORTED_FORMAT], MODEL)
    assert reply.status == 415
    body = json.loads(reply.body)
    assert contract.outcomes(body, "v2") == [
        {"error": INVALID_OPTION_BODY},
        {"error": UNSUPPORTED_FORMAT_BODY},
    ]
    assert body["error"] == UNSUPPORTED_FORMAT_BODY["message"]
    assert body["error_detail"] == UNSUPPORTED_FORMAT_BODY


ALL, LABELS = KServeV2("seven"), KServeV2("seven", RequestedOutputs(("label",)))


@pytest.mark.parametrize(
    "reply",
    [
        ALL.reply([INVALID_OPTION], MODEL),
        ALL.error_reply(INVALID_OPTION, MODEL),
        LABELS.reply([INVALID_OPTION], MODEL),
        LABELS.error_reply(INVALID_OPTION, MODEL),
    ],
    ids=["photo", "request", "photo-and-requested-outputs", "request-and-requested-outputs"],
)
def test_a_single_error_of_v2_is_a_tensor_and_a_text_of_the_body(reply: Reply) -> None:
    assert (reply.status, reply.content_type) == (400, "application/json")
    body = json.loads(reply.body)
    # TorchServe's gRPC frontend crashes on a body that lacks one of these.
    assert {"id", "model_name", "model_version", "outputs"} < body.keys()
    assert body["error"] == INVALID_OPTION_BODY["message"]
    assert body["error_detail"] == INVALID_OPTION_BODY
    assert contract.outcomes(body, "v2") == [{"error": INVALID_OPTION_BODY}]
