"""A multilabel archive, packaged and served: each photo has its own number of explanations."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from safetensors.torch import save_file

from tests.support import contract, task_network
from tests.support.color_resnet import png
from tests.support.contract import as_v2_has_it, assert_replies_close, inputs_of
from tests.support.fault_server import FaultServer, serving
from tests.support.scripts import camserve

MODEL = "colours-multilabel"
#: By photo, its predicted classes.
PHOTOS = {
    png(task_network.stripes("red", "green")): ["red", "green"],
    png(task_network.stripes("blue")): ["blue"],
    png(task_network.stripes("black")): ["red"],
}


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """A server of the network of three colours, which ends in a sigmoid."""
    folder = tmp_path_factory.mktemp("multilabel")
    weights, labels = folder / "weights.safetensors", folder / "labels.json"
    save_file(task_network.build().state_dict(), weights)
    labels.write_text(json.dumps(task_network.LABELS))
    settings = {
        "handler.task": "multilabel",
        "handler.output": "probabilities",
        "handler.preprocess.fit": "stretch",
        "handler.preprocess.crop": "64",
        "handler.preprocess.mean": "[0, 0, 0]",
        "handler.preprocess.std": "[1, 1, 1]",
    }
    camserve(
        "package", "--name", MODEL, "--store", folder / "store", "--layer", "cells",
        "--arch", f"{task_network.__file__}:build", "--arch-kwargs", '{"end": "sigmoid"}',
        "--weights", weights, "--labels", labels,
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    )  # fmt: skip
    archive = folder / "store" / f"{MODEL}.mar"
    with serving(folder, {MODEL: archive}, workers="1") as server:
        yield server


def post(server: FaultServer, path: str, **body: Any) -> Any:
    reply = httpx.post(f"{server.inference}{path}", headers=server.bearer(), timeout=60, **body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def labels(reply: dict[str, Any]) -> list[str]:
    return [explanation["label"] for explanation in reply["explanations"]]


def alone(server: FaultServer, photo: bytes) -> dict[str, Any]:
    reply = post(
        server, f"/predictions/{MODEL}", files={"data": photo}, data={"outputs": "heatmap,map"}
    )
    (outcome,) = contract.outcomes(reply, "plain")
    return outcome


@pytest.mark.parametrize(("photo", "predicted"), PHOTOS.items(), ids=map(str, PHOTOS.values()))
def test_every_predicted_class_is_explained(
    multilabel: FaultServer, photo: bytes, predicted: list[str]
) -> None:
    reply = alone(multilabel, photo)
    assert labels(reply) == predicted
    assert {one["label"] for one in reply["predictions"] if one["probability"] > 0.5} <= {
        *predicted
    }


def test_kserve_pads_the_rows_of_photos_with_fewer_predicted_classes(
    multilabel: FaultServer,
) -> None:
    tensors = inputs_of(
        [base64.b64encode(photo).decode() for photo in PHOTOS], outputs=["heatmap", "map"]
    )
    body = post(multilabel, f"/v2/models/{MODEL}/infer", json={"inputs": tensors})
    assert contract.arrays(body)["explained_label"].shape == (3, 2)
    found = contract.outcomes(body, "v2")
    assert [labels(reply) for reply in found] == [*PHOTOS.values()]
    for photo, reply in zip(PHOTOS, found, strict=True):
        assert_replies_close(reply, as_v2_has_it(alone(multilabel, photo)))


def test_kserve_v1_lists_the_explanations_of_each_instance(multilabel: FaultServer) -> None:
    instances = [{"image": {"b64": base64.b64encode(photo).decode()}} for photo in PHOTOS]
    body = post(multilabel, f"/v1/models/{MODEL}:explain", json={"instances": instances})
    found = contract.outcomes(body, "v1")
    assert [labels(reply) for reply in found] == [*PHOTOS.values()]


def test_the_self_description_says_what_the_scores_are(multilabel: FaultServer) -> None:
    (version,) = multilabel.manage("GET", f"/models/{MODEL}", customized="true").json()
    model = version["customizedMetadata"]["model"]
    assert (model["task"], model["output"], model["batching"]) == (
        "multilabel", "probabilities", "together"
    )  # fmt: skip
