"""Photos that are tensors of numbers, in KServe v1 and v2: how they are read, and rejected."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camserve.errors import RequestError
from camserve.protocols.binary_tensors import HEADER_LENGTH
from camserve.protocols.parsing import ImageRequest, IncomingRequest, parse_request
from camserve.protocols.photo_tensors import PhotoTensor
from camserve.settings import Limits, Settings

SETTINGS = Settings(limits=Limits(instances=3))
ONE: NDArray[Any] = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
TWO = np.stack([ONE, 255 - ONE])
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


def v1(*photos: Any, **keys: Any) -> IncomingRequest:
    return IncomingRequest({"body": {"instances": list(photos), **keys}}, {"host": "h"})


def v2(
    array: NDArray[Any], *, headers: dict[str, str] | None = None, **keys: Any
) -> IncomingRequest:
    """A tensor in JSON, flat."""
    tensor = {
        "name": "input", "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape),
        "data": array.ravel().tolist(), **keys,
    }  # fmt: skip
    return IncomingRequest(
        {"body": {"inputs": [tensor]}}, {"host": "h"} if headers is None else headers
    )


def nested(array: NDArray[Any], **keys: Any) -> IncomingRequest:
    return v2(array, data=array.tolist(), **keys)


def behind_json(array: NDArray[Any], **keys: Any) -> IncomingRequest:
    data = array.tobytes()
    parameters = {"binary_data_size": len(data), **keys.pop("parameters", {})}
    tensor = {
        "name": "input", "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape),
        "parameters": parameters, **keys,
    }  # fmt: skip
    text = json.dumps({"inputs": [tensor]}).encode()
    return IncomingRequest({"body": text + data}, {HEADER_LENGTH: str(len(text))})


def over_grpc(array: NDArray[Any], **keys: Any) -> IncomingRequest:
    return v2(array, headers={}, **keys)


def tensors_of(request: IncomingRequest) -> list[PhotoTensor]:
    instances = parse_request(request, SETTINGS).instances
    assert isinstance(instances, tuple)
    images = [one.image for one in instances if isinstance(one, ImageRequest)]
    tensors = [image for image in images if isinstance(image, PhotoTensor)]
    assert len(tensors) == len(instances)
    return tensors


def array_of(tensor: PhotoTensor) -> NDArray[Any]:
    dtype = np.uint8 if tensor.datatype == "UINT8" else np.float32
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def rejection(request: IncomingRequest) -> RequestError:
    """The error of the request, or of its only photo."""
    instances = parse_request(request, SETTINGS).instances
    error = instances if isinstance(instances, RequestError) else instances[0]
    assert isinstance(error, RequestError)
    return error


FORMS = [v2, nested, behind_json, over_grpc]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_photo_or_several_in_every_form_of_v2(form: Any, dtype: str) -> None:
    parameters = {} if dtype == "uint8" else {"parameters": {"input_kind": "pixels"}}
    (one,) = tensors_of(form(ONE.astype(dtype), **parameters))
    assert (one.datatype, one.shape, one.kind) == (DATATYPES[dtype], (4, 5, 3), "pixels")
    assert (array_of(one) == ONE).all()
    first, second = tensors_of(form(TWO.astype(dtype), **parameters))
    assert (array_of(first) == TWO[0]).all()
    assert (array_of(second) == TWO[1]).all()


@pytest.mark.parametrize("shape", [[-1, 5, 3], [4, -1, -1], [-1, -1, -1], None])
def test_nested_lists_complete_a_shape(shape: list[int] | None) -> None:
    (one,) = tensors_of(nested(ONE, shape=shape))
    assert one.shape == (4, 5, 3)


def test_nested_lists_in_v1() -> None:
    first, second = tensors_of(v1(ONE.tolist(), {"image": TWO[1].tolist(), "top_k": 2}))
    assert (array_of(first) == TWO[0]).all()
    assert (array_of(second) == TWO[1]).all()


@pytest.mark.parametrize(
    "request_", [
        v1({"image": (ONE / 2).tolist(), "input_kind": "pixels"}),
        v1((ONE / 2).tolist(), parameters={"input_kind": "pixels"}),
        v1((ONE / 2).tolist(), input_kind="pixels"),
    ],
)  # fmt: skip
def test_numbers_with_a_fraction_in_v1(request_: IncomingRequest) -> None:
    (one,) = tensors_of(request_)
    assert (one.datatype, one.kind) == ("FP32", "pixels")
    assert (array_of(one) == ONE / 2).all()


def test_nested_lists_in_a_plain_body() -> None:
    body = {"image": ONE.tolist(), "top_k": 2}
    (one,) = tensors_of(IncomingRequest({"body": body}, {"host": "h"}))
    assert (array_of(one) == ONE).all()


def test_the_networks_own_input() -> None:
    normalized = np.linspace(-2, 2, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    (one,) = tensors_of(behind_json(normalized, parameters={"input_kind": "normalized"}))
    assert (one.shape, one.kind) == ((3, 4, 4), "normalized")
    assert (array_of(one) == normalized[0]).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_whole_numbers_of_v1_can_be_the_networks_own_input(sign: int) -> None:
    """JavaScript writes 1.0 as 1."""
    lists = (sign * ONE.astype(int)).tolist()
    (one,) = tensors_of(v1({"image": lists, "input_kind": "normalized"}))
    assert (one.datatype, one.kind) == ("FP32", "normalized")
    assert (array_of(one) == sign * ONE.astype(int)).all()


CONTRADICTIONS = [([5, 4, 3], ONE), ([3, 4, 5], ONE), ([2, 2, 5, 3], ONE), ([1, 8, 5, 3], TWO),
                  ([-1, 3], ONE), ([60], ONE), ([4, -1, 1], ONE)]  # fmt: skip


@pytest.mark.parametrize(("shape", "array"), CONTRADICTIONS)
def test_nested_lists_keep_the_order_of_their_axes(
    shape: list[int], array: NDArray[np.uint8]
) -> None:
    error = rejection(nested(array, shape=shape))
    assert "and nested lists of the shape" in error.message


def test_an_axis_of_one_may_be_added() -> None:
    (one,) = tensors_of(nested(ONE, shape=[1, 4, 5, 3]))
    assert one.shape == (4, 5, 3)


def test_a_file_as_uint8_numbers() -> None:
    """Triton's pipelines that decode photos take them as UINT8 of shape [n] or [1, n]."""
    file = b"\xff\xd8\xff photo"
    array = np.frombuffer(file, np.uint8)
    for one in (array, array[None]):
        instances = parse_request(behind_json(one), SETTINGS).instances
        assert isinstance(instances, tuple)
        assert isinstance(instances[0], ImageRequest)
        assert instances[0].image == file


