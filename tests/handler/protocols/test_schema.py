"""What goes back, byte for byte as the contract has it."""

from __future__ import annotations

import json

import pytest

from camserve.errors import HTTP_STATUS, RequestError
from camserve.protocols.plain import PlainProtocol
from camserve.protocols.replies import combined_status, error_body, json_reply
from camserve.protocols.schema import Body
from tests.support import contract

MODEL = {"name": "resnet50", "version": "1.0"}
TABBY = {"class_id": 281, "label": "tabby", "probability": 0.625, "score": 9.125}
ANSWER = {
    "model": MODEL,
    "image": {"width": 451, "height": 300, "orientation": 1, "seen": [80.351, 0.0, 370.649, 300.0]},
    "predictions": [TABBY],
    "explanations": [],
}
GREY = RequestError("unsupported_format", "the photo's format is not recognised")
WRONG = RequestError("invalid_option", "option 'alpha': 2 is not accepted")
BROKEN = RequestError("internal_error", "the server failed on this request; see its log")
LARGE = RequestError("image_too_large", "the photo has too many pixels")


def compact(document):
    """The document's bytes, keys in their order."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def test_answer_goes_back_as_it_is():
    reply = PlainProtocol().reply([ANSWER], MODEL)
    assert reply.body == compact(ANSWER)
    assert (reply.status, reply.content_type) == (200, "application/json")


def test_label_keeps_its_letters():
    jay = {**ANSWER, "predictions": [{**TABBY, "label": "Häher 鳥"}]}
    reply = PlainProtocol().reply([jay], MODEL)
    assert json.loads(reply.body.decode("utf-8"))["predictions"][0]["label"] == "Häher 鳥"


@pytest.mark.parametrize(
    "refused", [PlainProtocol().error_reply, lambda error, _: PlainProtocol().reply([error], _)]
)
def test_error_is_the_contracts_document(refused):
    reply = refused(WRONG, MODEL)
    assert reply.body == compact(
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
def test_error_says_its_status_in_the_body_too(code, status):
    error = RequestError(code, "why")
    reply = PlainProtocol().error_reply(error, MODEL)
    assert reply.status == json.loads(reply.body)["error"]["status"] == status
    assert reply.content_type == "application/json"
    assert json.loads(reply.body) == error_body(error)


def test_statuses_are_those_of_http():
    assert {400 <= status < 600 for status in HTTP_STATUS.values()} == {True}


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([ANSWER], 200),
        ([WRONG], 400),
        ([ANSWER, ANSWER], 200),
        ([ANSWER, BROKEN], 200),
        ([WRONG, ANSWER, WRONG], 200),
        ([WRONG, WRONG], 400),
        ([WRONG, GREY], 415),
        ([GREY, LARGE], 415),
        ([LARGE, BROKEN, WRONG], 500),
    ],
)
def test_several_photos_status_is_200_where_any_is_answered_else_the_gravest(outcomes, status):
    assert combined_status(outcomes) == status


def test_a_written_reply_is_json():
    reply = json_reply({"classes": ["Häher"]})
    assert reply.body == '{"classes":["Häher"]}'.encode()
    assert (reply.status, reply.content_type) == (200, "application/json")


# The types, as the tests hold every reply to them


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
        pytest.param({"error": error_body(WRONG)["error"]}, id="error-beside-an-answer"),
    ],
)
def test_the_tests_own_check_refuses_what_the_types_do_not_have(change):
    assert contract.outcomes(ANSWER, "plain") == [ANSWER]
    with pytest.raises(ValueError, match="validation error"):
        contract.outcomes({**ANSWER, **change}, "plain")


def test_the_tests_own_check_leaves_the_types_alone():
    answer, *_ = Body.__args__
    assert contract.strictly(answer) is not answer
    assert not hasattr(answer, "__pydantic_config__")
