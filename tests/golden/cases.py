"""The requests to record, by the name of the file and of the record.

Only ``record`` uses this module. The test replays the recorded bytes, so changes to the builders do
not affect it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import inference_pb2
import management_pb2
import open_inference_grpc_pb2 as oip

from tests.golden.builders import (
    EXPLAIN,
    INFERENCE,
    JUNK64,
    MANAGEMENT,
    OPEN_INFERENCE,
    OTHER64,
    PHOTO64,
    PREDICT,
    Cases,
    captured,
    grpc_call,
    http,
    infer,
    json_body,
    json_photo,
    predictions,
    v1,
    v2,
)
from tests.golden.error_cases import error_cases
from tests.golden.photos import FILES, OTHER, PHOTO, RED, discs
from tests.golden.server import MODEL
from tests.support import transport_matrix
from tests.support.contract import inputs_of, tensor
from tests.support.option_strategies import Options
from tests.support.transport_matrix import b64


def transport_cases() -> Cases:
    """One photo over every transport, explained and not; and the defaults of each protocol."""
    figures: Options = {
        "faithfulness": ["drop", "increase", "insertion"], "top_k": 1, "outputs": ["boxes"],
    }  # fmt: skip
    condition: Options = {"explain_when": "probability<0.01 or class in [5]", "top_k": 1}
    some: Options = {"target": "blue", "top_k": 2, "outputs": ["map", "boxes"]}
    cases: Cases = {}
    for name, transport in transport_matrix.WAYS.items():
        cases[f"{name}; explained"] = captured(transport, some)
        cases[f"{name}; explain false"] = captured(transport, {"explain": False, "top_k": 2})
        cases[f"{name}; faithfulness"] = captured(transport, figures)
        cases[f"{name}; explain_when"] = captured(transport, condition)
    for name, transport in transport_matrix.HTTP_TRANSPORTS.items():
        # TorchServe has no PUT for /invocations.
        if not name.startswith("invocations"):
            cases[f"{name}; PUT"] = captured(transport, some, "PUT")
    defaults: Cases = {
        "raw body": http(PREDICT, content=PHOTO, headers={"Content-Type": "image/png"}),
        "explanations": http(EXPLAIN, content=PHOTO),
        "v1 explain": v1(PHOTO64, verb="explain"),
        "v2 infer": v2(*inputs_of([PHOTO64])),
        "Predictions": predictions(data=PHOTO),
        "StreamPredictions": predictions("StreamPredictions", data=PHOTO),
        "Open Inference": infer(*inputs_of([PHOTO])),
    }
    for name, request in defaults.items():
        cases[f"{name}; defaults"] = request
    cases["multipart, body"] = http(PREDICT, files={"body": PHOTO}, data={"outputs": "map"})
    cases["raw body, octet-stream"] = http(
        f"{PREDICT}/1.0/outputs=map",
        content=PHOTO,
        headers={"Content-Type": "application/octet-stream"},
    )
    return cases


def server_cases() -> Cases:
    """Health and the model's description."""
    description = f"/models/{MODEL}?customized=true"
    described = management_pb2.DescribeModelRequest(model_name=MODEL, customized=True)
    return {
        "ping": http("/ping", "GET"),
        "v2 ready": http("/v2/health/ready", "GET"),
        "v2 live": http("/v2/health/live", "GET"),
        "description": http(description, "GET", "management"),
        "description over gRPC": grpc_call(MANAGEMENT, "DescribeModel", described, "management"),
        "Ping": grpc_call(INFERENCE, "Ping", inference_pb2.TorchServeHealthResponse()),
        "ServerLive": grpc_call(OPEN_INFERENCE, "ServerLive", oip.ServerLiveRequest()),
        "ServerReady": grpc_call(OPEN_INFERENCE, "ServerReady", oip.ServerReadyRequest()),
        "ModelReady": grpc_call(OPEN_INFERENCE, "ModelReady", oip.ModelReadyRequest(name=MODEL)),
    }


