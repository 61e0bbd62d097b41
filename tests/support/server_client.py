"""How the tests call a server: plain HTTP and gRPC, and what a reply's pictures show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import management_pb2
import management_pb2_grpc
import numpy as np
import open_inference_grpc_pb2 as oip
import open_inference_grpc_pb2_grpc as oip_grpc
from numpy.typing import NDArray

from tests.support.contract import decoded
from tests.support.scripts import run_script


@dataclass(frozen=True)
class Client:
    """A server's addresses and a token for them.

    Attributes:
        http: bound to the inference address.
        grpc: the inference service.
        run_dir: where the server's logs are.
        ports: by the name of the variable that sets them.
        token: for the inference address.
        open_inference: the Open Inference service, at the same address as ``grpc``.
    """

    http: httpx.Client
    grpc: inference_pb2_grpc.InferenceAPIsServiceStub
    run_dir: Path
    ports: dict[str, str]
    token: str
    open_inference: oip_grpc.GRPCInferenceServiceStub

    @classmethod
    @contextmanager
    def open(cls, environment: dict[str, str], token: str) -> Iterator[Client]:
        base = f"http://127.0.0.1:{environment['INFERENCE_PORT']}"
        bearer = {"Authorization": f"Bearer {token}"}
        with (
            httpx.Client(base_url=base, headers=bearer, timeout=60) as http,
            grpc.insecure_channel(f"127.0.0.1:{environment['GRPC_INFERENCE_PORT']}") as channel,
        ):
            stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
            open_inference = oip_grpc.GRPCInferenceServiceStub(channel)
            run_dir = Path(environment["RUN_DIR"])
            yield cls(http, stub, run_dir, environment, token, open_inference)

    @property
    def torchserve_ports(self) -> dict[str, str]:
        """The ports that TorchServe itself listens on; a front, where there is one, has its own."""
        return {
            name: port
            for name, port in self.ports.items()
            if name.endswith("_PORT") and not name.startswith("OPEN_INFERENCE")
        }

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What authorizes a gRPC call."""
        return [("protocol", "gRPC"), ("authorization", f"Bearer {self.token}")]

    def predict(self, model: str, **inputs: bytes) -> dict[str, Any]:
        """A gRPC Predictions call; the reply's JSON, an error's as well."""
        request = inference_pb2.PredictionsRequest(model_name=model, input=inputs)
        reply = self.grpc.Predictions(request, metadata=self.metadata, timeout=60)
        return dict(json.loads(reply.prediction))

    def stream(self, model: str, **inputs: bytes) -> list[dict[str, Any]]:
        """A gRPC StreamPredictions call; each message's JSON."""
        request = inference_pb2.PredictionsRequest(model_name=model, input=inputs)
        replies = self.grpc.StreamPredictions(request, metadata=self.metadata, timeout=60)
        return [json.loads(reply.prediction) for reply in replies]

    def infer(self, request: oip.ModelInferRequest) -> dict[str, Any]:
        """An Open Inference gRPC call; its reply as KServe v2 has it over HTTP."""
        reply = self.open_inference.ModelInfer(request, metadata=self.metadata, timeout=60)
        return v2_json(reply)

    def describe(self, model: str) -> dict[str, Any]:
        """What a model says of itself, over the management API's HTTP."""
        response = httpx.get(
            f"http://127.0.0.1:{self.ports['MANAGEMENT_PORT']}/models/{model}",
            params={"customized": "true"},
            headers={"Authorization": f"Bearer {self._management_token()}"},
            timeout=60,
        )
        assert response.status_code == 200, response.text
        return dict(response.json()[0])

    def describe_by_grpc(self, model: str) -> dict[str, Any]:
        """The same over its gRPC."""
        request = management_pb2.DescribeModelRequest(model_name=model, customized=True)
        bearer = ("authorization", f"Bearer {self._management_token()}")
        address = f"127.0.0.1:{self.ports['GRPC_MANAGEMENT_PORT']}"
        with grpc.insecure_channel(address) as channel:
            stub = management_pb2_grpc.ManagementAPIsServiceStub(channel)
            metadata = [("protocol", "gRPC"), bearer]
            reply = stub.DescribeModel(request, metadata=metadata, timeout=60)
        return dict(json.loads(reply.msg)[0])

    def log(self) -> list[dict[str, Any]]:
        """The lines of the server's log so far."""
        text = (self.run_dir / "logs" / "server.log").read_text()
        # The last line may be half written.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def deaths(self) -> int:
        """How often a worker ended so far, from TorchServe's own words."""
        change = "State change WORKER_MODEL_LOADED -> WORKER_STOPPED"
        return sum(change in line.get("message", "") for line in self.log())

    def metrics(self) -> dict[str, float]:
        """Every series that the metrics address tells, as ``name{labels}``."""
        text = httpx.get(f"http://127.0.0.1:{self.ports['METRICS_PORT']}/metrics").text
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def batches(self, model: str) -> int:
        """How many batches a model answered so far."""
        start = f'BatchSize_count{{ModelName="{model}"'
        found = [value for name, value in self.metrics().items() if name.startswith(start)]
        return int(sum(found))

    def _management_token(self) -> str:
        return run_script("serve.sh", "token", "management", **self.ports).strip()


#: The field of an Open Inference tensor's contents for each datatype.
_CONTENTS = {
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def infer_request(
    model: str, inputs: Sequence[Mapping[str, Any]], **more: Any
) -> oip.ModelInferRequest:
    """Input tensors as KServe v2's JSON has them -> the Open Inference gRPC request.

    Of a datatype that has no contents, as FP16, the elements stay away.
    """
    request = oip.ModelInferRequest(model_name=model, **more)
    for given in inputs:
        one = request.inputs.add(
            name=given["name"], datatype=given["datatype"], shape=given["shape"]
        )
        if field := _CONTENTS.get(given["datatype"]):
            data = [d.encode() if isinstance(d, str) else d for d in given["data"]]
            getattr(one.contents, field).extend(data)
    return request


def v2_json(reply: oip.ModelInferResponse) -> dict[str, Any]:
    """An Open Inference reply as KServe v2 has it in JSON."""
    outputs = []
    for one in reply.outputs:
        data = list(getattr(one.contents, _CONTENTS[one.datatype]))
        if one.datatype == "BYTES":
            # TorchServe sends each text as JSON, quotes included.
            data = [json.loads(text) for text in data]
        outputs.append(
            {"name": one.name, "datatype": one.datatype, "shape": list(one.shape), "data": data}
        )
    fields = {name: getattr(reply, name) for name in ("id", "model_name", "model_version")}
    return {**fields, "outputs": outputs}


def picture(image: dict[str, Any]) -> NDArray[np.uint8]:
    """An output of a reply -> (h, w, 3) RGB."""
    return decoded(image)


def heat(explanation: dict[str, Any]) -> NDArray[np.float32]:
    """A heatmap asked for with ``colormap`` bone -> (h, w), brighter where it is hotter."""
    brightness: NDArray[np.float32] = picture(explanation["heatmap"]).mean(axis=2, dtype=np.float32)
    return brightness


def peak_in_photo(reply: dict[str, Any], explanation: dict[str, Any]) -> tuple[float, float]:
    """The hottest place (x, y) in the photo's own pixels."""
    hot = heat(explanation)
    y, x = np.unravel_index(int(hot.argmax()), hot.shape)
    x0, y0, x1, y1 = reply["image"]["seen"]
    return x0 + (x + 0.5) * (x1 - x0) / hot.shape[1], y0 + (y + 0.5) * (y1 - y0) / hot.shape[0]
