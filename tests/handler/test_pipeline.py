"""Batches: each request is answered as if it were alone, and as the contract says."""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camserve import reply_builder
from camserve.errors import SettingsError
from camserve.images import render_outputs
from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from tests.support import contract, request_builders
from tests.support.color_resnet import COLOR_VALUES, LABELS, photo, png
from tests.support.contract import assert_replies_close, decoded
from tests.support.request_builders import HTTP, grpc, single_reply, v1, v2
from tests.support.small_networks import forward_hook

DISCS = png(photo(("red", (90, 120), 40), ("blue", (230, 120), 30)))
TALL = png(photo(("cyan", (100, 150), 50), ("yellow", (100, 260), 30), width=200, height=400))
GREY = png(photo())
RED = png(photo(("red", (160, 120), 300)))
ALL_OUTPUTS = ["heatmap", "overlay", "mask", "map", "boxes"]


@pytest.fixture(scope="module")
def color_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    return load(layers=["layer3.5", "layer4.1"])


def form(image: bytes = DISCS, **options: str) -> IncomingRequest:
    return request_builders.form(image, **options)


def raw(image: bytes = DISCS, options: str = "{}", path: str = "") -> IncomingRequest:
    return request_builders.raw(image, options, path)


def jsoned(image: bytes = DISCS, **options: Any) -> IncomingRequest:
    return request_builders.json_request(image, **options)


# Alone and together

GOOD = {
    "raw": raw(),
    "raw, header": raw(options='{"target": "blue", "colormap": "viridis", "alpha": 0.8}'),
    "raw, path": raw(TALL, path="/target=5,outputs=overlay"),
    "raw, tall": raw(TALL),
    "form, predicted": form(target="predicted"),
    "form, index": form(target="2", image_format="webp", outputs="heatmap"),
    "form, no evidence": form(RED, target="cyan"),
    "form, grey": form(GREY, target="red", outputs='["overlay", "heatmap"]'),
    "json": jsoned(TALL, target="yellow", image_format="jpeg", top_k=2),
    "json, unexplained": jsoned(explain=False),
    "grpc, unexplained": form(TALL, explain="false", top_k="6"),
    "explanations": IncomingRequest({"body": DISCS}, {}, force_explain=True),
    "targets": form(target="blue,red,5", outputs="map,boxes"),
    "targets, one twice": jsoned(target=["blue", 2, "blue"], outputs=["map"]),
    "top": jsoned(target="top:6", outputs=["map", "mask"]),
    "top and more": form(TALL, target="top:2,red-cyan,predicted-yellow", outputs="map,boxes"),
    "contrast": jsoned(target="blue-red", outputs=["heatmap", "map"]),
    **{
        f"method {method}": jsoned(
            (DISCS, TALL)[n % 2], target=["blue", "top:2"], method=method, outputs=["map"],
            layer=("layer4.2", ["layer4.2", "layer3.5"], "layer3.5")[n % 3],
        )
        for n, method in enumerate(
            ["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "gradcam_elementwise",
             "eigencam", "eigengradcam"]
        )
    },
    "other layer": form(layer="layer3.5", outputs="map,heatmap"),
    "all layers": form(TALL, layer="layer4.1,layer3.5,layer4.2", outputs="map,mask,boxes"),
    "everything": jsoned(target=["top:2", "blue-red"], layer=["layer3.5", "layer4.2"],
                         method="gradcam++", outputs=ALL_OUTPUTS, size="original", alpha=0.5),
    "size": form(TALL, size="90", outputs="overlay,mask", colormap="turbo", image_format="webp"),
    "threshold": form(target="blue", threshold="0.9", outputs="boxes"),
    "v1": v1(DISCS),
    "v1, options": v1((DISCS, {"target": ["blue", "red"], "outputs": "map"})),
    "v1, explain": v1(TALL, force_explain=True, outputs=["boxes"]),
    "v2": v2(DISCS),
    "v2, options": v2(TALL, target=["yellow", "top:2"], layer="layer3.5", outputs=["map", "mask"]),
    "grpc, v2": grpc(DISCS),
    "grpc, v2, targets": grpc(DISCS, target='["blue", 0]'),
}  # fmt: skip
BAD = {
    "damaged": (form(DISCS[:200]), "invalid_image"),
    "no photo": (form(b"xx"), "unsupported_format"),
    "unknown class": (form(target="blu"), "unknown_class"),
    "no such index": (jsoned(target=6), "unknown_class"),
    "unknown option": (jsoned(alfa=1), "unknown_option"),
    "out of range": (raw(options='{"alpha": 7}'), "invalid_option"),
    "too many": (form(top_k="7"), "invalid_option"),
    "too many targets": (form(target="top:7"), "invalid_option"),
    "too many targets, listed": (jsoned(target=[0] * 17), "too_many_targets"),
    "no such class to tell from": (form(target="red-pink"), "unknown_class"),
    "layer not served": (form(layer="layer4.2,layer1"), "invalid_option"),
    "too large a reply": (form(size="8192"), "reply_too_large"),
    "v1, nothing": (IncomingRequest({"body": {"instances": []}}, HTTP), "invalid_request"),
    "v1, unknown class": (v1((DISCS, {"target": "pink"})), "unknown_class"),
    "v2, no photo": (IncomingRequest({"body": {"inputs": []}}, HTTP), "missing_image"),
    "v2, unknown class": (v2(DISCS, target="pink"), "unknown_class"),
    "grpc, v2, junk": (grpc(b"junk"), "unsupported_format"),
    "grpc, v2, nothing": (IncomingRequest({"body": {"model_name": "m"}}, {}), "invalid_request"),
    "nothing": (IncomingRequest({}, {}), "missing_image"),
    "broken JSON": (
        IncomingRequest({"body": b"{"}, {"content-type": "application/json"}),
        "invalid_json",
    ),
    "conflict": (
        IncomingRequest({"data": DISCS, "explain": b"false"}, {}, force_explain=True),
        "conflicting_options",
    ),
}
ROWS = {**GOOD, **{name: row for name, (row, _) in BAD.items()}}


