"""Parsing replies and encoding photos, without a server."""

from __future__ import annotations

import base64
import copy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camserve_client import (
    Explanation,
    Faithfulness,
    ImageInfo,
    InvalidReplyError,
    Model,
    NotExplained,
    Picture,
    Prediction,
    Region,
    Reply,
)
from camserve_client.photos import encode_photo
from tests.support import color_resnet
from tests.support.stub_server import PREDICTION, REPLY

PIXELS = color_resnet.photo(("red", (20, 10), 8), width=40, height=30)
GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
ORIENTATION = 0x0112


def file(pixels: Any, format: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format, **options)
    return stream.getvalue()


def picture(pixels: Any, format: str = "PNG", **options: Any) -> dict[str, Any]:
    return {
        "b64": base64.b64encode(file(pixels, format, **options)).decode(),
        "media_type": f"image/{format.lower()}",
        "width": pixels.shape[1],
        "height": pixels.shape[0],
    }


FULL: dict[str, Any] = {
    "model": {"name": "pets", "version": "1.0"},
    "image": {"width": 451, "height": 300, "orientation": 6, "seen": [75.5, 0, 375.5, 300]},
    "predictions": [PREDICTION, {**PREDICTION, "class_id": 282, "label": "tiger cat"}],
    "explanations": [
        {
            **PREDICTION,
            "method": "gradcam",
            "layer": "layer4.2",
            "evidence": True,
            "peak": 0.41,
            "heatmap": picture(PIXELS),
            "overlay": picture(PIXELS, "WEBP", lossless=True),
            "mask": picture(GREY),
            "map": {"shape": [2, 3], "values": [0, 0.25, 0.5, 0.75, 1, 0]},
            "boxes": [{"box": [10, 20.5, 30, 40], "share": 0.8}],
        },
        {
            **PREDICTION,
            "against": {**PREDICTION, "class_id": 207, "label": "golden retriever"},
            "method": "gradcam",
            "layer": ["layer3.5", "layer4.2"],
            "evidence": False,
            "peak": 0.5,
            "boxes": [],
        },
    ],
}


def test_what_is_said_of_the_photos_file() -> None:
    said = {"warnings": ["damaged", "no_end_marker"], "profile": "Display P3"}
    image = Reply.from_json({**FULL, "image": {**FULL["image"], **said}}).image
    assert image.warnings == ("damaged", "no_end_marker")
    assert image.profile == "Display P3"
    assert (Reply.from_json(FULL).image.warnings, Reply.from_json(FULL).image.profile) == ((), None)


def test_a_whole_reply() -> None:
    reply = Reply.from_json(FULL)
    assert reply.model == Model("pets", "1.0")
    assert reply.image == ImageInfo(451, 300, 6, (75.5, 0.0, 375.5, 300.0))
    assert reply.predictions == (
        Prediction(281, "tabby", 0.62, 9.1),
        Prediction(282, "tiger cat", 0.62, 9.1),
    )
    first, second = reply.explanations
    assert (first.class_id, first.label, first.probability, first.score) == (
        281,
        "tabby",
        0.62,
        9.1,
    )
    assert (first.method, first.layer, first.evidence, first.peak) == (
        "gradcam",
        "layer4.2",
        True,
        0.41,
    )
    assert first.against is None
    assert first.boxes == (Region((10.0, 20.5, 30.0, 40.0), 0.8),)
    assert second == Explanation(
        281,
        "tabby",
        0.62,
        9.1,
        "gradcam",
        ("layer3.5", "layer4.2"),
        False,
        0.5,
        against=Prediction(207, "golden retriever", 0.62, 9.1),
        boxes=(),
    )
    assert reply.raw == FULL


def test_figures_of_trust() -> None:
    figures = {
        "faithfulness": {
            "drop": {"value": 0.1, "random": 0.9, "centre": 1},
            "road": {"value": None, "random": -0.5, "centre": None},
        },
        "record": {"record_version": 1, "photo": {"sha256": "ab"}},
    }
    reply = copy.deepcopy(FULL)
    reply["explanations"][0] |= figures
    first, second = Reply.from_json(reply).explanations
    assert first.faithfulness == {
        "drop": Faithfulness(0.1, 0.9, 1.0),
        "road": Faithfulness(None, -0.5, None),
    }
    assert first.record == figures["record"]
    assert (second.faithfulness, second.record) == ({}, None)


