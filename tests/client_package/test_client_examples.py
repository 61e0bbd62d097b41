"""The examples in the docstrings of the client run, against the stub server."""

from __future__ import annotations

import asyncio
import base64
import doctest
import inspect
import textwrap
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import camserve_client
from camserve_client import Reply
from tests.support.stub_server import CLIENTS, PREDICTION, REJECTED, REPLY, Answer, StubServer


def overlay() -> dict[str, Any]:
    file = BytesIO()
    Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(file, "JPEG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"b64": data, "media_type": "image/jpeg", "width": 224, "height": 224}


EXPLAINED = {
    **REPLY,
    "explanations": [
        {
            **PREDICTION,
            "method": "gradcam",
            "layer": "layer4.2",
            "evidence": True,
            "peak": 0.41,
            "overlay": overlay(),
            "map": {"shape": [7, 7], "values": [0.5] * 49},
            "boxes": [{"box": [10, 20.5, 30, 40], "share": 0.8}],
        }
    ],
}
OBJECTS = [getattr(camserve_client, name) for name in camserve_client.__all__]
DOCUMENTED = [one for one in OBJECTS if inspect.isclass(one) and ">>>" in (one.__doc__ or "")]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What an example can use: the package's names, with clients of the stub server."""
    monkeypatch.chdir(tmp_path)
    for photo in ("cat.jpg", "dog.jpg"):
        Path(photo).write_bytes(b"photo")
    stub = StubServer([Answer(body=EXPLAINED)])

    def client_of_stub(kind: str, place: dict[str, Any]) -> Callable[..., Any]:
        return lambda address, model, **settings: CLIENTS[kind](model=model, **place, **settings)

    with stub.served("http") as over_http, stub.served("grpc") as over_grpc:
        yield {
            **{name: getattr(camserve_client, name) for name in camserve_client.__all__},
            "Client": client_of_stub("http", over_http),
            "AsyncClient": client_of_stub("http async", over_http),
            "GrpcClient": client_of_stub("grpc", over_grpc),
            "AsyncGrpcClient": client_of_stub("grpc async", over_grpc),
            "asyncio": asyncio,
            "read_token": lambda: "secret",
            "token": "secret",
            "reply": Reply.from_json(EXPLAINED),
            "stub": stub,
        }


def test_the_clients_and_the_reply_have_examples() -> None:
    documented = {one.__name__ for one in DOCUMENTED}
    assert {client.__name__ for client in CLIENTS.values()} | {"Reply", "Picture"} <= documented


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda one: one.__name__)
def test_the_example_in_a_docstring_runs(documented: Any, names: dict[str, Any]) -> None:
    if documented is camserve_client.StatusError:
        names["stub"].answers = [REJECTED]
    (test,) = doctest.DocTestFinder(recurse=False).find(documented, globs=names)
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert "".join(report) == ""


def test_the_example_of_the_package_runs(
    names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (camserve_client.__doc__ or "").splitlines()
    example = "\n".join(line for line in lines if line.startswith("    "))
    exec(textwrap.dedent(example), names)  # noqa: S102  # our own docstring
    assert capsys.readouterr().out == "tabby\n"
    assert Path("cat-tabby.jpg").read_bytes().startswith(b"\xff\xd8")