@pytest.fixture(scope="module")
def alone(color_pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Each request's answer in a batch of one."""
    return {name: single_reply(color_pipeline, row)[0] for name, row in ROWS.items()}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused(name: str, alone: dict[str, dict[str, Any]]) -> None:
    assert alone[name].keys() == {"error"}
    assert alone[name]["error"].keys() == {"code", "status", "message"}
    assert alone[name]["error"]["code"] == BAD[name][1]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_request_is_answered(name: str, alone: dict[str, dict[str, Any]]) -> None:
    assert alone[name].keys() == {"model", "image", "predictions", "explanations"}
    assert bool(alone[name]["explanations"]) is ("unexplained" not in name)


@pytest.mark.parametrize("half", range(2))
def test_a_mixed_batch_in_any_order_answers_each_as_if_alone(
    half: int, color_pipeline: Pipeline, alone: dict[str, dict[str, Any]]
) -> None:
    names = random.Random(7).sample(list(ROWS), len(ROWS))[half::2]
    for name, got in zip(
        names, single_reply(color_pipeline, *(ROWS[name] for name in names)), strict=True
    ):
        assert_replies_close(got, alone[name], name)


def test_every_protocol_gives_the_same_answer(alone: dict[str, dict[str, Any]]) -> None:
    expected = alone["raw"]
    assert_replies_close(alone["form, predicted"], expected)
    assert_replies_close(alone["v1"], expected)
    assert_replies_close(alone["v2"], contract.as_v2_has_it(expected))
    assert_replies_close(alone["grpc, v2"], contract.as_v2_has_it(expected))


def test_batches_may_overlap(color_pipeline: Pipeline, alone: dict[str, dict[str, Any]]) -> None:
    batches = [["raw", "damaged"], ["json", "form, index"], ["nothing"]]
    prepared = [color_pipeline.preprocess([ROWS[name] for name in names]) for names in batches]
    scored = [color_pipeline.inference(batch) for batch in prepared]
    for names, batch in list(zip(batches, scored, strict=True))[::-1]:
        for name, reply in zip(names, color_pipeline.postprocess(batch), strict=True):
            assert_replies_close(json.loads(reply.body), alone[name], name)


def test_a_call_for_the_description_is_answered_within_a_batch(
    color_pipeline: Pipeline, alone: dict[str, dict[str, Any]]
) -> None:
    asked = [
        ROWS["raw"],
        IncomingRequest({}, {"describe": "True"}, is_describe_call=True),
        ROWS["damaged"],
    ]
    replies = color_pipeline.postprocess(color_pipeline.inference(color_pipeline.preprocess(asked)))
    first, described, last = (json.loads(reply.body) for reply in replies)
    assert [reply.status for reply in replies] == [200, 200, 400]
    assert described["classes"] == LABELS
    assert_replies_close([first, last], [alone["raw"], alone["damaged"]])


# What runs


@pytest.fixture
def passes(color_pipeline: Pipeline) -> Iterator[list[int]]:
    """The batch sizes of the network's forward passes."""
    sizes: list[int] = []
    with forward_hook(color_pipeline, lambda module, args, output: sizes.append(len(output))):
        yield sizes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["damaged"], []),
        (list(BAD), []),
        (["raw"], [1]),
        (["damaged", "raw", "nothing", "json, unexplained"], [2]),
        (["json, unexplained", "grpc, unexplained"], [2]),
        (["v1", "damaged", "v2", "grpc, v2", "raw"], [4]),
        (["raw"] * 8, [8]),
        (["raw", "damaged"] * 9, [8, 1]),
    ],
)
def test_one_forward_serves_the_living_and_none_the_dead(
    names: list[str], expected: list[int], color_pipeline: Pipeline, passes: list[int]
) -> None:
    assert len(single_reply(color_pipeline, *(ROWS[name] for name in names))) == len(names)
    assert passes == expected


