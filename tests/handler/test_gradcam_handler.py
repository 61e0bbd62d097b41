"""The adapter, within TorchServe's own context, service and loader."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from camserve.errors import SettingsError
from camserve.protocols.parsing import IncomingRequest
from tests.support import color_resnet, contract
from tests.support.contract import inputs_of

# TorchServe reads its version and its metrics' configuration without closing the files.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:unclosed file .*ts/(version\.txt|configs/metrics\.yaml):ResourceWarning"
)

PHOTO = color_resnet.png(color_resnet.photo(("red", (90, 120), 40), ("blue", (230, 120), 30)))
FIELDS = {"data": bytearray(PHOTO)}
B64 = base64.b64encode(PHOTO).decode()
INSTANCES = {"body": {"instances": [B64, {"image": B64, "target": "blue"}]}}
INPUTS = {"body": {"id": "7", "model_name": "colours", "inputs": inputs_of([B64])}}

#: The headers that TorchServe gives a handler, by transport: HTTP's own, and each field's type.
OF_FIELD = {"data": {"content-type": ""}}
PREDICTIONS = {**OF_FIELD, "Host": "localhost:8080", "explain": "False", "url_path": ""}
EXPLANATIONS = {**PREDICTIONS, "explain": "True"}
INVOCATIONS = {**OF_FIELD, "Host": "localhost:8080", "content-length": "1234"}
GRPC = OF_FIELD
#: KServe and Open Inference have one field, the parsed body.
OF_BODY = {"body": {"content-type": "application/json"}}
KSERVE = {**OF_BODY, "Host": "localhost:8080", "explain": "False"}
KSERVE_EXPLAIN = {**KSERVE, "explain": "True"}
OPEN_INFERENCE = OF_BODY


@pytest.fixture(scope="module")
def ts() -> ModuleType:
    """TorchServe, imported where its warnings are known."""
    import ts.model_loader

    module: ModuleType = ts
    return module


@pytest.fixture(scope="module")
def serve(
    ts: ModuleType, make_archive: Callable[..., tuple[dict[str, Any], Path]]
) -> Callable[..., Any]:
    """Unpack an archive and have TorchServe's own loader make a service of it."""
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    def serve(**section: Any) -> Any:
        _, directory = make_archive(preprocess={"resize": 64, "crop": 64}, **section)
        manifest = {
            "modelName": "colours",
            "modelVersion": "2.1",
            "handler": "gradcam_handler.py",
            "configFile": "model-config.yaml",
        }
        (directory / "MAR-INF").mkdir()
        (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": manifest}))
        metrics = MetricsCacheYamlImpl(
            str(Path(str(ts.__file__)).parent / "configs" / "metrics.yaml")
        )
        metrics.initialize_cache()
        service = ts.model_loader.TsModelLoader().load(
            "colours", str(directory), "gradcam_handler.py", None, 8, None, True, metrics
        )
        service.set_cl_socket(None)
        # Nothing is written while other tests read what is.
        service._entry_point.__self__.emission.stop()
        return service

    return serve


@pytest.fixture(scope="module")
def service(serve: Callable[..., Any]) -> Any:
    return serve()


class Answer:
    """What the context holds for one request, and the reply's content."""

    def __init__(self, context: Any, n: int, body: bytes) -> None:
        self.body = body
        self.content = json.loads(body)
        self.status, self.phrase = context.get_response_status(n)
        self.headers = context.get_response_headers(n)

    @property
    def explained(self) -> list[str]:
        return [explanation["label"] for explanation in self.content["explanations"]]

    @property
    def error(self) -> str:
        return str(self.content["error"]["code"])


def ask(service: Any, *requests: tuple[dict[str, Any], dict[str, Any]]) -> list[Answer]:
    """Hand (fields, headers) of each request to the handler."""
    from ts.context import RequestProcessor

    context = service.context
    context.request_processor = [RequestProcessor(headers) for _, headers in requests]
    bodies = service._entry_point([fields for fields, _ in requests], context)
    assert [type(body) for body in bodies] == [bytes] * len(requests)
    return [Answer(context, n, body) for n, body in enumerate(bodies)]


# Loading


def test_the_entry_module_defines_one_class(ts: ModuleType) -> None:
    from ts.utils.util import list_classes_from_module

    import gradcam_handler

    assert list_classes_from_module(gradcam_handler) == [gradcam_handler.GradCamHandler]


def test_the_handler_is_ready_once_loaded(service: Any) -> None:
    handler = service._entry_point.__self__
    assert handler.initialized
    assert isinstance(handler.model, nn.Module)
    assert not handler.model.training
    assert handler.device == torch.device("cpu")
    (answer,) = ask(service, (FIELDS, PREDICTIONS))
    assert answer.content["model"] == {"name": "colours", "version": "2.1"}


def test_an_archive_that_does_not_fit_stops_the_load(serve: Callable[..., Any]) -> None:
    with pytest.raises(SettingsError, match=r"layer4\.2"):
        serve(layer="layer4.3")


# Headers


@pytest.mark.parametrize("name", ["X-Explain", "x-explain", "X-EXPLAIN"])
def test_a_headers_name_may_have_any_case(name: str, service: Any) -> None:
    (answer,) = ask(service, (FIELDS, {**PREDICTIONS, name: '{"target": "blue"}'}))
    assert answer.explained == ["blue"]


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_so_may_the_content_types(name: str, service: Any) -> None:
    # In a urlencoded form, a space in base64 was a plus.
    form = {"data": base64.b64encode(PHOTO).replace(b"+", b" ")}
    assert b" " in form["data"]
    headers = {**PREDICTIONS, name: "application/x-www-form-urlencoded"}
    (text, binary) = ask(service, (form, headers), (form, PREDICTIONS))
    assert text.explained == ["red"]
    assert binary.error == "invalid_base64"


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({}, PREDICTIONS, ["red"]),
        ({}, EXPLANATIONS, ["red"]),
        ({}, INVOCATIONS, ["red"]),
        ({}, GRPC, ["red"]),
        ({"explain": b"false"}, PREDICTIONS, []),
        ({"explain": b"false"}, EXPLANATIONS, "conflicting_options"),
        ({"explain": b"true"}, EXPLANATIONS, ["red"]),
        ({"explain": b"false"}, INVOCATIONS, []),
        ({"explain": b"false"}, {**GRPC, "explain": {"content-type": ""}}, []),
        ({}, {**PREDICTIONS, "url_path": "/target=blue"}, ["blue"]),
        ({}, {**PREDICTIONS, "url_path": "target=2,top_k=1"}, ["blue"]),
        ({}, {**EXPLANATIONS, "url_path": "explain=false"}, "conflicting_options"),
        ({}, {**PREDICTIONS, "url_path": "target=puce"}, "unknown_class"),
        (
            {"url_path": b"target=blue"},
            {**GRPC, "url_path": {"content-type": ""}},
            "unknown_option",
        ),
    ],
)
def test_headers_and_path_reach_the_request(
    fields: dict[str, bytes], headers: dict[str, Any], expected: list[str] | str, service: Any
) -> None:
    (answer,) = ask(service, ({**FIELDS, **fields}, headers))
    assert (answer.error if "error" in answer.content else answer.explained) == expected