@pytest.mark.parametrize(("value", "values"), [(0.93, (0.93,)), ([0.93, 281], (0.93, 281.0))])
def test_why_a_photo_is_not_explained(value: Any, values: tuple[float, ...]) -> None:
    said = {"condition": "probability<0.8", "value": value}
    reply = Reply.from_json({**FULL, "explanations": [], "not_explained": said})
    assert reply.explanations == ()
    assert reply.not_explained == NotExplained("probability<0.8", values)
    assert Reply.from_json(FULL).not_explained is None


def test_outputs_decode_to_what_was_encoded() -> None:
    first, _ = Reply.from_json(FULL).explanations
    for drawn in (first.heatmap, first.overlay):
        assert drawn is not None
        assert (drawn.width, drawn.height) == (40, 30)
        pixels = drawn.numpy()
        assert pixels.dtype == np.uint8
        assert (pixels == PIXELS).all()
        assert drawn.pil().mode == "RGB"
    assert first.mask is not None
    assert (first.mask.numpy() == GREY).all()
    assert first.map is not None
    grid = first.map.numpy()
    assert grid.dtype == np.float32
    assert grid.tolist() == [[0, 0.25, 0.5], [0.75, 1, 0]]


def test_numpy_takes_pictures_and_maps_as_they_are() -> None:
    first, _ = Reply.from_json(FULL).explanations
    assert (np.asarray(first.heatmap) == PIXELS).all()
    assert np.asarray(first.mask).shape == GREY.shape
    assert np.asarray(first.overlay, np.float32).dtype == np.float32
    assert np.asarray(first.map).tolist() == [[0, 0.25, 0.5], [0.75, 1, 0]]
    assert np.array(first.map, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.array(first.map, copy=False)


def test_a_mask_is_grey_in_a_format_without_grey() -> None:
    colours = np.repeat(GREY[..., None], 3, axis=2)
    reply = copy.deepcopy(FULL)
    reply["explanations"][0]["mask"] = picture(colours, "WEBP", lossless=True)
    mask = Reply.from_json(reply).explanations[0].mask
    assert mask is not None
    assert (mask.numpy() == GREY).all()


def test_keys_that_a_later_server_adds_are_ignored() -> None:
    reply = {**FULL, "timing": {"ms": 40}, "model": {**FULL["model"], "arch": "resnet50"}}
    assert Reply.from_json(reply) == Reply.from_json(FULL)
    assert Reply.from_json(reply).raw["timing"] == {"ms": 40}


def test_an_upright_photo_needs_no_orientation() -> None:
    assert Reply.from_json(REPLY).image.orientation == 1


MISSING = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", None, "reply.model must be an object, and is 'None'"),
        ("model.version", 1, "reply.model.version must be text, and is '1'"),
        ("image.width", 0, "reply.image.width must be a whole number from 1"),
        ("image.width", 1.5, "reply.image.width must be a whole number from 1"),
        ("image.seen", [1, 2, 3], "reply.image.seen must have 4 values, and has 3"),
        ("image.seen.2", "x", r"reply.image.seen\[2\] must be a number, and is 'x'"),
        ("predictions", {}, "reply.predictions must be a list"),
        ("predictions.1.class_id", True, r"reply.predictions\[1\].class_id must be a whole number"),
        ("predictions.0.score", float("nan"), r"\[0\].score must be a finite number"),
        ("predictions.0.score", False, r"\[0\].score must be a number"),
        ("explanations", MISSING, "reply has no 'explanations'"),
        ("explanations.0.evidence", 1, r"\[0\].evidence must be true or false"),
        ("explanations.0.peak", None, r"\[0\].peak must be a number"),
        ("explanations.0.layer", [1], r"\[0\].layer\[0\] must be text"),
        ("explanations.0.overlay", "iVBO", r"\[0\].overlay must be an object"),
        ("explanations.0.overlay.b64", "iVBO\n!", r"\[0\].overlay.b64 is broken base64"),
        ("explanations.0.overlay.b64", "ÄÖ", r"\[0\].overlay.b64 is broken base64"),
        ("explanations.0.overlay.width", MISSING, r"\[0\].overlay has no 'width'"),
        ("explanations.0.map.values", [0] * 5, r"map.values must have 6 values, and has 5"),
        ("explanations.0.map.shape", [2, 0], r"map.shape\[1\] must be a whole number from 1"),
        ("explanations.0.boxes.0.share", None, r"boxes\[0\].share must be a number"),
        ("explanations.1.against", [], r"\[1\].against must be an object"),
        ("explanations.1.faithfulness", [], r"\[1\].faithfulness must be an object"),
        ("explanations.1.faithfulness", {"drop": {}}, r"faithfulness.drop has no 'value'"),
        ("explanations.1.record", "x", r"\[1\].record must be an object"),
        ("not_explained", {"condition": "x"}, "not_explained has no 'value'"),
    ],
)
def test_an_error_names_the_place_that_does_not_match_the_schema(
    path: str, value: Any, message: str
) -> None:
    reply = copy.deepcopy(FULL)
    place: Any = reply
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    for step in steps:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(InvalidReplyError, match=message):
        Reply.from_json(reply)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_saved_picture(tmp_path: Path, format: str) -> None:
    drawn = Picture(file(PIXELS, format), f"image/{format.lower()}", 40, 30)
    drawn.save(tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == drawn.data
    drawn.save(tmp_path / "turned", orientation=6)
    with Image.open(tmp_path / "turned") as turned:
        assert turned.format == format
        assert turned.size == (40, 30)
        assert dict(turned.getexif()) == {ORIENTATION: 6}
        difference = np.array(turned.convert("RGB")).astype(int) - drawn.numpy()
    # WebP is encoded again; the others are lossless.
    assert abs(difference).mean() < (2 if format == "WEBP" else 1e-9)


def test_a_picture_that_is_not_an_image(tmp_path: Path) -> None:
    drawn = Picture(b"junk", "image/png", 4, 3)
    with pytest.raises(InvalidReplyError, match="cannot be decoded"):
        drawn.numpy()
    with pytest.raises(InvalidReplyError, match="cannot be decoded"):
        drawn.save(tmp_path / "turned", orientation=6)


def decoded(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image


def test_bytes_and_files_are_sent_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"photo")
    for photo in (b"photo", bytearray(b"photo"), tmp_path / "photo", str(tmp_path / "photo")):
        assert encode_photo(photo) == b"photo"


def test_pixels_are_sent_losslessly() -> None:
    for photo in (PIXELS, Image.fromarray(PIXELS), PIXELS[:, ::-1][:, ::-1]):
        assert (np.array(decoded(encode_photo(photo))) == PIXELS).all()


def test_an_image_keeps_the_orientation_of_its_file() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = decoded(file(PIXELS, "JPEG", exif=exif))
    sent = decoded(encode_photo(image))
    assert sent.getexif()[ORIENTATION] == 6
    assert sent.size == (40, 30)


@pytest.mark.parametrize(
    ("photo", "error", "message"),
    [
        (PIXELS.astype(np.float32), ValueError, "floats from 0 to 255; accepted: uint8, uint16"),
        (PIXELS / -255, ValueError, "floats from -1 to -0; accepted"),
        (PIXELS * np.nan, ValueError, "floats from nan to nan; accepted"),
        (PIXELS.astype(np.int64), ValueError, "type int64 do not say what is white; accepted"),
        (PIXELS.astype(np.uint32), ValueError, "type uint32 do not say what is white; accepted"),
        (PIXELS.astype(np.complex64), ValueError, "type complex64"),
        (np.moveaxis(PIXELS, -1, 0), ValueError, r"shape \(3, 30, 40\) are no photo; accepted"),
        (PIXELS[None], ValueError, r"shape \(1, 30, 40, 3\) are no photo; accepted"),
        (PIXELS[..., :2], ValueError, r"shape \(30, 40, 2\) are no photo; accepted"),
        (PIXELS[:0], ValueError, r"shape \(0, 40, 3\) are no photo; accepted"),
        (5, TypeError, "not int"),
        ("no/such/photo.jpg", FileNotFoundError, "no/such/photo.jpg"),
    ],
)
def test_what_is_not_a_photo(photo: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encode_photo(photo)
