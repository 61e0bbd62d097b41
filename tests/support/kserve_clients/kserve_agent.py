"""KServe's client in its own environment: v1, v2 in JSON and binary, gRPC typed and raw."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import httpx
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
)
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

from tests.support.kserve_clients import agent, calls

Asked = Mapping[str, Any]


class Agent:
    """Clients by transport: ``v1``, ``v2 json``, ``v2 binary``, ``grpc typed``, ``grpc raw``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._clients: dict[tuple[str, str, str], Any] = {}

    def call(self, do: str, transport: str, url: str, authority: str = "", **asked: Any) -> Any:
        """One call.

        Args:
            do: ``infer``, ``together`` (several at a time), ``v1`` or ``method``.
            transport: of the client.
            url: the base URL over HTTP, host and port over gRPC.
            authority: the file of certificates that are trusted; empty without TLS.
            asked: of the method of that name.
        """
        coroutine = self._call(do, transport, url, authority, asked)
        return self._loop.run_until_complete(coroutine)

    async def _call(self, do: str, transport: str, url: str, authority: str, asked: Asked) -> Any:
        key = (transport, url, authority)
        if key not in self._clients:
            self._clients[key] = _open(*key)
        method = getattr(self, f"_{do}")
        return await method(self._clients[key], transport, url, **asked)

    async def _method(
        self,
        client: Any,
        transport: str,
        url: str,
        name: str,
        arguments: Sequence[Any],
        token: str,
    ) -> Any:
        """A method that is no inference."""
        where = () if transport.startswith("grpc") else (url,)
        headers = _headers(transport, token)
        return await getattr(client, name)(*where, *arguments, headers=headers)

    async def _v1(
        self, client: Any, transport: str, url: str, verb: str, model: str, body: Any, token: str
    ) -> Any:
        """``infer`` or ``explain`` with a body of v1."""
        arguments = {"model_name": model, "data": body, "headers": _headers(transport, token)}
        return await getattr(client, verb)(url, **arguments)

    async def _infer(self, client: Any, transport: str, url: str, **asked: Any) -> Any:
        request, headers = _request(transport, asked), _headers(transport, asked["token"])
        if transport.startswith("grpc"):
            return _told(await client.infer(request, headers=headers))
        answered: dict[str, str] = {}
        reply = await client.infer(
            url,
            request,
            model_name=asked["model_name"],
            headers=headers,
            response_headers=answered,
        )
        # The client may write to the dictionary that it gets.
        return _told(reply) | {"content_type": answered["content-type"], "headers": headers}

    async def _together(
        self, client: Any, transport: str, url: str, requests: Sequence[Asked]
    ) -> Any:
        """Requests that are sent at the same time; their replies in order."""
        sent = [self._infer(client, transport, url, **one) for one in requests]
        return await asyncio.gather(*sent)


def _open(transport: str, url: str, authority: str) -> Any:
    if transport.startswith("grpc"):
        return InferenceGRPCClient(
            url, use_ssl=bool(authority), root_certificates=authority or None
        )
    trust = ssl.create_default_context(cafile=authority) if authority else True
    return InferenceRESTClient(RESTConfig(protocol=transport.split()[0], verify=trust))


def _headers(transport: str, token: str) -> Any:
    name, value = "authorization", f"Bearer {token}"
    if transport.startswith("grpc"):
        return [(name, value)] if token else []
    return {name: value} if token else {}


def _request(transport: str, asked: Asked) -> Any:
    parameters = dict(asked.get("parameters", {}))
    if transport == "v2 binary" and "outputs" not in asked:
        parameters["binary_data_output"] = True
    return InferRequest(
        model_name=asked["model_name"],
        infer_inputs=[_input(transport, one) for one in asked["inputs"]],
        request_id=asked.get("request_id"),
        parameters=parameters or None,
        request_outputs=[
            RequestedOutput(one["name"], one.get("parameters")) for one in asked.get("outputs", [])
        ],
        model_version=asked.get("model_version"),
    )


def _input(transport: str, tensor: Asked) -> Any:
    array, claimed = calls.unpack(tensor), tensor["claimed"]
    made = InferInput(tensor["name"], list(array.shape), tensor["datatype"])
    if transport in ("v2 binary", "grpc raw"):
        made.set_data_from_numpy(array, binary_data=True)
    else:
        made.data = _elements(transport, tensor, array)
    if "shape" in claimed:
        made.shape = claimed["shape"]
    if "parameters" in claimed:
        made.parameters = {**(made.parameters or {}), **claimed["parameters"]}
    return made


def _elements(transport: str, tensor: Asked, array: NDArray[Any]) -> list[Any]:
    """A tensor's elements, as they stand in JSON or in typed contents."""
    flat: list[Any] = array.ravel().tolist()
    if array.dtype != object or transport == "grpc typed":
        return flat
    if tensor.get("base64_in_json"):
        return [base64.b64encode(one).decode() for one in flat]
    return [one.decode() for one in flat]


def _told(reply: InferResponse) -> dict[str, Any]:
    """A reply as KServe v2 has it in JSON."""
    outputs: list[InferOutput] = reply.outputs
    return {
        "id": reply.id,
        "model_name": reply.model_name,
        "model_version": reply.model_version,
        "outputs": [calls.output(one.name, one.datatype, one.as_numpy()) for one in outputs],
    }


def _describe(failure: Exception) -> dict[str, str]:
    message, status = str(failure), ""
    if isinstance(failure, grpc.RpcError):
        message, status = failure.details(), failure.code().name
    elif isinstance(failure, httpx.HTTPStatusError):
        status = str(failure.response.status_code)
    return {"kind": type(failure).__name__, "message": message, "status": status}


if __name__ == "__main__":
    agent.serve(Agent().call, _describe)