# Failing alone


def test_an_unexpected_exception_fails_its_own_request(
    color_pipeline: Pipeline,
    alone: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = render_outputs

    def fail_for_hot(*args: Any) -> Any:
        if args[-1].colormap == "hot":
            raise ZeroDivisionError("CUDA, a secret")
        return draw(*args)

    monkeypatch.setattr(reply_builder, "render_outputs", fail_for_hot)
    asked = ROWS["raw"], form(colormap="hot"), ROWS["json"], ROWS["no photo"]
    first, failed, *rest = single_reply(color_pipeline, *asked)

    assert failed["error"]["code"] == "internal_error"
    assert failed["error"]["status"] == 500
    assert "secret" not in failed["error"]["message"]
    assert_replies_close([first, *rest], [alone["raw"], alone["json"], alone["no photo"]])


def score_of(value: float) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        spoilt = torch.zeros_like(output)
        spoilt[1, 3] = value
        return output + spoilt

    return hook


def gradient(module: nn.Module, args: Any, output: Tensor) -> None:
    row = torch.tensor([[1], [math.nan], [1]])
    output.register_hook(lambda gradient: gradient * row)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "spoil", [score_of(math.nan), score_of(math.inf), score_of(-math.inf), gradient]
)
def test_a_photo_whose_numbers_are_not_finite_fails_alone(
    spoil: Callable[..., Any], color_pipeline: Pipeline, alone: dict[str, dict[str, Any]]
) -> None:
    with forward_hook(color_pipeline, spoil):
        first, failed, last = single_reply(
            color_pipeline, ROWS["raw"], form(target="blue"), ROWS["json"]
        )
    assert failed["error"]["code"] == "non_finite_scores"
    assert failed["error"]["status"] == 500
    assert_replies_close([first, last], [alone["raw"], alone["json"]])


# The contract