def test_explanations_hold_even_where_the_operator_leaves_them_out(
    serve: Callable[..., Any],
) -> None:
    quiet = serve(defaults={"explain": False})
    predictions, explanations = ask(quiet, (FIELDS, PREDICTIONS), (FIELDS, EXPLANATIONS))
    assert (predictions.explained, explanations.explained) == ([], ["red"])


# KServe


@pytest.mark.parametrize(
    ("headers", "key"), [(KSERVE, "predictions"), (KSERVE_EXPLAIN, "explanations")]
)
def test_kserve_v1_answers_each_instance(headers: dict[str, Any], key: str, service: Any) -> None:
    (answer,) = ask(service, (INSTANCES, headers))
    assert answer.status == 200
    assert answer.content.keys() == {key}
    found = contract.outcomes(answer.content, "v1")
    assert [one["explanations"][0]["label"] for one in found] == ["red", "blue"]


def test_kserve_v1_status_is_the_gravest_where_all_fail(service: Any) -> None:
    junk = base64.b64encode(b"junk").decode()
    body = {"instances": [junk, {"image": B64, "target": "puce"}]}
    (answer,) = ask(service, ({"body": body}, KSERVE))
    assert (answer.status, answer.phrase) == (415, "Unsupported Media Type")
    found = contract.outcomes(answer.content, "v1")
    assert [one["error"]["status"] for one in found] == [415, 400]


