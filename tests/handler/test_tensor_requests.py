"""Photos that are tensors, through the whole pipeline: explained as the same photo in a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve.pipeline import Pipeline
from camserve.protocols.binary_tensors import HEADER_LENGTH
from camserve.protocols.parsing import IncomingRequest
from tests.support.color_resnet import LABELS, MEAN, STD, photo, png
from tests.support.contract import assert_replies_close
from tests.support.request_builders import HTTP, error_codes, photo_outcomes, v1, v2
from tests.support.small_networks import forward_hook

SIDE = 64
#: (96, 80, 3) each, with the colour of their class.
PIXELS = [photo((colour, (40, 50), 30), width=80, height=96) for colour in LABELS[:3]]
FILES = [png(pixels) for pixels in PIXELS]
OUTPUTS = ["heatmap", "overlay", "mask", "map", "boxes"]


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    return load(preprocess={"resize": SIDE, "crop": SIDE})


def tensor_request(
    arrays: NDArray[Any], kind: str = "pixels", *, over_grpc: bool = False, **options: Any
) -> IncomingRequest:
    """A request of KServe v2 with a flat tensor in JSON."""
    datatype = "UINT8" if arrays.dtype == np.uint8 else "FP32"
    tensor = {
        "name": "input", "datatype": datatype, "shape": list(arrays.shape),
        "data": arrays.ravel().tolist(),
    }  # fmt: skip
    parameters = {"input_kind": kind, "outputs": OUTPUTS, **options}
    return IncomingRequest(
        {"body": {"id": "seven", "inputs": [tensor], "parameters": parameters}},
        {} if over_grpc else HTTP,
    )


def binary_request(arrays: NDArray[np.float32], kind: str) -> IncomingRequest:
    """A request of KServe v2 with an FP32 tensor behind the JSON, which can hold any number."""
    data = arrays.tobytes()
    tensor = {
        "name": "input", "datatype": "FP32", "shape": list(arrays.shape),
        "parameters": {"binary_data_size": len(data), "input_kind": kind},
    }  # fmt: skip
    text = json.dumps({"inputs": [tensor]}).encode()
    return IncomingRequest({"body": text + data}, {HEADER_LENGTH: str(len(text))})


def normalized(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(3, h, w), as the constructed network receives it."""
    scaled = pixels.transpose(2, 0, 1) / 255
    return np.asarray((scaled - MEAN.numpy()[:, None, None]) / STD.numpy()[:, None, None], "<f4")


@pytest.mark.parametrize("size", ["model", "original", 50])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_tensor_of_pixels_is_explained_as_the_photos_file(
    pipeline: Pipeline, dtype: Any, size: str | int
) -> None:
    asked = tensor_request(np.stack(PIXELS).astype(dtype), size=size)
    as_files, found, over_grpc = photo_outcomes(
        pipeline,
        v2(*FILES, outputs=OUTPUTS, size=size),
        asked,
        tensor_request(np.stack(PIXELS).astype(dtype), size=size, over_grpc=True),
    )
    assert [reply["predictions"][0]["label"] for reply in found] == LABELS[:3]
    assert_replies_close(found, as_files)
    assert_replies_close(over_grpc, as_files)


def test_nested_lists_of_v1_are_explained_as_the_photos_file(pipeline: Pipeline) -> None:
    body = {"instances": [pixels.tolist() for pixels in PIXELS]}
    found, as_files = photo_outcomes(pipeline, IncomingRequest({"body": body}, HTTP), v1(*FILES))
    assert_replies_close(found, as_files)


def test_the_networks_own_input_reaches_it_as_it_is(pipeline: Pipeline) -> None:
    """Between pixels and above white, where no file can be."""
    own = normalized(PIXELS[0][:SIDE, :SIDE]) * 1.01 + 0.003
    batch = pipeline.preprocess([v2(FILES[1]), tensor_request(own[None], "normalized")])
    seen = []
    with forward_hook(pipeline, lambda module, inputs, output: seen.append(inputs[0].clone())):
        pipeline.inference(batch)
    (both,) = seen
    assert (both[1].numpy() == own).all()


def test_the_networks_own_input_is_explained_as_its_pixels(pipeline: Pipeline) -> None:
    cut = [np.ascontiguousarray(pixels[10 : 10 + SIDE, :SIDE]) for pixels in PIXELS]
    files = v2(*map(png, cut), outputs=OUTPUTS)
    own = np.stack([normalized(pixels) for pixels in cut])
    as_files, found, channels_last = photo_outcomes(
        pipeline,
        files,
        tensor_request(own, "normalized"),
        tensor_request(np.ascontiguousarray(own.transpose(0, 2, 3, 1)), "normalized"),
    )
    assert [reply["image"]["seen"] for reply in found] == [[0, 0, SIDE, SIDE]] * 3
    assert_replies_close(found, as_files)
    assert_replies_close(channels_last, as_files)


def test_a_bad_tensor_fails_alone(pipeline: Pipeline) -> None:
    good = np.stack([normalized(pixels[:SIDE, :SIDE]) for pixels in PIXELS])
    bad = good.copy()
    bad[1, 0, 0, 0] = np.inf
    as_pixels = np.stack(PIXELS).astype(np.float32)
    as_pixels[2, 0, 0, 0] = 256
    found = photo_outcomes(
        pipeline,
        tensor_request(good, "normalized"),
        binary_request(bad, "normalized"),
        tensor_request(as_pixels),
        tensor_request(np.zeros((3, SIDE, SIDE + 1), np.float32), "normalized"),
        tensor_request(np.zeros((SIDE, SIDE, 2), np.uint8)),
    )
    assert [error_codes(of_request) for of_request in found] == [
        [None] * 3,
        [None, "invalid_image", None],
        [None, None, "invalid_image"],
        ["invalid_image"],
        ["invalid_image"],
    ]


def test_a_reply_in_binary_says_what_the_reply_in_json_says(pipeline: Pipeline) -> None:
    """The elements of a BYTES tensor are the same texts in both."""
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [1],
                "data": [base64.b64encode(FILES[0]).decode()],
            }
        ],
        "parameters": {"outputs": OUTPUTS},
    }
    in_json, in_binary = (
        pipeline.postprocess(pipeline.inference(pipeline.preprocess([request])))[0]
        for request in (
            IncomingRequest({"body": body}, HTTP),
            IncomingRequest(
                {"body": {**body, "parameters": {"outputs": OUTPUTS, "binary_data_output": True}}},
                HTTP,
            ),
        )
    )
    expected = {one["name"]: one for one in json.loads(in_json.body)["outputs"]}
    length = int(in_binary.headers[HEADER_LENGTH])
    rest = in_binary.body[length:]
    for one in json.loads(in_binary.body[:length])["outputs"]:
        size = one["parameters"]["binary_data_size"]
        content, rest = rest[:size], rest[size:]
        wanted = expected.pop(one["name"])
        assert one["shape"] == wanted["shape"]
        assert elements(one["datatype"], content) == wanted["data"]
    assert (expected, rest) == ({}, b"")


def elements(datatype: str, content: bytes) -> list[Any]:
    if datatype == "BYTES":
        found = []
        while content:
            end = 4 + int.from_bytes(content[:4], "little")
            found.append(content[4:end].decode())
            content = content[end:]
        return found
    kind = {"INT64": "<i8", "FP32": "<f4", "BOOL": "?"}[datatype]
    return [pytest.approx(value) for value in np.frombuffer(content, kind).tolist()]