def test_the_reply_has_every_field_of_the_contract(color_pipeline: Pipeline) -> None:
    (reply,) = single_reply(color_pipeline, form(target="blue", top_k="6"))
    assert list(reply) == ["model", "image", "predictions", "explanations"]
    assert reply["model"] == {"name": "colours", "version": "1.0"}

    # 320 x 240 is resized to 309 x 232; the square of 224 starts at (42, 4).
    across, down = 320 / 309, 240 / 232
    assert reply["image"].pop("seen") == pytest.approx(
        [42 * across, 4 * down, 266 * across, 228 * down], abs=1e-3
    )
    assert reply["image"] == {"width": 320, "height": 240, "orientation": 1}

    predictions = reply["predictions"]
    assert [list(prediction) for prediction in predictions] == [
        ["class_id", "label", "probability", "score"]
    ] * 6
    scores = [prediction["score"] for prediction in predictions]
    assert scores == sorted(scores, reverse=True)
    assert [LABELS[prediction["class_id"]] for prediction in predictions] == [
        prediction["label"] for prediction in predictions
    ]
    assert sorted(prediction["class_id"] for prediction in predictions) == list(range(6))
    assert [prediction["probability"] for prediction in predictions] == pytest.approx(
        torch.tensor(scores).softmax(0).tolist(), abs=1e-6
    )
    assert predictions[0]["label"] == "red"

    (explanation,) = reply["explanations"]
    pictures = [explanation.pop(name) for name in ("heatmap", "overlay")]
    peak, statistics = explanation.pop("peak"), explanation.pop("map_statistics")
    (blue,) = [prediction for prediction in predictions if prediction["label"] == "blue"]
    assert explanation == {**blue, "method": "gradcam", "layer": "layer4.2", "evidence": True}
    # Blue's direction over its channel's 49 places, at the disc.
    assert peak == pytest.approx(2 / 3 / 49, rel=5e-3)
    assert list(statistics) == [
        "entropy", "gini", "centre", "spread", "border", "corners", "explained"
    ]  # fmt: skip
    # The score is the mean of blue's channel, in which nothing speaks against blue.
    assert statistics["explained"] == pytest.approx(1, rel=1e-3)
    # The disc's, but for the cells of the grid, which are 33 pixels apart.
    assert statistics["centre"] == pytest.approx([230, 120], abs=20)
    for picture, kind in zip(pictures, ("image/png", "image/jpeg"), strict=True):
        assert list(picture) == ["b64", "media_type", "width", "height"]
        assert decoded(picture).shape == (224, 224, 3)
        assert (picture["media_type"], picture["width"], picture["height"]) == (kind, 224, 224)


def test_the_predicted_class_is_explained_where_none_is_named(color_pipeline: Pipeline) -> None:
    for reply in single_reply(color_pipeline, form(), form(target="predicted"), form(target="0")):
        assert reply["predictions"][0]["label"] == "red"
        assert reply["explanations"][0]["label"] == "red"


def test_a_class_without_evidence_has_an_empty_map(color_pipeline: Pipeline) -> None:
    (reply,) = single_reply(color_pipeline, form(RED, target="cyan"))
    (explanation,) = reply["explanations"]
    assert explanation["evidence"] is False
    assert explanation["peak"] == 0
    # Jet's colour for 0.
    assert (decoded(explanation["heatmap"]) == (0, 0, 128)).all()


