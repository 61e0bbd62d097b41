"""Replies in JSON, byte for byte."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from camserve.errors import HTTP_STATUS, RequestError
from camserve.protocols.plain import PlainProtocol
from camserve.protocols.replies import (
    PhotoOutcome,
    Reply,
    combined_status,
    error_body,
    json_reply,
)
from camserve.protocols.schema import AnswerBody, Body, ModelBody, PredictionBody
from tests.support import contract

MODEL: ModelBody = {"name": "resnet50", "version": "1.0"}
TABBY: PredictionBody = {"class_id": 281, "label": "tabby", "probability": 0.625, "score": 9.125}
ANSWER: AnswerBody = {
    "model": MODEL,
    "image": {"width": 451, "height": 300, "orientation": 1, "seen": [80.351, 0.0, 370.649, 300.0]},
    "predictions": [TABBY],
    "explanations": [],
}
UNSUPPORTED_FORMAT = RequestError("unsupported_format", "the photo's format is not recognised")
INVALID_OPTION = RequestError("invalid_option", "option 'alpha': 2 is not accepted")
INTERNAL_ERROR = RequestError("internal_error", "the server failed on this request; see its log")
IMAGE_TOO_LARGE = RequestError("image_too_large", "the photo has too many pixels")


def compact_json(document: object) -> bytes:
    """A document as JSON without spaces, its keys in their order."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_plain_reply_is_the_answer_itself() -> None:
    reply = PlainProtocol().reply([ANSWER], MODEL)
    assert reply.body == compact_json(ANSWER)
    assert (reply.status, reply.content_type) == (200, "application/json")


def test_a_label_keeps_its_non_ascii_letters() -> None:
    jay: AnswerBody = {**ANSWER, "predictions": [{**TABBY, "label": "Häher 鳥"}]}
    reply = PlainProtocol().reply([jay], MODEL)
    assert json.loads(reply.body.decode("utf-8"))["predictions"][0]["label"] == "Häher 鳥"


@pytest.mark.parametrize(
    "reply",
    [
        PlainProtocol().error_reply(INVALID_OPTION, MODEL),
        PlainProtocol().reply([INVALID_OPTION], MODEL),
    ],
    ids=["request", "photo"],
)
def test_an_error_reply_has_the_code_the_status_and_the_message(reply: Reply) -> None:
    assert reply.body == compact_json(
        {
            "error": {
                "code": "invalid_option",
                "status": 400,
                "message": "option 'alpha': 2 is not accepted",
            }
        }
    )
    assert (reply.status, reply.content_type) == (400, "application/json")


@pytest.mark.parametrize(("code", "status"), HTTP_STATUS.items())
def test_an_error_has_its_status_in_the_body_too(code: str, status: int) -> None:
    error = RequestError(code, "why")
    reply = PlainProtocol().error_reply(error, MODEL)
    assert reply.status == json.loads(reply.body)["error"]["status"] == status
    assert reply.content_type == "application/json"
    assert json.loads(reply.body) == error_body(error)


def test_statuses_of_errors_are_http_4xx_or_5xx() -> None:
    assert {400 <= status < 600 for status in HTTP_STATUS.values()} == {True}


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([ANSWER], 200),
        ([INVALID_OPTION], 400),
        ([ANSWER, ANSWER], 200),
        ([ANSWER, INTERNAL_ERROR], 200),
        ([INVALID_OPTION, ANSWER, INVALID_OPTION], 200),
        ([INVALID_OPTION, INVALID_OPTION], 400),
        ([INVALID_OPTION, UNSUPPORTED_FORMAT], 415),
        ([UNSUPPORTED_FORMAT, IMAGE_TOO_LARGE], 415),
        ([IMAGE_TOO_LARGE, INTERNAL_ERROR, INVALID_OPTION], 500),
    ],
)
def test_the_status_of_several_photos_is_200_if_any_is_answered_else_the_highest(
    outcomes: list[PhotoOutcome], status: int
) -> None:
    assert combined_status(outcomes) == status


def test_a_json_reply_is_utf_8_without_spaces() -> None:
    reply = json_reply({"classes": ["Häher"]})
    assert reply.body == '{"classes":["Häher"]}'.encode()
    assert (reply.status, reply.content_type) == (200, "application/json")


# The types, which tests/support/contract.py checks every reply against


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"x": 1}, id="further-key"),
        pytest.param({"model": {**MODEL, "x": 1}}, id="further-key-inside"),
        pytest.param({"model": {"name": "resnet50"}}, id="missing-key"),
        pytest.param({"predictions": [{**TABBY, "class_id": "281"}]}, id="number-as-text"),
        pytest.param({"predictions": [{**TABBY, "score": None}]}, id="null"),
        pytest.param({"predictions": [{**TABBY, "score": float("nan")}]}, id="nan"),
        pytest.param({"explanations": None}, id="no-list"),
        pytest.param({"error": error_body(INVALID_OPTION)["error"]}, id="error-beside-an-answer"),
    ],
)
def test_the_check_of_replies_rejects_a_body_that_does_not_match_the_types(
    change: dict[str, Any],
) -> None:
    assert contract.outcomes(ANSWER, "plain") == [ANSWER]
    with pytest.raises(ValueError, match="validation error"):
        contract.outcomes({**ANSWER, **change}, "plain")


def test_the_check_of_replies_does_not_change_the_types() -> None:
    answer, *_ = get_args(Body)
    assert contract.forbid_extra_keys(answer) is not answer
    assert not hasattr(answer, "__pydantic_config__")
