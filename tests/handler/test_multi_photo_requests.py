"""Several photos in one request: passes, order, failing alone, and the limits that they share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camserve import photo_preparation, reply_builder
from camserve.images.geometry import Pixels
from camserve.pipeline import Pipeline
from camserve.protocols import kserve_v1, kserve_v2, plain
from camserve.protocols.parsing import IncomingRequest
from tests.support.color_resnet import LABELS, photo, png
from tests.support.contract import as_v2_has_it, assert_replies_close, tensor
from tests.support.request_builders import (
    HTTP,
    b64,
    error_codes,
    form,
    grpc,
    json_request,
    photo_outcomes,
    raw,
    single_reply,
    v1,
    v2,
)
from tests.support.small_networks import forward_hook

#: What each photo shows most of is its class: 96 x 96 pixels of it.
PHOTOS = {colour: png(photo((colour, (40, 50), 30), width=96, height=96)) for colour in LABELS}
RED, GREEN, BLUE, *_ = PHOTOS.values()
PIXELS = 96 * 96
SIDE = 64


@pytest.fixture(scope="module")
def small_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    """A network that sees 64 x 64 pixels, so that many photos cost little."""
    return load(layers=["layer3.5"], preprocess={"resize": SIDE, "crop": SIDE})


@pytest.fixture
def passes(small_pipeline: Pipeline) -> Iterator[list[int]]:
    """The batch sizes of the network's forward passes."""
    sizes: list[int] = []
    with forward_hook(small_pipeline, lambda module, args, output: sizes.append(len(output))):
        yield sizes


def mostly_green(pixels: Pixels) -> bool:
    return int(pixels.mean((0, 1)).argmax()) == 1


def limited(pipeline: Pipeline, **limits: int) -> Pipeline:
    """The same archive with other limits."""
    settings = pipeline.settings
    changed = {"limits": settings.limits.model_copy(update=limits)}
    loaded = replace(pipeline.loaded, settings=settings.model_copy(update=changed), threads=2)
    return Pipeline(pipeline.model, loaded)


def best(found: list[dict[str, Any]]) -> list[str]:
    return [reply["predictions"][0]["label"] for reply in found]


# Passes and order


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1]), (8, [8]), (9, [8, 1]), (19, [8, 8, 3]), (32, [8] * 4)]
)
@pytest.mark.parametrize("protocol", [v1, v2])
def test_more_than_a_batch_go_in_several_passes_and_come_in_order(
    count: int,
    expected: list[int],
    protocol: Callable[..., IncomingRequest],
    small_pipeline: Pipeline,
    passes: list[int],
) -> None:
    asked = [LABELS[n % 5] for n in range(count)]
    row = protocol(*(PHOTOS[colour] for colour in asked), outputs=["map"], top_k=1)
    (found,) = photo_outcomes(small_pipeline, row)
    assert passes == expected
    assert best(found) == asked


def test_each_instance_has_its_own_options(small_pipeline: Pipeline) -> None:
    instances = [
        (
            RED,
            {"target": LABELS[n % 6], "top_k": 1 + n % 6, "outputs": ["map", "boxes"][: 1 + n % 2]},
        )
        for n in range(11)
    ]
    (together,) = photo_outcomes(small_pipeline, v1(*instances))
    for (image, options), got in zip(instances, together, strict=True):
        assert_replies_close(got, single_reply(small_pipeline, json_request(image, **options))[0])


def test_each_element_has_its_own_options(small_pipeline: Pipeline) -> None:
    columns = [
        tensor("target", "BYTES", ["blue", "top:2", '["red", "green-blue"]']),
        tensor("top_k", "INT64", [1, 2, 3]),
        tensor("outputs", "BYTES", ["map", "boxes,mask", "heatmap"]),
        tensor("layer", "BYTES", ["layer3.5", "layer4.2", "layer3.5,layer4.2"]),
    ]
    (together,) = photo_outcomes(small_pipeline, v2(RED, GREEN, BLUE, columns=columns, size=32))
    for n, image in enumerate((RED, GREEN, BLUE)):
        options = {column["name"]: column["data"][n] for column in columns}
        assert_replies_close(
            together[n],
            as_v2_has_it(single_reply(small_pipeline, json_request(image, size=32, **options))[0]),
        )