@pytest.mark.parametrize(
    ("image_format", "magic"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")]
)
@pytest.mark.parametrize("outputs", [["heatmap"], ["overlay"], ["overlay", "heatmap"]])
def test_the_outputs_asked_for_come_in_the_format_asked_for(
    outputs: list[str], image_format: str, magic: bytes, color_pipeline: Pipeline
) -> None:
    (reply,) = single_reply(color_pipeline, jsoned(outputs=outputs, image_format=image_format))
    (explanation,) = reply["explanations"]
    pictures = [name for name, output in explanation.items() if "b64" in str(output)]
    assert pictures == outputs
    for name in outputs:
        assert explanation[name]["media_type"] == f"image/{image_format}"
        assert base64.b64decode(explanation[name]["b64"]).startswith(magic)


# Two discs


def two_discs(rng: random.Random) -> list[tuple[str, tuple[int, int], int]]:
    """Two colours apart from each other, whole within what the network sees of 320 x 240."""
    while True:
        radii = rng.randint(28, 50), rng.randint(28, 50)
        centres = [(rng.randint(45 + r, 275 - r), rng.randint(6 + r, 234 - r)) for r in radii]
        if math.dist(*centres) > sum(radii) + 8:
            return list(zip(rng.sample(LABELS, 2), centres, radii, strict=True))


def brightest(reply: dict[str, Any]) -> tuple[float, float]:
    """Where in the photo the heatmap ("hot": the brighter, the higher) says the class is."""
    brightness = decoded(reply["explanations"][0]["heatmap"]).sum(axis=2)
    y, x = np.argwhere(brightness == brightness.max()).mean(axis=0) + 0.5
    x0, y0, x1, y1 = reply["image"]["seen"]
    # A cell of 32 pixels is drawn around its middle, but the constructed network takes it from its
    # upper left corner: all its strides are those of 1x1 selections.
    return x0 + (x - 16) * (x1 - x0) / 224, y0 + (y - 16) * (y1 - y0) / 224


def test_each_requested_colour_is_found_on_its_own_disc(color_pipeline: Pipeline) -> None:
    rng = random.Random(7)
    for _ in range(20):
        discs = two_discs(rng)
        image = png(photo(*discs))
        asked = [form(image, target=colour, colormap="hot") for colour, _, _ in discs]
        for (colour, centre, radius), reply in zip(
            discs, single_reply(color_pipeline, *asked), strict=True
        ):
            assert reply["explanations"][0]["label"] == colour
            assert reply["explanations"][0]["evidence"]
            assert math.dist(brightest(reply), centre) <= radius, (colour, discs)


# Loading


@pytest.fixture(scope="module")
def top10_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    """The operator asks for more predictions than there are classes."""
    return load(defaults={"top_k": 10, "explain": False}, preprocess={"resize": 64, "crop": 64})


def test_the_operators_top_k_is_cut_to_the_classes(top10_pipeline: Pipeline) -> None:
    (reply,) = single_reply(top10_pipeline, form())
    assert len(reply["predictions"]) == len(COLOR_VALUES)


@pytest.mark.parametrize("top_k", [1, 6])
def test_a_callers_top_k_is_taken_up_to_the_classes(top_k: int, top10_pipeline: Pipeline) -> None:
    (reply,) = single_reply(top10_pipeline, jsoned(top_k=top_k))
    assert len(reply["predictions"]) == top_k


@pytest.mark.parametrize("top_k", [7, 10])
def test_a_callers_top_k_is_refused_above_the_classes(top_k: int, top10_pipeline: Pipeline) -> None:
    (reply,) = single_reply(top10_pipeline, jsoned(top_k=top_k))
    assert reply["error"]["code"] == "invalid_option"
    assert "1 to 6" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("labels", "section", "message"),
    [
        (
            LABELS[:5],
            {"arch": "tests.support.color_resnet:colour_resnet50"},
            r"6 classes, but .* names 5",
        ),
        (
            [*LABELS, "grey"],
            {"arch": "tests.support.color_resnet:colour_resnet50"},
            r"6 classes, but .* names 7",
        ),
        (LABELS[:5], {}, r"do not fit resnet50 with 5 classes"),
        (LABELS, {"layer": "layer4.3"}, r"no layer 'layer4.3'.*layer4.2"),
        (LABELS, {"layer": "fc"}, r"'fc' must give a grid over the photo"),
        (LABELS, {"arch": "resnet101"}, r"do not fit resnet101"),
        (LABELS, {"defaults": {"target": "puce"}}, r"defaults\.target: .*'puce'"),
        (LABELS, {"defaults": {"target": 6}}, r"defaults\.target: .*0 to 5"),
    ],
)
def test_an_archive_that_does_not_fit_together_does_not_load(
    labels: Sequence[str],
    section: dict[str, Any],
    message: str,
    load: Callable[..., Pipeline],
) -> None:
    small = {"preprocess": {"resize": 64, "crop": 64}, "compile": "off"}
    with pytest.raises(SettingsError, match=message):
        load(labels, **small, **section)
