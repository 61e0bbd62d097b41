"""Options on their way through a real server, and the model's own word on them."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from camserve.options import Options as Accepted
from camserve_cli.sample_photos import sample_photo
from tests.support import color_resnet, option_strategies
from tests.support.contract import as_v2_has_it, assert_replies_close
from tests.support.option_strategies import Options
from tests.support.scripts import COLOR_MODEL, IMAGENET
from tests.support.server_client import Client
from tests.support.transport_matrix import WAYS, Answered, in_tensors, together

PHOTO = color_resnet.png(
    color_resnet.photo(("red", (45, 50), 30), ("blue", (20, 15), 12), width=96, height=80)
)
IMAGE = {"Content-Type": "image/png"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


# What escapes and what need not be, with labels that have spaces and a method that has pluses


def explained(reply: dict[str, Any]) -> list[tuple[str, str]] | str:
    """Label and method of each explanation, or the code of the error."""
    if "error" in reply:
        return str(reply["error"]["code"])
    return [(one["label"], one["method"]) for one in reply["explanations"]]


TIGER, TABBY = ("tiger cat", "gradcam"), ("tabby", "gradcam")
IN_PATH = {
    "target=tiger%20cat": [TIGER],
    "target=tiger%20cat,tabby": [TIGER, TABBY],
    "target=tiger%20cat%2Ctabby": [TIGER, TABBY],
    "target=tiger%20cat,281,method=gradcam": [TIGER, TABBY],
    "target=tiger%20cat-tabby": [TIGER],
    "target=%5B%22tiger%20cat%22%2C281%5D": [TIGER, TABBY],
    "target%3Dtabby": [TABBY],
    "target=tabby,method=gradcam%2B%2B": [("tabby", "gradcam++")],
    "target=tabby,method=gradcam++": [("tabby", "gradcam++")],
    "target=tabby/": [TABBY],
    # A plus in a path is a plus.
    "target=tiger+cat": "unknown_class",
    "target=tabby;method=gradcam": "unknown_class",
    "target=a%2Fb": "unknown_class",
    "target=100%25": "unknown_class",
    "tabby": "unknown_option",
}


IN_QUERY = {
    "target=tiger%20cat": [TIGER],
    "target=tiger+cat": [TIGER],
    "target=tiger+cat,281": [TIGER, TABBY],
    "target=%5B%22tiger+cat%22%2C281%5D": [TIGER, TABBY],
    "target=tabby&method=gradcam%2B%2B": [("tabby", "gradcam++")],
    # A plus in a query is a space.
    "target=tabby&method=gradcam++": [("tabby", "gradcam++")],
    "target=tabby&method=gradcam%2B": "invalid_option",
}


QUERIED = (f"/invocations?model_name={IMAGENET}&", f"/{IMAGENET}/predict?")
PREDICT = f"/predictions/{IMAGENET}"


@pytest.fixture(scope="module")
def cat_replies(server: Client) -> dict[tuple[str, str], dict[str, Any]]:
    """The reply to a photo of a cat by URL and form, asked for together."""
    cat = sample_photo("chelsea.png").read_bytes()
    data = quote(base64.b64encode(cat), safe="")
    urls = [f"{PREDICT}/1.0/{path}" for path in IN_PATH]
    urls += [path + query for path in QUERIED for query in IN_QUERY]
    asked: dict[tuple[str, str], tuple[bytes | str, dict[str, str]]] = {
        **{(url, ""): (cat, IMAGE) for url in urls},
        **{(PREDICT, form): (f"data={data}&{form}", FORM) for form in IN_QUERY},
    }
    calls = [
        partial(server.http.post, url, content=content, headers=headers)
        for (url, _), (content, headers) in asked.items()
    ]
    return {key: response.json() for key, response in zip(asked, together(calls), strict=True)}


@pytest.mark.parametrize(("path", "expected"), IN_PATH.items())
def test_options_in_the_url_path(
    cat_replies: dict[tuple[str, str], dict[str, Any]], path: str, expected: Any
) -> None:
    assert explained(cat_replies[f"{PREDICT}/1.0/{path}", ""]) == expected


@pytest.mark.parametrize("path", QUERIED)
@pytest.mark.parametrize(("query", "expected"), IN_QUERY.items())
def test_options_in_the_query(
    cat_replies: dict[tuple[str, str], dict[str, Any]], path: str, query: str, expected: Any
) -> None:
    assert explained(cat_replies[path + query, ""]) == expected


@pytest.mark.parametrize(("form", "expected"), IN_QUERY.items())
def test_options_in_an_urlencoded_form(
    cat_replies: dict[tuple[str, str], dict[str, Any]], form: str, expected: Any
) -> None:
    assert explained(cat_replies[PREDICT, form]) == expected


def test_options_in_a_header_may_be_escaped_as_json_has_it(server: Client) -> None:
    header = {"X-Explain": '{"target": "\\u0072ed"}', **IMAGE}
    path = f"/predictions/{COLOR_MODEL}"
    assert explained(server.http.post(path, content=PHOTO, headers=header).json()) == [
        ("red", "gradcam")
    ]


# Any options


def ask(server: Client, asked: list[tuple[Options, str]]) -> list[Answered]:
    """What becomes of the photo by each way; the replies' forms are right."""

    def call(options: Options, way: str) -> Answered:
        try:
            return WAYS[way](server, PHOTO, options)
        except Exception as failure:
            failure.add_note(f"{way}: {options}")
            raise

    return together([partial(call, options, way) for options, way in asked])