@pytest.mark.parametrize("headers", [KSERVE, KSERVE_EXPLAIN, OPEN_INFERENCE])
def test_kserve_v2_answers_with_tensors(headers: dict[str, Any], service: Any) -> None:
    (answer,) = ask(service, (INPUTS, headers))
    assert answer.status == 200
    (found,) = contract.outcomes(answer.content, "v2")
    assert answer.content["id"] == "7"
    assert found["model"] == {"name": "colours", "version": "2.1"}
    assert found["explanations"][0]["label"] == "red"


@pytest.mark.parametrize("headers", [KSERVE, OPEN_INFERENCE])
@pytest.mark.parametrize(
    "body", [{"inputs": []}, {"inputs": None, "id": 5}, {"inputs": inputs_of([B64], alhpa="1")}]
)
def test_kserve_v2_is_refused_in_v2(
    body: dict[str, Any], headers: dict[str, Any], service: Any
) -> None:
    (answer,) = ask(service, ({"body": body}, headers))
    assert answer.status == 400
    assert contract.outcomes(answer.content, "v2") == [{"error": answer.content["error_detail"]}]


def test_whatever_body_comes_parsed_over_grpc_is_answered_in_v2(service: Any) -> None:
    bodies: list[dict[str, Any]] = [{}, {"id": "7"}, {"instances": [B64]}, {"image": B64}]
    for answer in ask(service, *(({"body": body}, OPEN_INFERENCE) for body in bodies)):
        assert answer.status == 400
        assert contract.outcomes(answer.content, "v2") == [
            {"error": answer.content["error_detail"]}
        ]


def test_kserve_takes_options_from_the_header(service: Any) -> None:
    header = {"X-Explain": '{"target": "green"}'}
    v1, v2 = ask(service, (INSTANCES, KSERVE | header), (INPUTS, KSERVE | header))
    labels = [one["explanations"][0]["label"] for one in contract.outcomes(v1.content, "v1")]
    assert labels == ["green", "blue"]
    assert contract.arrays(v2.content)["explained_label"].tolist() == [["green"]]


# The description


@pytest.mark.parametrize("headers", [{"describe": "True"}, {"describe": "True", "Host": "x"}])
def test_a_call_for_the_description_is_answered_with_it(
    headers: dict[str, str], service: Any
) -> None:
    before, described, after = ask(
        service, (FIELDS, PREDICTIONS), ({}, headers), (INPUTS, OPEN_INFERENCE)
    )
    assert described.status == 200
    assert described.content["model"]["version"] == "2.1"
    assert described.content["classes"] == color_resnet.LABELS
    assert before.explained == ["red"]
    assert contract.arrays(after.content)["explained_label"].tolist() == [["red"]]


def test_a_photo_with_that_header_is_no_call_for_the_description(service: Any) -> None:
    (answer,) = ask(service, (FIELDS, {**PREDICTIONS, "describe": "True"}))
    assert answer.explained == ["red"]


def test_an_input_of_that_name_is_no_call_for_the_description(service: Any) -> None:
    fields = {**FIELDS, "describe": b"True"}
    (answer,) = ask(service, (fields, {**GRPC, "describe": {"content-type": ""}}))
    assert answer.error == "unknown_option"


# gRPC and HTTP

GRPC_ROWS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (FIELDS, GRPC),
    ({}, {}),
    ({"data": b"no photo"}, GRPC),
    # Inputs that are called as TorchServe's own headers are.
    ({**FIELDS, "explain": b"true"}, {**GRPC, "explain": {"content-type": ""}}),
    ({**FIELDS, "Host": b"x"}, {**GRPC, "Host": {"content-type": ""}}),
    (INPUTS, OPEN_INFERENCE),
    ({"body": {"id": "7"}}, OPEN_INFERENCE),
]
HTTP_ROWS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (INSTANCES, KSERVE),
    (INPUTS, KSERVE_EXPLAIN),
    (FIELDS, PREDICTIONS),
    (FIELDS, EXPLANATIONS),
    (FIELDS, INVOCATIONS),
    ({}, INVOCATIONS),
    ({"data": b"no photo"}, PREDICTIONS),
    ({}, {"Host": "localhost:8080"}),
]