def option_cases() -> Cases:
    """Every option with several values, as JSON; and values as text in a form."""
    plain = {"outputs": ["map", "boxes"], "top_k": 1}
    values: dict[str, list[Any]] = {
        "target": [
            0, 5, "2", "red", "predicted", "top:3", "red-green", "predicted-red", "0-3",
            ["blue", "top:2", 4, "magenta-cyan"], "green, cyan", '["yellow", 1]', ["red", "red"],
        ],
        "top_k": [1, 3, 6],
        "explain": [False, True],
        "method": [
            "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "gradcam_elementwise",
            "eigencam", "eigengradcam",
        ],
        "layer": [
            "layer4.2", "layer3.5", "layer4.1", ["layer4.2", "layer3.5"], "layer3.5,layer4.1",
        ],
        "threshold": [0, 0.2, 0.9],
        "size": ["model", "original", 50],
    }  # fmt: skip
    cases: Cases = {
        f"{name} {json.dumps(value)}": json_photo(**{**plain, name: value})
        for name, options in values.items()
        for value in options
    }
    for method in values["method"]:
        # At the last layer all gradients are constant, so the methods do not differ there.
        asked = {"method": method, "layer": "layer3.5", "target": "red-green"}
        cases[f"method {method}, of a contrast at layer3.5"] = json_photo(
            **asked, outputs="map", top_k=1
        )
    rendered: dict[str, list[dict[str, Any]]] = {
        "outputs": [
            {"outputs": value}
            for value in (
                "heatmap", ["overlay"], ["mask"], "map", "boxes",
                ["heatmap", "overlay", "mask", "map", "boxes"],
            )
        ],
        "image_format": [
            {"image_format": value, "outputs": ["overlay", "heatmap", "mask"]}
            for value in ("auto", "png", "jpeg", "webp")
        ],
        "drawn": [
            {"size": value, "outputs": ["overlay", "mask"]} for value in ("model", "original", 120)
        ],
        "colormap": [
            {"colormap": value, "outputs": ["heatmap"]}
            for value in (
                "autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool",
                "hsv", "pink", "hot", "parula", "magma", "inferno", "plasma", "viridis", "cividis",
                "twilight", "twilight_shifted", "turbo", "deepgreen",
            )
        ],
        "alpha": [{"alpha": value, "outputs": ["overlay"]} for value in (0, 0.3, 0.7, 1)],
    }  # fmt: skip
    for name, requests in rendered.items():
        for options in requests:
            # Small pictures, except where the size itself is tested.
            asked = {"top_k": 1, "size": 40, **options}
            shown = asked["size"] if name == "drawn" else options[name]
            cases[f"{name} {json.dumps(shown)}, drawn"] = json_photo(**asked)
    cases["no evidence"] = json_body(
        PREDICT,
        {
            "image": b64(RED),
            "target": ["cyan", "red"],
            "top_k": 1,
            "size": 20,
            "outputs": ["map", "boxes", "heatmap", "overlay", "mask"],
        },
    )
    for name, value in (
        ("top_k", "2"), ("explain", "false"), ("threshold", "0.7"), ("size", "80"),
        ("outputs", '["boxes"]'), ("alpha", ".5"), ("target", "3"),
    ):  # fmt: skip
        form = {"outputs": "map,boxes", "top_k": "1", name: value}
        cases[f"{name} as text"] = http(PREDICT, files={"data": PHOTO}, data=form)
    for method in ("gradcam++", "eigencam"):
        form = {"method": method, "layer": "layer3.5,layer4.2", "target": "top:2", "outputs": "map"}
        cases[f"{method} of two layers in a form"] = http(PREDICT, files={"data": PHOTO}, data=form)
    return cases


def photo_cases() -> Cases:
    """Every file format, and photos with an EXIF orientation."""
    cases: Cases = {}
    for name, file in FILES.items():
        size = "original" if "orientation" in name else "40"
        asked = f"outputs=map,boxes,overlay,size={size},top_k=3"
        cases[name] = http(f"{PREDICT}/1.0/{asked}", content=file)
    return cases


