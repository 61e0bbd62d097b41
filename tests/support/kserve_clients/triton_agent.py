"""Triton's client in its own environment: HTTP and gRPC, each synchronous and with asyncio."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from tests.support.kserve_clients import agent, calls

Asked = Mapping[str, Any]


class Agent:
    """Clients of any address, by transport: ``http``, ``http aio``, ``grpc`` or ``grpc aio``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._clients: dict[tuple[str, str, str], Any] = {}

    def call(self, do: str, transport: str, url: str, authority: str = "", **asked: Any) -> Any:
        """One call.

        Args:
            do: ``infer``, ``together`` (several at a time), or ``method``.
            transport: of the client.
            url: host and port.
            authority: the file of certificates that are trusted; empty without TLS.
            asked: of the method of that name.
        """
        client = self._client(transport, url, authority)
        result = getattr(self, f"_{do}")(client, transport, **asked)
        return self._loop.run_until_complete(result) if asyncio.iscoroutine(result) else result

    def _client(self, transport: str, url: str, authority: str) -> Any:
        key = (transport, url, authority)
        if key not in self._clients:
            if transport.endswith("aio"):
                self._clients[key] = self._loop.run_until_complete(_open_aio(*key))
            else:
                self._clients[key] = _open(*key)
        return self._clients[key]

    def _method(
        self, client: Any, transport: str, name: str, arguments: Sequence[Any], token: str
    ) -> Any:
        """A method that is no inference: health, metadata."""
        as_json = {"as_json": True} if "grpc" in transport and "metadata" in name else {}
        return getattr(client, name)(*arguments, headers=_headers(token), **as_json)

    def _infer(self, client: Any, transport: str, **asked: Any) -> Any:
        arguments = _arguments(transport, asked)
        result = client.infer(**arguments)
        if transport.endswith("aio"):
            result = self._loop.run_until_complete(result)
        # The client may write to the dictionary that it gets.
        return _told(result, transport) | {"headers": arguments["headers"]}

    def _together(self, client: Any, transport: str, requests: Sequence[Asked]) -> Any:
        """Requests that are sent at the same time; their replies in order."""
        asked = [_arguments(transport, one) for one in requests]
        if transport.endswith("aio"):
            return _gathered([client.infer(**one) for one in asked], transport)
        if transport == "http":
            started = [client.async_infer(**one) for one in asked]
            return [_told(one.get_result(), transport) for one in started]
        results: list[Any] = [None] * len(asked)

        def note(place: int, result: Any, error: Any) -> None:
            results[place] = error or result

        contexts = [
            client.async_infer(callback=partial(note, place), **one)
            for place, one in enumerate(asked)
        ]
        while any(result is None for result in results):
            time.sleep(0.01)
        # They would cancel their calls.
        del contexts
        return [_told(one, transport) for one in results]


async def _open_aio(transport: str, url: str, authority: str) -> Any:
    if transport == "grpc aio":
        return grpc_aio.InferenceServerClient(
            url, ssl=bool(authority), root_certificates=authority or None
        )
    context = ssl.create_default_context(cafile=authority) if authority else None
    return http_aio.InferenceServerClient(url, ssl=bool(authority), ssl_context=context)


def _open(transport: str, url: str, authority: str) -> Any:
    if transport == "grpc":
        return grpc_client.InferenceServerClient(
            url, ssl=bool(authority), root_certificates=authority or None
        )
    return http_client.InferenceServerClient(
        url, concurrency=64, ssl=bool(authority), ssl_options={"ca_certs": authority or None}
    )


def _headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _arguments(transport: str, asked: Asked) -> dict[str, Any]:
    """The arguments of ``infer``."""
    is_http = transport.startswith("http")
    module = http_client if is_http else grpc_client
    more = {
        name: value
        for name, value in asked.items()
        if name not in ("inputs", "outputs", "token", "in_json", "compression")
    }
    if compression := asked.get("compression"):
        names = (
            ("request_compression_algorithm", "response_compression_algorithm")
            if is_http
            else ("compression_algorithm",)
        )
        more |= dict.fromkeys(names, compression)
    inputs = [_input(module, one, is_http and asked.get("in_json")) for one in asked["inputs"]]
    outputs = [module.InferRequestedOutput(**one) for one in asked.get("outputs", [])]
    return {"inputs": inputs, "outputs": outputs, "headers": _headers(asked["token"]), **more}


def _input(module: Any, tensor: Asked, in_json: Any) -> Any:
    array, claimed = calls.unpack(tensor), tensor["claimed"]
    made = module.InferInput(tensor["name"], list(array.shape), tensor["datatype"])
    if in_json:
        if tensor.get("base64_in_json"):
            array[:] = [base64.b64encode(photo) for photo in array]
        made.set_data_from_numpy(array, binary_data=False)
    else:
        made.set_data_from_numpy(array)
    return made.set_shape(claimed["shape"]) if "shape" in claimed else made


async def _gathered(results: Sequence[Any], transport: str) -> list[dict[str, Any]]:
    return [_told(one, transport) for one in await asyncio.gather(*results)]


def _told(result: Any, transport: str) -> dict[str, Any]:
    """A reply as KServe v2 has it in JSON, and which of its tensors stood behind the JSON."""
    if isinstance(result, Exception):
        raise result
    response = result.get_response()
    if transport.startswith("grpc"):
        outputs = [
            calls.output(one.name, one.datatype, result.as_numpy(one.name))
            for one in response.outputs
        ]
        names = ("id", "model_name", "model_version")
        return {name: getattr(response, name) for name in names} | {"outputs": outputs}
    outputs = [
        calls.output(one["name"], one["datatype"], result.as_numpy(one["name"]))
        for one in response["outputs"]
    ]
    binary = [one["name"] for one in response["outputs"] if "data" not in one]
    return {**response, "outputs": outputs, "binary": binary}


def _describe(failure: Exception) -> dict[str, str]:
    if isinstance(failure, InferenceServerException):
        message, status = str(failure.message()), str(failure.status() or "")
    else:
        message, status = str(failure), ""
    return {"kind": type(failure).__name__, "message": message, "status": status}


if __name__ == "__main__":
    agent.serve(Agent().call, _describe)