ways = st.sampled_from(list(WAYS))
examples = settings(
    deadline=None,
    derandomize=True,
    # Each example is sixteen calls: to make a failing one small would take minutes.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(examples, max_examples=2)
@given(st.lists(st.tuples(option_strategies.valid_options, ways), min_size=16, max_size=16))
def test_right_options_are_answered_by_whatever_way(
    server: Client, asked: list[tuple[Options, str]]
) -> None:
    # A call for explanations refuses to go without, and takes no condition.
    asked = [
        (
            {
                **{name: value for name, value in options.items() if name != "explain_when"},
                "explain": True,
            },
            way,
        )
        for options, way in asked
    ]
    plain = ask(server, [(options, "JSON, b64") for options, _ in asked])
    for (_, way), got, expected in zip(asked, ask(server, asked), plain, strict=True):
        assert (got.status, expected.status) == (200, 200)
        wanted = as_v2_has_it(expected.outcome) if in_tensors(way) else expected.outcome
        assert_replies_close(got.outcome, wanted, way)


@settings(examples, max_examples=6)
@given(st.lists(st.tuples(option_strategies.arbitrary_options, ways), min_size=16, max_size=16))
def test_wrong_options_are_refused_as_the_callers_own(
    server: Client, asked: list[tuple[Options, str]]
) -> None:
    for (options, way), answered in zip(asked, ask(server, asked), strict=True):
        assert answered.status < 500, (way, options)
        assert answered.outcome.get("error", {"status": 200})["status"] < 500, (way, options)


# How far a map is true, and whether there is one


EVERY_FIGURE = ["drop", "increase", "insertion", "deletion", "road"]


@pytest.mark.parametrize(
    "way", ["raw body, header", "v1 predict", "v2 infer", "Predictions", "Open Inference"]
)
def test_every_figure_of_faithfulness(server: Client, way: str) -> None:
    (got,) = ask(server, [({"faithfulness": EVERY_FIGURE, "outputs": ["map"]}, way)])
    assert got.status == 200
    figures = got.outcome["explanations"][0]["faithfulness"]
    assert list(figures) == EVERY_FIGURE
    assert figures["drop"]["value"] < figures["drop"]["random"]
    assert figures["road"]["value"] > figures["road"]["random"]


@pytest.fixture(scope="module")
def measured(server: Client) -> dict[str, Answered]:
    """The reply with a figure and a record, by each way."""
    options: Options = {"faithfulness": ["drop"], "record": True, "outputs": ["map"]}
    return dict(zip(WAYS, ask(server, [(options, way) for way in WAYS]), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_faithfulness_is_the_same_by_every_way(measured: dict[str, Answered], way: str) -> None:
    plain, got = measured["JSON, b64"].outcome, measured[way]
    assert got.status == 200
    assert_replies_close(got.outcome, as_v2_has_it(plain) if in_tensors(way) else plain, way)
    (explanation,) = got.outcome["explanations"]
    figures = explanation["faithfulness"]
    assert figures["drop"]["value"] < figures["drop"]["random"]
    assert explanation["record"]["map"] == explanation["map"]


@pytest.fixture(scope="module")
def judged(server: Client) -> dict[str, Answered]:
    """The reply to a condition that does not hold, by each way."""
    options: Options = {"explain_when": "class in [5] and probability<1"}
    return dict(zip(WAYS, ask(server, [(options, way) for way in WAYS]), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_condition_is_judged_by_every_way_that_need_not_explain(
    judged: dict[str, Answered], way: str
) -> None:
    got = judged[way]
    always = any(name in way for name in ("explain", "explanations"))
    assert got.status == (400 if always else 200)
    codes = [got.outcome["error"]["code"]] if "error" in got.outcome else []
    assert codes == ["conflicting_options"] * always
    values = got.outcome.get("not_explained", {}).get("value", [0])
    assert values[0] == 0
    assert len(values) == (1 if always else 2)


# What the model says of itself


def test_the_model_describes_itself_over_the_management_api(server: Client) -> None:
    by_http, by_grpc = server.describe(COLOR_MODEL), server.describe_by_grpc(COLOR_MODEL)
    described = by_http["customizedMetadata"]
    assert by_grpc["customizedMetadata"] == described
    assert described["model"]["name"] == COLOR_MODEL
    assert described["classes"] == color_resnet.LABELS
    assert [layer["name"] for layer in described["layers"]] == [
        "layer4.2",
        *option_strategies.LAYERS,
    ]
    assert [layer["shape"] for layer in described["layers"]] == [
        [2048, 7, 7], [1024, 14, 14], [2048, 7, 7],
    ]  # fmt: skip
    # TorchServe's own word is beside it.
    assert by_http["modelName"] == by_grpc["modelName"] == COLOR_MODEL


def test_the_schema_that_it_gives_is_that_of_its_options(server: Client) -> None:
    schema = server.describe(IMAGENET)["customizedMetadata"]["options"]
    Draft202012Validator.check_schema(schema)
    assert schema["properties"].keys() == Accepted.model_fields.keys()
    assert schema["properties"]["top_k"]["maximum"] == 1000
    assert schema["properties"]["layer"]["default"] == ["_bn1"]


def test_descriptions_and_predictions_may_be_asked_for_together(server: Client) -> None:
    def predict() -> Any:
        return server.predict(COLOR_MODEL, data=PHOTO, explain=b"false")["predictions"][0]["label"]

    def describe() -> Any:
        return server.describe(COLOR_MODEL)["customizedMetadata"]["model"]["name"]

    deaths = server.deaths()
    assert together([predict, describe] * 4) == ["red", COLOR_MODEL] * 4
    assert server.deaths() == deaths
