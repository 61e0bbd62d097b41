"""What a reply says of a photo's file: its damage, and its colour profile."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from tests.support.color_resnet import photo, png
from tests.support.contract import tensor
from tests.support.icc_profiles import rgb_profile
from tests.support.image_files import save_image
from tests.support.request_builders import (
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

RED = photo(("red", (96, 96), 60), width=200, height=200)
PROFILE = rgb_profile()
WHOLE = png(RED)
WITH_PROFILE = save_image(Image.fromarray(RED), "PNG", icc_profile=PROFILE)
LARGE = Image.fromarray(RED).resize((1600, 1600))
JPEG = save_image(LARGE, "JPEG", quality=95)
DAMAGED = JPEG[: len(JPEG) // 2] + bytes(400) + JPEG[len(JPEG) // 2 + 400 :]


@pytest.fixture(scope="module")
def make_pipeline(load: Callable[..., Pipeline]) -> Callable[..., Pipeline]:
    def make(**section: Any) -> Pipeline:
        preprocess = {"resize": 64, "crop": 64, **section.pop("preprocess", {})}
        return load(preprocess=preprocess, **section)

    return make


@pytest.fixture(scope="module")
def small_pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline()


@pytest.mark.parametrize("request_of", [form, raw, json_request, v1, grpc])
def test_a_whole_file_reports_nothing(
    small_pipeline: Pipeline, request_of: Callable[[bytes], IncomingRequest]
) -> None:
    (reply,) = single_reply(small_pipeline, request_of(WHOLE))
    assert {"warnings", "profile"}.isdisjoint(reply["image"])


@pytest.mark.parametrize("request_of", [form, raw, json_request, v1])
def test_damage_and_profile_are_reported(
    small_pipeline: Pipeline, request_of: Callable[[bytes], IncomingRequest]
) -> None:
    damaged, named, whole = single_reply(
        small_pipeline, request_of(DAMAGED), request_of(WITH_PROFILE), request_of(WHOLE)
    )
    assert damaged["image"]["warnings"] == ["damaged"]
    assert "profile" not in damaged["image"]
    assert named["image"]["profile"] == "Swapped"
    assert "warnings" not in named["image"]
    # The other photos of the batch are answered as they are alone.
    assert [whole] == single_reply(small_pipeline, request_of(WHOLE))


def v2_tensors(pipeline: Pipeline, *photos: bytes) -> dict[str, Any]:
    (reply,) = pipeline.postprocess(pipeline.inference(pipeline.preprocess([v2(*photos)])))
    return {one["name"]: one for one in json.loads(reply.body)["outputs"]}


def test_v2_has_a_tensor_for_each_where_a_photo_has_one(small_pipeline: Pipeline) -> None:
    found = v2_tensors(small_pipeline, WHOLE, DAMAGED, WITH_PROFILE, b"no photo")
    assert found["warnings"] == tensor("warnings", "BYTES", ["[]", '["damaged"]', "[]", "[]"])
    assert found["profile"] == tensor("profile", "BYTES", ["", "", "Swapped", ""])
    assert {"warnings", "profile"}.isdisjoint(v2_tensors(small_pipeline, WHOLE, WHOLE))


def test_damaged_photos_are_refused_alone(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(damaged="refuse")
    found = single_reply(pipeline, form(WHOLE), form(DAMAGED), form(WHOLE))
    assert error_codes(found) == [None, "invalid_image", None]


def test_an_operator_decides_what_is_read(make_pipeline: Callable[..., Pipeline]) -> None:
    avif = save_image(Image.fromarray(RED), "AVIF", quality=95)
    pipeline = make_pipeline(formats=["avif", "jpeg"])
    found = single_reply(pipeline, form(avif), form(WHOLE), form(JPEG))
    assert error_codes(found) == [None, "unsupported_format", None]
    assert found[0]["predictions"][0]["label"] == "red"


def test_colours_are_converted_before_the_network_sees_them(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    # The profile exchanges red and green.
    pipeline = make_pipeline(preprocess={"icc": "srgb"})
    (found,) = single_reply(pipeline, form(WITH_PROFILE))
    assert found["predictions"][0]["label"] == "green"
    assert found["image"]["profile"] == "Swapped"
    (ignored,) = single_reply(make_pipeline(), form(WITH_PROFILE))
    assert ignored["predictions"][0]["label"] == "red"


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_pictures_at_the_photos_size_carry_its_profile(
    small_pipeline: Pipeline, image_format: str
) -> None:
    (reply,) = single_reply(
        small_pipeline,
        json_request(
            WITH_PROFILE, size="original", outputs=["overlay", "heatmap"], image_format=image_format
        ),
    )
    for name in ("overlay", "heatmap"):
        data = base64.b64decode(reply["explanations"][0][name]["b64"])
        assert Image.open(io.BytesIO(data)).info["icc_profile"] == PROFILE


def test_a_converted_photo_carries_none(make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline(preprocess={"icc": "srgb"})
    (reply,) = single_reply(pipeline, json_request(WITH_PROFILE, size="original"))
    data = base64.b64decode(reply["explanations"][0]["overlay"]["b64"])
    picture = Image.open(io.BytesIO(data))
    assert "icc_profile" not in picture.info
    # The disc is green in it, as the profile says.
    red, green, _ = np.asarray(picture.convert("RGB"))[96, 40].astype(int)
    assert green > red


def test_each_instance_of_a_request_reports_its_own(small_pipeline: Pipeline) -> None:
    (replies,) = photo_outcomes(small_pipeline, v1(WHOLE, DAMAGED, WITH_PROFILE))
    assert [reply["image"].get("warnings") for reply in replies] == [None, ["damaged"], None]
    assert [reply["image"].get("profile") for reply in replies] == [None, None, "Swapped"]