def test_more_numbers_than_json_values_are_accepted() -> None:
    large = np.zeros((200, 200, 3), np.uint8)
    assert large.size > SETTINGS.limits.json_values
    for request in (v1(large.tolist()), v1({"image": large.tolist()}), v2(large), nested(large)):
        assert tensors_of(request)[0].shape == (200, 200, 3)


# What is rejected

REJECTED: dict[str, tuple[IncomingRequest, str]] = {
    "FP32 without a kind": (v2(ONE.astype(np.float32)), "needs the parameter 'input_kind'"),
    "v1 without a kind": (v1((ONE / 2).tolist()), "needs the parameter 'input_kind'"),
    "whole numbers, normalized": (
        v2(ONE, parameters={"input_kind": "normalized"}), "cannot be 'normalized'"
    ),
    "unknown kind": (v2(ONE, parameters={"input_kind": "raw"}), "accepted: pixels or normalized"),
    "kind a list": (v2(ONE, parameters={"input_kind": ["pixels"]}), "accepted: pixels or"),
    "INT32": (v2(ONE, datatype="INT32"), "has the datatype 'INT32'; accepted: BYTES for files"),
    "no datatype": (v2(ONE, datatype=None), "has the datatype None; accepted: BYTES for files"),
    "two axes": (v2(ONE[..., 0]), "of the shape (4, 5); accepted: (height, width, 3)"),
    "five axes": (v2(ONE[None, None]), "a list of up to 4 lengths"),
    "no numbers": (v2(np.zeros((0, 5, 3), np.uint8)), "of the shape (0, 5, 3)"),
    "too few": (v2(ONE, shape=[4, 5, 4]), "has the shape [4, 5, 4] and 60 elements"),
    "256": (v2(ONE, data=[256] * 60), "whole numbers from 0 to 255"),
    "negative": (v2(ONE, data=[-1] * 60), "whole numbers from 0 to 255"),
    "fraction in UINT8": (v2(ONE, data=[0.5] * 60), "whole numbers from 0 to 255"),
    "boolean": (v2(ONE, data=[1, True] * 30), "whole numbers from 0 to 255"),
    "null": (v2(ONE, data=[1, None] * 30), "whole numbers from 0 to 255"),
    "text beside numbers": (v2(ONE, data=[1, "x"] * 30), "whole numbers from 0 to 255"),
    "object beside numbers": (v1([[[1, {}, 3]]]), "elements that are no FP32"),
    "number too large": (v1([[[10**400, 1.5, 3]]]), "elements that are no FP32"),
    "ragged": (v1([[[1, 2, 3]], [[1, 2]]]), "are no tensor"),
    "list beside number": (v1([[[1, [2], 3]]]), "lists stand beside elements"),
    "number beside list": (v1([[[1, 2, 3], 4]]), "are no tensor"),
    "v1, four axes": (v1(TWO.tolist()), "of the shape (2, 4, 5, 3)"),
    "v1, flat": (v1([1, 2, 3]), "of the shape (3,)"),
    "v1, too deep": (v1([[[[[1]]]]]), "on up to 4 levels"),
    "empty lists": (v1([[], []]), "of the shape (2, 0)"),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "message"), REJECTED.values(), ids=REJECTED)
def test_what_is_no_photo_is_rejected(request_: IncomingRequest, message: str) -> None:
    error = rejection(request_)
    assert message in error.message
    assert error.status == 400


def test_one_bad_tensor_of_v1_is_rejected_alone() -> None:
    instances = parse_request(v1([[[1, 2]], 3], ONE.tolist()), SETTINGS).instances
    assert isinstance(instances, tuple)
    assert isinstance(instances[0], RequestError)
    assert isinstance(instances[1], ImageRequest)


def test_a_file_has_no_kind() -> None:
    file = {"b64": "/9j/4AAQ"}
    error = rejection(v1({"image": file, "input_kind": "pixels"}))
    assert error.code == "conflicting_options"


def test_numbers_of_options_count_as_before() -> None:
    tensor = {"name": "target", "datatype": "INT64", "shape": [20_000], "data": [1] * 20_000}
    body = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["eA=="]}, tensor]
    }
    request = IncomingRequest({"body": body}, {"host": "h"})
    assert rejection(request).code == "json_too_large"