def kserve_cases() -> Cases:
    """KServe's own features: several photos, options for each, selected outputs."""
    some = {"outputs": ["map", "boxes"], "top_k": 2}
    image, two = tensor("image", "BYTES", [PHOTO64]), tensor("image", "BYTES", [PHOTO64, OTHER64])
    photos, small = tensor("image", "BYTES", [PHOTO, OTHER]), tensor("size", "INT64", [30])
    columns = [
        tensor("target", "BYTES", ["red", '["blue", "top:1"]']),
        tensor("top_k", "INT64", [1, 3]),
        tensor("outputs", "BYTES", ["map", "map,boxes"]),
        tensor("layer", "BYTES", ["layer4.2", "layer3.5"]),
    ]
    broken = [PHOTO64, JUNK64, OTHER64]
    return {
        "v1, several instances": v1(PHOTO64, {"image": {"b64": OTHER64}}, parameters=some),
        "v1, one of several broken": v1(
            PHOTO64, {"image": JUNK64}, {"image": OTHER64, "alpha": 9}, {"data": OTHER64},
            parameters=some,
        ),
        "v1 explain, one of several broken": v1(
            {"b64": PHOTO64, "target": 4}, JUNK64, verb="explain", parameters=some
        ),
        "v1, all broken": v1(JUNK64, {"image": PHOTO64, "target": "pink"}),
        "v2, several photos": v2(two, id="seven", parameters=some),
        "v2, options for each": v2(two, *columns),
        "v2 explain, options for each": v2(two, *columns, verb="explain", id="Häher 7"),
        "v2, one of several broken": v2(
            tensor("image", "BYTES", broken), id="7", parameters=some
        ),
        "v2, all broken": v2(tensor("image", "BYTES", [JUNK64, b64(PHOTO[:200])]), id="7"),
        "v2, nested data": v2(
            {**two, "shape": [2, 1], "data": [[PHOTO64], [OTHER64]]}, parameters=some
        ),
        "v2, wanted figures": v2(
            image, outputs=[{"name": name} for name in ("label", "probability", "seen", "peak")]
        ),
        "v2, wanted pictures": v2(
            image, small, outputs=[{"name": "mask"}, {"name": "overlay"}, {"name": "label"}]
        ),
        "v2, wanted map and boxes": v2(two, outputs=[{"name": "map"}, {"name": "boxes"}]),
        "v2, one of several broken, wanted": v2(
            tensor("image", "BYTES", broken), outputs=[{"name": "label"}]
        ),
        "v2, pictures of several photos": v2(
            two, small, *inputs_of([], outputs="heatmap,mask", target="top:2")[1:]
        ),
        "v2, contrast": v2(two, parameters={**some, "target": ["red-green", "blue"]}),
        "v2, predictions alone": v2(two, id="7", parameters={"explain": False, "top_k": 1}),
        "v1, numbers": v1(discs(40, 30).tolist(), parameters=some),
        "v2, numbers": v2(
            tensor("input", "UINT8", discs(40, 30).ravel().tolist(), 30, 40, 3), parameters=some
        ),
        "v2, another name": v2({**image, "name": "INPUT__0", "shape": [-1]}, parameters=some),
        "Open Inference, another name": infer(tensor("photo", "BYTES", [PHOTO])),
        "Open Inference, options for each": infer(photos, *columns, id="Häher 7"),
        "Open Inference, one of several broken": infer(
            tensor("image", "BYTES", [PHOTO, b"junk", OTHER]),
            *inputs_of([], outputs="map,boxes", top_k=2)[1:],
        ),
        "Open Inference, all broken": infer(
            tensor("image", "BYTES", [b"junk", PHOTO[:200]]), id="7"
        ),
        "Open Inference, contrast": infer(
            photos, *inputs_of([], outputs=["map"], target=["red-green", 2], top_k=1)[1:]
        ),
        "Open Inference, pictures": infer(
            photos, small, *inputs_of([], outputs="heatmap,overlay,mask", top_k=1)[1:]
        ),
    }  # fmt: skip


#: By the name of the file.
CASES: dict[str, Callable[[], Cases]] = {
    "transports": transport_cases,
    "server": server_cases,
    "options": option_cases,
    "photos": photo_cases,
    "kserve": kserve_cases,
    "errors": error_cases,
}
