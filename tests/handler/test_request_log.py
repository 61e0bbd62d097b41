"""What the log and the metrics are told of requests."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from camserve import reply_builder, request_log
from camserve.errors import RequestError
from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from camserve.protocols.schema import ModelBody
from camserve.request_log import MetricSample, RequestRecord
from tests.support.color_resnet import photo, png
from tests.support.request_builders import HTTP, b64, form, grpc, json_request, raw, v1, v2

SIZE = 96, 64
PHOTO = png(photo(("red", (40, 30), 25), width=SIZE[0], height=SIZE[1]))
MODEL = ModelBody(name="colours", version="2.1")


def entries(pipeline: Pipeline, *rows: IncomingRequest) -> list[RequestRecord]:
    """What the journal holds once these shared a batch."""
    batch = pipeline.preprocess(rows)
    pipeline.postprocess(pipeline.inference(batch))
    return batch.records


def line_of(entry: RequestRecord) -> dict[str, Any]:
    return dict(json.loads(request_log.log_line(entry, MODEL, 8, 0.123456)))


def told(found: Sequence[MetricSample], name: str) -> list[tuple[dict[str, str], float]]:
    return [(dict(one.labels), one.value) for one in found if one.name == name]


def test_each_request_of_a_batch_has_one_entry_in_its_order(color_pipeline: Pipeline) -> None:
    rows = [
        replace(row, id=f"id-{n}")
        for n, row in enumerate(
            [
                raw(PHOTO), raw(b"junk"), IncomingRequest({"data": PHOTO}, {}), v1(PHOTO, b"junk"),
                v2(b"junk", b"junk"), grpc(PHOTO, PHOTO), json_request(PHOTO, alhpa=1),
                IncomingRequest({}, HTTP),
            ]
        )
    ]  # fmt: skip
    found = entries(color_pipeline, *rows)
    assert [entry.id for entry in found] == [f"id-{n}" for n in range(len(rows))]
    told = [
        (one.transport, one.protocol, one.status, one.outcome, one.code, len(one.photos))
        for one in found
    ]
    assert told == [
        ("http", "plain", 200, "answered", "none", 1),
        ("http", "plain", 415, "refused", "unsupported_format", 0),
        ("grpc", "plain", 200, "answered", "none", 1),
        ("http", "kserve v1", 200, "partly", "unsupported_format", 1),
        ("http", "kserve v2", 415, "refused", "unsupported_format", 0),
        ("grpc", "kserve v2", 200, "answered", "none", 2),
        ("http", "plain", 400, "refused", "unknown_option", 0),
        ("http", "plain", 400, "refused", "missing_image", 0),
    ]
    assert all(one.level == logging.INFO for one in found)


@pytest.fixture(scope="module")
def color_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    """In bfloat16, colours that are not in a photo leave a trifle."""
    return load(precision="float32", preprocess={"resize": 64, "crop": 64})


def test_photos_and_explanations_are_told_by_kind(color_pipeline: Pipeline) -> None:
    target = ["predicted", "top:2", "blue", 1, "red-green"]
    (entry,) = entries(
        color_pipeline, json_request(PHOTO, target=target, method="layercam", outputs="map")
    )
    (size,) = entry.photos
    assert (size.pixels, size.file_bytes) == (SIZE[0] * SIZE[1], len(PHOTO))
    kinds = ["predicted", "predicted", "ranked", "class", "class", "contrast"]
    assert [one.target_kind for one in entry.explanations] == kinds
    assert {one.method for one in entry.explanations} == {"layercam"}
    # Of blue and of class 1 there is nothing in the photo.
    assert [one.evidence for one in entry.explanations][:2] == [True, True]
    assert False in [one.evidence for one in entry.explanations]


def test_a_line_is_one_json_object_with_the_requests_id(color_pipeline: Pipeline) -> None:
    (entry,) = entries(color_pipeline, replace(raw(PHOTO), id="3a0d"))
    text = request_log.log_line(entry, MODEL, 8, 0.123456)
    assert text.startswith('{"time":"')
    assert text.endswith("}")
    assert "\n" not in text
    found = line_of(entry)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "INFO", "logger": "request", "request_id": "3a0d", "model": "colours",
        "version": "2.1", "transport": "http", "protocol": "plain", "status": 200,
        "outcome": "answered", "code": "none", "photos": 1, "explanations": 1, "batch": 8,
        "ms": 123.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        form(PHOTO, target="s3cret"),
        form(PHOTO, s3cret="1"),
        raw(PHOTO, options='{"target": "s3cret'),
        IncomingRequest({"body": {"image": b64(PHOTO) + "s3cret"}}, HTTP),
        IncomingRequest({"data": b"s3cret"}, HTTP | {"authorization": "Bearer s3cret"}),
        IncomingRequest({"s3cret": b"x"}, HTTP),
    ],
)
def test_nothing_that_a_caller_sent_is_in_the_log_or_the_metrics(
    row: IncomingRequest, color_pipeline: Pipeline
) -> None:
    (entry,) = entries(color_pipeline, row)
    assert entry.outcome == "refused"
    assert "s3cret" not in json.dumps(line_of(entry))
    assert "s3cret" not in str(list(request_log.metric_samples([entry], {})))


def test_a_failure_is_an_error_in_the_log_with_its_place(
    color_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> Any:
        raise ZeroDivisionError(f"at {PHOTO!r}")

    monkeypatch.setattr(reply_builder, "render_outputs", fails)
    (entry,) = entries(color_pipeline, raw(PHOTO))
    assert (entry.status, entry.outcome, entry.level) == (500, "failed", logging.ERROR)
    found = line_of(entry)
    assert (found["level"], found["code"]) == ("ERROR", "internal_error")
    assert "test_request_log.py" in found["failure"]
    # And nothing that the exception says, which may quote a photo.
    assert found["failure"].splitlines()[-1] == "ZeroDivisionError"


def test_a_batch_is_counted(color_pipeline: Pipeline) -> None:
    rows = [
        raw(PHOTO), raw(PHOTO), form(b"junk"), json_request(PHOTO, alhpa=1),
        json_request(PHOTO, alpha=7),
        json_request(PHOTO, target=["blue", "predicted"], method="hirescam", outputs="map"),
    ]  # fmt: skip
    found = list(
        request_log.metric_samples(entries(color_pipeline, *rows), {"read": 0.5, "draw": 0.25})
    )
    assert told(found, "BatchSize") == [({}, 6)]
    stages = [({"Stage": "read"}, 0.5), ({"Stage": "draw"}, 0.25)]
    assert told(found, "StageTime") == stages
    assert told(found, "Requests") == [
        ({"Outcome": "answered", "Code": "none"}, 3),
        ({"Outcome": "refused", "Code": "unsupported_format"}, 1),
        ({"Outcome": "refused", "Code": "unknown_option"}, 1),
        ({"Outcome": "refused", "Code": "invalid_option"}, 1),
    ]
    assert told(found, "Explanations") == [
        ({"Method": "gradcam", "TargetKind": "predicted"}, 2),
        ({"Method": "hirescam", "TargetKind": "class"}, 1),
        ({"Method": "hirescam", "TargetKind": "predicted"}, 1),
    ]
    assert told(found, "MapsWithoutEvidence") == [({"Method": "hirescam"}, 1)]
    megapixels = [value for _, value in told(found, "PhotoMegapixels")]
    assert megapixels == pytest.approx([96 * 64 / 1e6] * 3)
    megabytes = [value for _, value in told(found, "PhotoMegabytes")]
    assert megabytes == pytest.approx([len(PHOTO) / 1e6] * 3)


def test_the_gravest_of_several_errors_is_told() -> None:
    errors = RequestError("unknown_class", "no"), RequestError("internal_error", "no", "here")
    entry = RequestRecord("7", "http", "kserve v1", 200, errors, (), ())
    assert (entry.outcome, entry.code, entry.level) == ("partly", "internal_error", logging.ERROR)
    assert line_of(entry)["failure"] == "here"


def test_torchserves_own_lines_for_each_request_are_left_out() -> None:
    def record(function: str) -> logging.LogRecord:
        return logging.LogRecord("root", 30, "otf.py", 1, "said", (), None, function)

    assert not request_log.drop_torchserve_request_lines(record("retrieve_msg"))
    assert not request_log.drop_torchserve_request_lines(record("_retrieve_input_data"))
    assert request_log.drop_torchserve_request_lines(record("load_model"))


def test_an_exception_that_is_logged_is_told_by_class_and_place() -> None:
    try:
        raise ValueError("s3cret") from KeyError("s3cret")
    except ValueError as failure:
        found = (type(failure), failure, failure.__traceback__)
    record = logging.LogRecord("ts.service", 30, "service.py", 1, "failed", (), found)
    assert request_log.hide_exception_message(record)
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith('failed\n  File "')
    assert text.endswith("\nValueError")
    assert "s3cret" not in text.replace('raise ValueError("s3cret") from KeyError("s3cret")', "")


def test_what_is_logged_without_an_exception_stays_as_it_is() -> None:
    record = logging.LogRecord("root", 20, "worker.py", 1, "loaded %s", ("m",), None)
    assert request_log.hide_exception_message(record)
    assert logging.Formatter("%(message)s").format(record) == "loaded m"