def test_requests_with_several_photos_share_passes_with_others(
    small_pipeline: Pipeline, passes: list[int]
) -> None:
    asked = [
        raw(RED),
        v1(GREEN, BLUE, RED, outputs="map"),
        form(BLUE),
        v2(BLUE, GREEN, outputs="map"),
        form(b"junk"),
        grpc(RED, BLUE),
    ]
    found = photo_outcomes(small_pipeline, *asked)
    assert passes == [8, 1]
    assert [best(one) for one in found if "error" not in one[0]] == [
        ["red"], ["green", "blue", "red"], ["blue"], ["blue", "green"], ["red", "blue"],
    ]  # fmt: skip
    assert error_codes(found[4]) == ["unsupported_format"]


# Failing alone


@pytest.mark.parametrize("protocol", [v1, v2, grpc])
def test_a_photo_that_fails_keeps_its_place(
    protocol: Callable[..., IncomingRequest], small_pipeline: Pipeline, passes: list[int]
) -> None:
    (found,) = photo_outcomes(small_pipeline, protocol(RED, b"junk", GREEN, BLUE[:60], BLUE))
    assert passes == [3]
    assert error_codes(found) == [None, "unsupported_format", None, "invalid_image", None]
    assert best(found[::2]) == ["red", "green", "blue"]


def test_options_of_one_instance_fail_alone(small_pipeline: Pipeline, passes: list[int]) -> None:
    row = v1(RED, (GREEN, {"target": "pink"}), (GREEN, {"alpha": 3}), (GREEN, {"top_k": 7}), BLUE)
    (found,) = photo_outcomes(small_pipeline, row)
    assert passes == [2]
    assert error_codes(found) == [None, "unknown_class", "invalid_option", "invalid_option", None]
    assert best([found[0], found[4]]) == ["red", "blue"]


