"""The requests that are rejected: each error that a caller can cause, over each protocol."""

from __future__ import annotations

import json
from typing import Any

import inference_pb2

from tests.golden.builders import (
    EXPLAIN,
    INFERENCE,
    JUNK64,
    PHOTO64,
    PREDICT,
    V1,
    V2,
    Cases,
    grpc_call,
    http,
    infer,
    json_body,
    json_photo,
    predictions,
    v1,
    v2,
)
from tests.golden.photos import FILES, PHOTO, with_claimed_size
from tests.golden.server import MODEL
from tests.support.contract import inputs_of, tensor


def error_cases() -> Cases:
    """Every error that a caller can cause, over the protocols whose error bodies differ."""
    raw: Cases = {
        "missing_image; no body": http(PREDICT),
        "missing_image; GET": http(PREDICT, "GET"),
        "missing_image; form": http(PREDICT, data={"x": "1"}),
        "missing_image; JSON": json_body(PREDICT, {"target": 1}),
        "missing_image; empty base64": json_body(PREDICT, {"image": ""}),
        "invalid_image; cut off": http(PREDICT, content=PHOTO[: len(PHOTO) // 2]),
        "invalid_image; JPEG cut off": http(PREDICT, content=FILES["JPEG"][:400]),
        "unsupported_format; text": http(PREDICT, content=b"no photo at all"),
        "unsupported_format; declared PNG": http(
            PREDICT, content=b"%PDF-1.7", headers={"Content-Type": "image/png"}
        ),
        "invalid_base64; foreign character": json_body(PREDICT, {"image": "@@@"}),
        "invalid_base64; no padding": json_body(
            PREDICT, {"image": {"b64": PHOTO64.rstrip("=") + "A"}}
        ),
        "invalid_json; body": http(
            PREDICT, content=b'{"image":', headers={"Content-Type": "application/json"}
        ),
        "invalid_json; header": http(PREDICT, content=PHOTO, headers={"X-Explain": "{"}),
        "invalid_json; field": http(PREDICT, files={"data": PHOTO}, data={"options": "[]"}),
        "invalid_request; list": json_body(PREDICT, [1]),
        "invalid_request; two photos": json_body(PREDICT, {"image": PHOTO64, "data": PHOTO64}),
        "invalid_request; key beside b64": json_body(PREDICT, {"image": {"b64": PHOTO64, "x": 1}}),
        "unknown_option; JSON": json_photo(alhpa=1),
        "unknown_option; path": http(f"{PREDICT}/1.0/alhpa=1", content=PHOTO),
        "unknown_option; path without a value": http(f"{PREDICT}/1.0/target", content=PHOTO),
        "unknown_option; query": http(f"/invocations?model_name={MODEL}&alhpa=1", content=PHOTO),
        "invalid_option; alpha": json_photo(alpha=2),
        "invalid_option; threshold": json_photo(threshold=1),
        "invalid_option; top_k": json_photo(top_k=0),
        "invalid_option; top_k above the classes": json_photo(top_k=7),
        "invalid_option; explain": json_photo(explain="maybe"),
        "invalid_option; method": json_photo(method="cam"),
        "invalid_option; layer": json_photo(layer="layer2.0"),
        "invalid_option; outputs": json_photo(outputs=["map", "all"]),
        "invalid_option; no outputs": json_photo(outputs=[]),
        "invalid_option; image_format": json_photo(image_format="gif"),
        "invalid_option; size": json_photo(size=8193),
        "invalid_option; colormap": json_photo(colormap="grey"),
        "invalid_option; target": json_photo(target=-1),
        "invalid_option; top:7": json_photo(target="top:7"),
        "invalid_option; not UTF-8": predictions(data=PHOTO, target=b"\xff"),
        "conflicting_options; header and path": http(
            f"{PREDICT}/1.0/target=red", content=PHOTO, headers={"X-Explain": '{"target": "blue"}'}
        ),
        "conflicting_options; twice in the path": http(
            f"{PREDICT}/1.0/target=red,target=blue", content=PHOTO
        ),
        "conflicting_options; explain false": http(f"{EXPLAIN}/1.0/explain=false", content=PHOTO),
        "unknown_class; label": json_photo(target="pink"),
        "unknown_class; index": json_photo(target=6),
        "unknown_class; side of a contrast": json_photo(target="red-pink"),
        "image_too_large; sides": http(PREDICT, content=with_claimed_size(30_000, 30_000)),
        "image_too_large; pixels": http(PREDICT, content=with_claimed_size(10_000, 10_000)),
        "image_too_large; shape": http(PREDICT, content=with_claimed_size(2100, 100)),
        "json_too_large; depth": json_body(PREDICT, {"image": PHOTO64, "target": nested(20)}),
        "json_too_large; header's depth": http(
            PREDICT, content=PHOTO, headers={"X-Explain": json.dumps({"target": nested(20)})}
        ),
        "too_many_targets": json_photo(target=[0] * 17),
        "reply_too_large": json_photo(size=8192, target=["red", "blue"]),
    }
    kserve: Cases = {
        "v1, invalid_request; nothing": v1(),
        "v1, invalid_request; no list": json_body(f"{V1}:predict", {"instances": PHOTO64}),
        "v1, invalid_request; key": v1(PHOTO64, x=1),
        "v1, too_many_instances": v1(*["A"] * 33),
        "v1 explain, unknown_option": v1(PHOTO64, verb="explain", parameters={"alhpa": 1}),
        "v1 explain, conflicting_options": v1({"image": PHOTO64, "explain": False}, verb="explain"),
        "v2, missing_image; nothing": v2(id="7"),
        "v2, missing_image; empty": v2(*inputs_of([])),
        "v2, invalid_request; no list": json_body(f"{V2}/infer", {"inputs": None}),
        "v2, invalid_request; key": v2(*inputs_of([PHOTO64]), x=1),
        "v2, invalid_request; output": v2(*inputs_of([PHOTO64]), outputs=[{"name": "x"}]),
        "v2, invalid_request; id": v2(*inputs_of([PHOTO64]), id=7),
        "v2, invalid_request; shape": v2({**inputs_of([PHOTO64])[0], "shape": [2]}, id="7"),
        "v2, invalid_request; twice": v2(*inputs_of([PHOTO64]) * 2, id="7"),
        "v2, unknown_option": v2(*inputs_of([PHOTO64], alhpa=1), id="7"),
        "v2, conflicting_options": v2(
            {**inputs_of([PHOTO64])[0], "parameters": {"top_k": 1}}, parameters={"top_k": 2}
        ),
        "v2, too_many_instances": v2(*inputs_of(["A"] * 33)),
        "v2, unknown_class": v2(*inputs_of([PHOTO64], target="pink"), id="7"),
        "v2, reply_too_large": v2(*inputs_of([PHOTO64], size=8192, target="top:2"), id="7"),
        "v2 explain, unsupported_format": v2(*inputs_of([JUNK64]), verb="explain", id="7"),
        "v2 explain, conflicting_options": v2(
            *inputs_of([PHOTO64], explain=False), verb="explain", id="7"
        ),
    }
    grpc: Cases = {
        "Predictions, missing_image": predictions(x=b"1"),
        "Predictions, unsupported_format": predictions(data=b"no photo"),
        "Predictions, unknown_class": predictions(data=PHOTO, target=b"pink"),
        "Predictions, invalid_json": predictions(data=PHOTO, options=b"{"),
        "StreamPredictions, unknown_option": predictions(
            "StreamPredictions", data=PHOTO, alhpa=b"1"
        ),
        "StreamPredictions, unsupported_format": predictions("StreamPredictions", data=b"junk"),
        "Open Inference, missing_image; nothing": infer(),
        "Open Inference, missing_image; empty": infer(*inputs_of([b""]), id="7"),
        "Open Inference, unknown_option; two names": infer(
            tensor("photo", "BYTES", [PHOTO]), tensor("picture", "BYTES", [PHOTO])
        ),
        "Open Inference, invalid_request; no contents": infer(tensor("image", "BYTES", [], 1)),
        "Open Inference, invalid_request; shape": infer(tensor("image", "BYTES", [PHOTO], 2)),
        "Open Inference, invalid_request; number": infer(tensor("image", "INT64", [5]), id="7"),
        "Open Inference, unknown_option": infer(*inputs_of([PHOTO], alhpa=1), id="7"),
        "Open Inference, invalid_option": infer(*inputs_of([PHOTO], alpha=2.5), id="7"),
        "Open Inference, unknown_class": infer(*inputs_of([PHOTO], target="pink"), id="7"),
        "Open Inference, unsupported_format": infer(*inputs_of([b"junk"]), id="7"),
        "Open Inference, too_many_instances": infer(*inputs_of([b"A"] * 33)),
    }
    unserved = inference_pb2.PredictionsRequest(model_name="nope", input={"data": PHOTO})
    torchserve: Cases = {
        "TorchServe; unknown model": http("/predictions/nope", content=PHOTO),
        "TorchServe; unknown version": http(f"{PREDICT}/9.9", content=PHOTO),
        "TorchServe; unknown path": http("/nothing", "GET"),
        "TorchServe; no token": http(PREDICT, token=False, content=PHOTO),
        "TorchServe; v1 without a token": http(f"{V1}:predict", token=False, content=b"{}"),
        "TorchServe; ping without a token": http("/ping", "GET", token=False),
        "TorchServe; gRPC without a token": predictions(token=False, data=PHOTO),
        "TorchServe; gRPC, unknown model": grpc_call(INFERENCE, "Predictions", unserved),
        "TorchServe; Open Inference, unknown model": infer(*inputs_of([PHOTO]), model="nope"),
    }
    return raw | kserve | grpc | torchserve


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)
