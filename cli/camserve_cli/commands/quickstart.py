"""Explain two photos that scikit-image carries: one over HTTP, one over gRPC.

    python scripts/quickstart_calls.py MODEL [FOLDER]

Prints the predictions and writes photos and overlays into FOLDER (default: out).
"""

from __future__ import annotations

import base64
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
from rich.console import Console
from rich.table import Table

from running import Server, ServerError


def over_http(server: Server, model: str, photo: bytes) -> dict[str, Any]:
    """Post the photo's bytes as they are."""
    reply = httpx.post(
        f"{server.inference}/predictions/{model}",
        content=photo,
        headers={**server.bearer(), "Content-Type": "application/octet-stream"},
        timeout=60,
    )
    reply.raise_for_status()
    return dict(reply.json())


def over_grpc(server: Server, model: str, photo: bytes) -> dict[str, Any]:
    """Send the photo as the input ``data`` of a Predictions call."""
    with grpc.insecure_channel(server.grpc) as channel:
        reply = inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions(
            inference_pb2.PredictionsRequest(model_name=model, input={"data": photo}),
            metadata=[("protocol", "gRPC"), ("authorization", server.bearer()["Authorization"])],
            timeout=60,
        )
    return dict(json.loads(reply.prediction))


def sample(name: str) -> Path:
    """A photo inside the scikit-image package."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ServerError("scikit-image, which carries the photos, is not installed")
    return Path(spec.origin).parent / "data" / name


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "out")
    server = Server.find()
    if server is None:
        sys.exit("no server is running; start one with scripts/serve.sh")
    folder.mkdir(parents=True, exist_ok=True)
    table = Table("photo", "over", "prediction", "probability")
    written = []
    calls = (("chelsea.png", "HTTP", over_http), ("coffee.png", "gRPC", over_grpc))
    for name, transport, call in calls:
        photo = sample(name)
        reply = call(server, model, photo.read_bytes())
        for place, prediction in enumerate(reply["predictions"]):
            first = [name, transport] if place == 0 else ["", ""]
            table.add_row(*first, prediction["label"], f"{prediction['probability']:.3f}")
        table.add_section()
        (folder / name).write_bytes(photo.read_bytes())
        picture = reply["explanations"][0]["overlay"]
        suffix = picture["media_type"].removeprefix("image/")
        overlay = folder / f"{photo.stem}-overlay.{suffix}"
        overlay.write_bytes(base64.b64decode(picture["b64"]))
        written.append(overlay)
    console = Console()
    console.print(table)
    console.print(f"Overlays: {', '.join(map(str, written))}", soft_wrap=True)
    print("The server goes on running.", server.how_to_call(model, str(folder / name)))


if __name__ == "__main__":
    main()
