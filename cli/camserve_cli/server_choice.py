"""The server that a command calls: one that is named, or the one that was started here."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from camserve_cli.errors import CommandError
from camserve_cli.serving.local_server import LocalServer
from camserve_client import AsyncClient, AsyncGrpcClient, Token


class ServerChoiceError(CommandError):
    """There is no such server to call."""

    exit_status = 2


@dataclass(frozen=True)
class ServerChoice:
    """The options of a command that name a server; None where one is not given.

    Attributes:
        url: of its HTTP.
        address: host:port of its gRPC.
        model: the model's name.
        token: by default that of the server started here.
        ca: a PEM file of the authorities to trust.
        timeout: of an attempt, in seconds.
    """

    url: str | None
    address: str | None
    model: str | None
    token: str | None
    ca: Path | None
    timeout: float


def server_here(choice: ServerChoice) -> LocalServer | None:
    """The server that was started here, if it runs and is the one that is chosen."""
    here = LocalServer.running()
    if here is None or (not choice.url and not choice.address):
        return here
    chosen = (choice.url or "").rstrip("/") == here.inference or choice.address == here.grpc
    return here if chosen else None


def open_client(choice: ServerChoice) -> AsyncClient | AsyncGrpcClient:
    """A client of the named server, or of the one that runs here.

    Raises:
        ServerChoiceError: there is no server to ask, no model, or no authority in ``ca``.
    """
    url, address, ca = choice.url, choice.address, choice.ca
    if url and address:
        raise ServerChoiceError("--url and --grpc are two ways to a server; use one")
    here = server_here(choice)
    if not url and not address:
        if here is None:
            raise ServerChoiceError(
                "no server is running; start one with camserve serve start, or name one with --url"
            )
        url = here.inference
    # Its token goes nowhere else.
    source: Token = choice.token or None
    model, trust, name = choice.model, None, None
    if here is not None:
        if not ca and here.authority:
            ca, trust, name = Path(here.authority), here.trust(), here.name
        model = model or here.models[0]
        source = source or here.token
    if not model:
        raise ServerChoiceError(
            "the server was not started here, so --model NAME is needed, and --token or "
            "CAMSERVE_TOKEN where it wants one"
        )
    try:
        if address:
            if ca:
                # gRPC would not say what is wrong with the file.
                ssl.create_default_context(cafile=ca)
            credentials = grpc.ssl_channel_credentials(ca.read_bytes()) if ca else None
            return AsyncGrpcClient(
                address,
                model,
                token=source,
                timeout=choice.timeout,
                credentials=credentials,
                server_name=name,
            )
        verify = trust or (ssl.create_default_context(cafile=ca) if ca else True)
        return AsyncClient(str(url), model, token=source, timeout=choice.timeout, verify=verify)
    except ValueError as wrong:
        raise ServerChoiceError(str(wrong)) from None
    except OSError as failure:
        raise ServerChoiceError(f"--ca {ca}: {failure.strerror or failure.args[-1]}") from None