@pytest.mark.parametrize("protocol", [v1, v2])
def test_where_all_fail_nothing_runs(
    protocol: Callable[..., IncomingRequest], small_pipeline: Pipeline, passes: list[int]
) -> None:
    (found,) = photo_outcomes(small_pipeline, protocol(b"junk", RED[:60], b"junk"))
    assert passes == []
    assert error_codes(found) == ["unsupported_format", "invalid_image", "unsupported_format"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ZeroDivisionError("CUDA, a secret"), "internal_error"),
        (MemoryError("CUDA, a secret"), "out_of_memory"),
    ],
)
@pytest.mark.parametrize(
    ("module", "name", "is_green"),
    [
        (photo_preparation, "decode_photo", lambda data, *_: data == GREEN),
        (photo_preparation, "resize_and_crop", lambda photo, _: mostly_green(photo.upright)),
        (reply_builder, "render_outputs", lambda heat, view, *_: mostly_green(view.pixels)),
    ],
)
def test_an_unexpected_exception_fails_its_own_photo(
    module: Any,
    name: str,
    is_green: Callable[..., bool],
    failure: Exception,
    code: str,
    small_pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = getattr(module, name)

    # By what it shows, not by its turn: photos are worked on side by side, in any order.
    def fail_green(*args: Any, **options: Any) -> Any:
        if is_green(*args):
            raise failure
        return step(*args, **options)

    monkeypatch.setattr(module, name, fail_green)
    first, second = photo_outcomes(small_pipeline, v1(RED, GREEN, BLUE), v2(BLUE, RED))
    assert error_codes(first) == [None, code, None]
    assert "secret" not in first[1]["error"]["message"]
    assert best(first[::2]) == ["red", "blue"]
    assert best(second) == ["blue", "red"]


@pytest.mark.parametrize("protocol", [kserve_v1.KServeV1, kserve_v2.KServeV2, plain.PlainProtocol])
def test_a_reply_that_cannot_be_written_fails_its_own_request(
    protocol: Any, small_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = protocol.reply, iter(range(9))

    def fail_first(*args: Any) -> Any:
        if next(calls) == 0:
            raise TypeError("a secret")
        return write(*args)

    monkeypatch.setattr(protocol, "reply", fail_first)
    asked = {
        kserve_v1.KServeV1: v1(RED, GREEN),
        kserve_v2.KServeV2: v2(RED, GREEN),
        plain.PlainProtocol: raw(RED),
    }
    first, failed, last = photo_outcomes(
        small_pipeline, raw(GREEN, path="x=1"), asked[protocol], v1(BLUE)
    )
    assert error_codes(first) == ["unknown_option"]
    assert error_codes(failed) == ["internal_error"]
    assert "secret" not in failed[0]["error"]["message"]
    assert best(last) == ["blue"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_fail_their_own_photo(
    value: float, small_pipeline: Pipeline
) -> None:
    def spoil(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        change = torch.zeros_like(output)
        change[1, 3] = value
        return output + change

    with forward_hook(small_pipeline, spoil):
        (found,) = photo_outcomes(
            small_pipeline, v1(RED, (GREEN, {"method": "eigengradcam"}), BLUE)
        )
    assert error_codes(found) == [None, "non_finite_scores", None]
    assert best(found[::2]) == ["red", "blue"]


# Limits that a request's photos share


def test_photos_share_the_pixels_of_a_request(small_pipeline: Pipeline) -> None:
    tiny = png(photo(("cyan", (5, 5), 5), width=10, height=10))
    pipeline = limited(small_pipeline, pixels=2 * PIXELS + 150)
    third = v1(RED, GREEN, BLUE, tiny, tiny)
    # Each request has its own purse, whatever shares its batch.
    first, found, alone = photo_outcomes(pipeline, v1(RED, GREEN), third, raw(BLUE))
    assert error_codes(first) == [None, None]
    assert error_codes(found) == [None, None, "image_too_large", None, "image_too_large"]
    assert f"up to {2 * PIXELS + 150} in all" in found[2]["error"]["message"]
    assert error_codes(alone) == [None]


def test_a_photo_that_cannot_be_read_costs_no_pixels(small_pipeline: Pipeline) -> None:
    pipeline = limited(small_pipeline, pixels=PIXELS)
    (found,) = photo_outcomes(pipeline, v1(RED[:60], (GREEN, {"target": "pink"}), BLUE, GREEN))
    assert error_codes(found) == ["invalid_image", "unknown_class", None, "image_too_large"]


AREAS = [("model", SIDE**2), ("original", PIXELS), (32, 32**2)]


@pytest.mark.parametrize(
    ("options", "pictures"),
    [
        ({}, 2),
        ({"outputs": "mask"}, 1),
        ({"outputs": "mask,heatmap,overlay,map,boxes"}, 3),
        ({"target": "top:3"}, 6),
        ({"target": ["red", "green-blue"], "outputs": ["mask"]}, 2),
        ({"layer": ["layer3.5", "layer4.2"]}, 2),
    ],
)
@pytest.mark.parametrize(("size", "area"), AREAS)
def test_pictures_share_the_drawn_pixels_of_a_reply(
    options: dict[str, Any], pictures: int, size: str | int, area: int, small_pipeline: Pipeline
) -> None:
    drawn = pictures * area
    row = json_request(RED, size=size, **options)
    assert error_codes(single_reply(limited(small_pipeline, drawn_pixels=drawn), row)) == [None]
    (refusal,) = single_reply(limited(small_pipeline, drawn_pixels=drawn - 1), row)
    assert refusal["error"]["code"] == "reply_too_large"
    assert f"would have {drawn} pixels" in refusal["error"]["message"]


@pytest.mark.parametrize("options", [{"outputs": "map,boxes"}, {"explain": False}])
@pytest.mark.parametrize("size", [size for size, _ in AREAS])
def test_a_reply_without_pictures_draws_no_pixels(
    options: dict[str, Any], size: str | int, small_pipeline: Pipeline
) -> None:
    row = json_request(RED, size=size, **options)
    assert error_codes(single_reply(limited(small_pipeline, drawn_pixels=1), row)) == [None]


def test_what_is_refused_leaves_its_pictures_to_others(small_pipeline: Pipeline) -> None:
    pipeline = limited(small_pipeline, drawn_pixels=3 * SIDE**2)
    instances = [
        (RED, {}),
        (RED, {"alpha": 3}),
        (GREEN, {}),
        (GREEN, {"outputs": "map"}),
        (BLUE, {"outputs": "mask"}),
        (BLUE, {"outputs": "mask"}),
    ]
    (found,) = photo_outcomes(pipeline, v1(*instances))
    assert error_codes(found) == [
        None, "invalid_option", "reply_too_large", None, None, "reply_too_large",
    ]  # fmt: skip


V2_KEYS = {"id", "model_name", "model_version", "outputs", "error_detail"}


@pytest.mark.parametrize(
    ("protocol", "beside", "id", "tensors"),
    [
        (form, set(), None, []),
        (v1, set(), None, []),
        (v2, V2_KEYS, "seven", ["error"]),
        (grpc, V2_KEYS, "seven", ["error"]),
    ],
)
def test_a_reply_that_grew_too_large_is_refused_in_its_own_form(
    protocol: Callable[..., IncomingRequest],
    beside: set[str],
    id: str | None,
    tensors: list[str],
    small_pipeline: Pipeline,
) -> None:
    pipeline = limited(small_pipeline, reply_bytes=1000)
    row = protocol(RED)
    rows = [raw(GREEN, path="explain=false,top_k=1"), row, form(b"junk")]
    replies = pipeline.postprocess(pipeline.inference(pipeline.preprocess(rows)))
    assert [reply.status for reply in replies] == [200, 413, 415]
    content = json.loads(replies[1].body)
    assert len(replies[1].body) <= 1000
    detail = content.get("error_detail", content["error"])
    assert (detail["code"], detail["status"]) == ("reply_too_large", 413)
    assert "accepted: up to 1000" in detail["message"]
    assert content.keys() == {"error", *beside}
    assert content.get("id") == id
    assert [one["name"] for one in content.get("outputs", [])] == tensors


def test_a_reply_of_just_the_limit_goes_out(small_pipeline: Pipeline) -> None:
    row = form(RED, explain="false")
    (reply,) = small_pipeline.postprocess(
        small_pipeline.inference(small_pipeline.preprocess([row]))
    )
    size = len(reply.body)
    assert error_codes(single_reply(limited(small_pipeline, reply_bytes=size), row)) == [None]
    assert error_codes(single_reply(limited(small_pipeline, reply_bytes=size - 1), row)) == [
        "reply_too_large"
    ]


def test_too_many_photos_are_refused_before_any_is_read(
    small_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_preparation, "decode_photo", None)
    pipeline = limited(small_pipeline, instances=2)
    first, second = photo_outcomes(pipeline, v1(RED, RED, RED), v2(RED, RED, RED))
    assert error_codes(first) == error_codes(second) == ["too_many_instances"]


@pytest.mark.parametrize("target", ["top:3", ["red", "top:2"], "red,green,blue"])
def test_targets_are_counted_with_all_that_they_name(target: Any, small_pipeline: Pipeline) -> None:
    row = json_request(RED, target=target, outputs="map")
    assert error_codes(single_reply(limited(small_pipeline, targets=3), row)) == [None]
    assert error_codes(single_reply(limited(small_pipeline, targets=2), row)) == [
        "too_many_targets"
    ]


def test_kserve_beside_a_query_of_invocations(small_pipeline: Pipeline) -> None:
    fields = {"body": {"instances": [b64(RED)]}, "model_name": b"colours", "target": b"blue"}
    (found,) = photo_outcomes(small_pipeline, IncomingRequest(fields, HTTP))
    assert found[0]["explanations"][0]["label"] == "blue"