def test_only_grpc_answers_end_a_stream(service: Any) -> None:
    # TorchServe kills the worker without that header, and hangs an HTTP client with it.
    answers = ask(service, *GRPC_ROWS, *HTTP_ROWS, *GRPC_ROWS[:1])
    ends = [answer.headers.get("ts_stream_next") for answer in answers]
    assert ends == ["false"] * len(GRPC_ROWS) + [None] * len(HTTP_ROWS) + ["false"]


# Answers


def test_status_phrase_and_content_type_are_each_requests_own(service: Any) -> None:
    wide = color_resnet.png(color_resnet.photo(width=2100, height=100))
    requests: list[dict[str, Any]] = [
        FIELDS,
        {"data": b"no photo"},
        {"data": wide},
        {},
        {**FIELDS, "target": "grün".encode()},
        FIELDS,
    ]
    answers = ask(service, *((fields, PREDICTIONS) for fields in requests))
    assert [answer.status for answer in answers] == [200, 415, 413, 400, 400, 200]
    for answer in answers:
        assert answer.content.get("error", {"status": 200})["status"] == answer.status
        assert answer.phrase
        assert answer.phrase.isascii()
        assert answer.headers == {"content-type": "application/json"}


def test_an_empty_batch_is_answered_with_nothing(service: Any) -> None:
    assert ask(service) == []


def test_the_handlers_time_is_measured(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ask(service, (FIELDS, PREDICTIONS))
    assert "[METRICS]HandlerTime.Milliseconds:" in caplog.text


def test_what_an_exception_says_stays_out_of_the_workers_log_once_it_is_loaded(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # As TorchServe's own service writes it.
    with caplog.at_level(logging.WARNING):
        try:
            raise ValueError("s3" + "cret")
        except ValueError:
            logging.getLogger("ts.service").warning("failed", exc_info=True)
    assert "failed\n  File" in caplog.text
    assert "ValueError" in caplog.text
    assert "s3cret" not in caplog.text


def test_the_steps_are_those_of_a_base_handler(service: Any) -> None:
    handler = service._entry_point.__self__
    rows = [IncomingRequest(FIELDS, {}), IncomingRequest({}, {})]
    replies = handler.postprocess(handler.inference(handler.preprocess(rows)))
    assert [reply.status for reply in replies] == [200, 400]


# TorchServe's service


def wire(number: int, fields: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """A request as TorchServe's worker decodes it from the frontend's message."""
    return {
        "requestId": f"id-{number}".encode(),
        "parameters": [
            {"name": name, "contentType": "", "value": value} for name, value in fields.items()
        ],
        "headers": [
            {"name": name.encode(), "value": value.encode()} for name, value in headers.items()
        ],
    }


def unwire(message: bytes) -> tuple[int, list[tuple[str, str, int, str, dict[str, str], bytes]]]:
    """The code of a predict response and its parts: id, type, status, phrase, headers, body."""
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        return int.from_bytes(message[at - 4 : at], "big", signed=True)

    def data(length: int) -> bytes:
        nonlocal at
        at += length
        return message[at - length : at]

    def text() -> str:
        return data(number()).decode()

    code, _ = number(), text()
    parts = []
    while (length := number()) != -1:
        name = data(length).decode()
        content_type, status, phrase = text(), number(), text()
        headers = {text(): text() for _ in range(number())}
        parts.append((name, content_type, status, phrase, headers, data(number())))
    assert at == len(message)
    return code, parts


def test_torchserves_service_sends_each_answer_on(service: Any) -> None:
    http = {"Host": "localhost:8080", "explain": "True", "url_path": "target=blue"}
    code, parts = unwire(
        bytes(
            service.predict(
                [
                    wire(0, FIELDS, http),
                    wire(1, FIELDS, {}),
                    wire(2, {"data": bytearray(b"no photo")}, http),
                ]
            )
        )
    )
    assert code == 200
    json_type = {"content-type": "application/json"}
    assert [part[:5] for part in parts] == [
        ("id-0", "application/json", 200, "OK", json_type),
        ("id-1", "application/json", 200, "OK", {**json_type, "ts_stream_next": "false"}),
        ("id-2", "application/json", 415, "Unsupported Media Type", json_type),
    ]
    contents = [json.loads(part[5]) for part in parts]
    assert contents[0]["explanations"][0]["label"] == "blue"
    assert contents[1]["explanations"][0]["label"] == "red"
    assert contents[2]["error"]["code"] == "unsupported_format"
