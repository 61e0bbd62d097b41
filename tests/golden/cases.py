"""The requests that are recorded, by the name of the file and of the record.

Only ``record`` reads this. What is replayed later are the recorded bytes, whatever becomes of the
builders.
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
    ask,
    call,
    http,
    infer,
    json_body,
    predictions,
    sent_by,
    v1,
    v2,
)
from tests.golden.error_cases import of_errors
from tests.golden.photos import FILES, OTHER, PHOTO, RED
from tests.golden.server import MODEL
from tests.support import transport_matrix
from tests.support.contract import inputs_of, tensor
from tests.support.option_strategies import Options
from tests.support.transport_matrix import b64


def by_transport() -> Cases:
    """One photo by every way that there is, explained and not; defaults by each protocol."""
    some: Options = {"target": "blue", "top_k": 2, "outputs": ["map", "boxes"]}
    found: Cases = {}
    for name, way in transport_matrix.WAYS.items():
        found[f"{name}; explained"] = sent_by(way, some)
        found[f"{name}; explain false"] = sent_by(way, {"explain": False, "top_k": 2})
    for name, way in transport_matrix.HTTP_WAYS.items():
        # TorchServe has no PUT of /invocations.
        if not name.startswith("invocations"):
            found[f"{name}; PUT"] = sent_by(way, some, "PUT")
    for name, request in {
        "raw body": http(PREDICT, content=PHOTO, headers={"Content-Type": "image/png"}),
        "explanations": http(EXPLAIN, content=PHOTO),
        "v1 explain": v1(PHOTO64, verb="explain"),
        "v2 infer": v2(*inputs_of([PHOTO64])),
        "Predictions": predictions(data=PHOTO),
        "StreamPredictions": predictions("StreamPredictions", data=PHOTO),
        "Open Inference": infer(*inputs_of([PHOTO])),
    }.items():
        found[f"{name}; defaults"] = request
    found["multipart, body"] = http(PREDICT, files={"body": PHOTO}, data={"outputs": "map"})
    found["raw body, octet-stream"] = http(
        f"{PREDICT}/1.0/outputs=map",
        content=PHOTO,
        headers={"Content-Type": "application/octet-stream"},
    )
    return found


def of_the_server() -> Cases:
    """What it says of itself and of the model."""
    description = f"/models/{MODEL}?customized=true"
    described = management_pb2.DescribeModelRequest(model_name=MODEL, customized=True)
    return {
        "ping": http("/ping", "GET"),
        "v2 ready": http("/v2/health/ready", "GET"),
        "v2 live": http("/v2/health/live", "GET"),
        "description": http(description, "GET", "management"),
        "description over gRPC": call(MANAGEMENT, "DescribeModel", described, "management"),
        "Ping": call(INFERENCE, "Ping", inference_pb2.TorchServeHealthResponse()),
        "ServerLive": call(OPEN_INFERENCE, "ServerLive", oip.ServerLiveRequest()),
        "ServerReady": call(OPEN_INFERENCE, "ServerReady", oip.ServerReadyRequest()),
        "ModelReady": call(OPEN_INFERENCE, "ModelReady", oip.ModelReadyRequest(name=MODEL)),
    }


def of_options() -> Cases:
    """Every option with several values, in JSON; values as text, in a form."""
    plain = {"outputs": ["map", "boxes"], "top_k": 1}
    given: dict[str, list[Any]] = {
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
    found: Cases = {
        f"{name} {json.dumps(value)}": ask(**{**plain, name: value})
        for name, values in given.items()
        for value in values
    }
    for method in given["method"]:
        # Where the methods differ on this network: at the last layer all gradients are constant.
        asked = {"method": method, "layer": "layer3.5", "target": "red-green"}
        found[f"method {method}, of a contrast at layer3.5"] = ask(**asked, outputs="map", top_k=1)
    drawn: dict[str, list[dict[str, Any]]] = {
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
    for name, requests in drawn.items():
        for options in requests:
            # Small ones, where the size is not what is asked about.
            asked = {"top_k": 1, "size": 40, **options}
            shown = asked["size"] if name == "drawn" else options[name]
            found[f"{name} {json.dumps(shown)}, drawn"] = ask(**asked)
    found["no evidence"] = json_body(
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
        found[f"{name} as text"] = http(PREDICT, files={"data": PHOTO}, data=form)
    for method in ("gradcam++", "eigencam"):
        form = {"method": method, "layer": "layer3.5,layer4.2", "target": "top:2", "outputs": "map"}
        found[f"{method} of two layers in a form"] = http(PREDICT, files={"data": PHOTO}, data=form)
    return found


def of_photos() -> Cases:
    """Every kind of file, and photos that are held on their side."""
    found: Cases = {}
    for name, file in FILES.items():
        size = "original" if "orientation" in name else "40"
        asked = f"outputs=map,boxes,overlay,size={size},top_k=3"
        found[name] = http(f"{PREDICT}/1.0/{asked}", content=file)
    return found


def of_kserve() -> Cases:
    """What KServe's protocols have beyond one photo and its options."""
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
    "transports": by_transport,
    "server": of_the_server,
    "options": of_options,
    "photos": of_photos,
    "kserve": of_kserve,
    "errors": of_errors,
}
