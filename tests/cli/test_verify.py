"""``camserve verify``, run as a person would, with a server, an archive and changed records."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from camserve_cli.records import (
    RecordError,
    differences,
    prediction_difference,
    read_records,
    request_options,
)
from camserve_client import Client as CamserveClient
from tests.support import color_resnet
from tests.support.scripts import CAMSERVE, COLOR_MODEL, run
from tests.support.server_client import Client

PHOTO = color_resnet.png(color_resnet.photo(("red", (90, 120), 80), ("blue", (270, 60), 40)))
OTHER = color_resnet.png(color_resnet.photo(("green", (90, 120), 80)))


Verify = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def reply(server: Client) -> dict[str, Any]:
    """A reply with three records, two of a class's maps and one of a contrast."""
    with CamserveClient(str(server.http.base_url), COLOR_MODEL, token=server.token) as client:
        targets = ["red", "blue", "red-blue"]
        return client.explain(PHOTO, target=targets, outputs=["boxes"], record=True).raw


@pytest.fixture
def verify(server: Client, tmp_path: Path) -> Verify:
    """Holds records against photo.png or other.png, on the server or where ``given`` says."""
    (tmp_path / "photo.png").write_bytes(PHOTO)
    (tmp_path / "other.png").write_bytes(OTHER)

    def call(
        content: object, photo: str = "photo.png", *given: str | Path
    ) -> subprocess.CompletedProcess[str]:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "record.json").write_text(text)
        given = given or ("--url", str(server.http.base_url), "--token", server.token)
        return run(CAMSERVE, "verify", "record.json", photo, *given, cwd=tmp_path, COLUMNS="300")

    return call


@pytest.fixture
def record(reply: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deepcopy(reply["explanations"][0]["record"])
    return found


def test_the_same_explanation_is_the_same(verify: Verify, reply: dict[str, Any]) -> None:
    done = verify(reply)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split(",")[0] for line in said] == [
        "same: red",
        "same: blue",
        "same: red rather than blue",
    ]


def test_records_are_found_in_lines_and_those_of_other_photos_are_passed_over(
    verify: Verify, reply: dict[str, Any], store: Path
) -> None:
    foreign = deepcopy(reply)
    for explanation in foreign["explanations"]:
        explanation["record"]["photo"]["sha256"] = "0" * 64
    lines = [{"photo": "a.png", "reply": foreign}, {"photo": "b.png", "reply": reply}]
    # The archive itself says the same as the server.
    done = verify("\n".join(map(json.dumps, lines)), "photo.png", "--store", store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same:") == 3


def test_another_photo_is_different(verify: Verify, record: dict[str, Any]) -> None:
    done = verify(record, "other.png")
    assert done.returncode == 3
    assert "is not the photo of the record" in done.stdout


def test_other_weights_are_different(verify: Verify, record: dict[str, Any]) -> None:
    record["model"]["weights_sha256"] = "0" * 64
    done = verify(record)
    assert done.returncode == 3
    assert "the weights' SHA-256" in done.stdout


def test_another_map_is_different(verify: Verify, record: dict[str, Any]) -> None:
    values = record["map"]["values"]
    # Beyond the tolerance of either precision.
    record["map"]["values"] = [1 - value for value in values]
    done = verify(record)
    assert done.returncode == 3
    assert "the map: it differs by" in done.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no record in it"),
        ('{"predictions": []}', "no record in it"),
        ('{"record_version": 2}', "a record of version 2; accepted: version 1"),
        ('{"record_version": 1}', "something is missing"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_file_without_a_record_fails(verify: Verify, content: str, said: str) -> None:
    done = verify(content)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_photo_or_a_record_that_is_not_there_fails(
    verify: Verify, record: dict[str, Any], tmp_path: Path
) -> None:
    done = verify(record, "missing.png")
    assert done.returncode == 1
    assert "missing.png: No such file" in done.stderr
    done = run(CAMSERVE, "verify", "none.json", "photo.png", cwd=tmp_path)
    assert done.returncode == 1
    assert "none.json: No such file" in done.stderr


def test_a_model_that_is_not_there_is_a_wrong_call(
    verify: Verify, record: dict[str, Any], store: Path
) -> None:
    done = verify(record, "photo.png", "--store", store, "--model", "none")
    assert done.returncode == 2
    assert "no archive 'none'; accepted: one of colours, efficientnet-lite0" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["photo"].update(seen=[0, 0, 1, 1]), "what the network sees"),
        (lambda r: r["model"].update(arch="vgg"), "the network: the record has vgg"),
        (lambda r: r["preprocess"].update(resize=256), "the preprocessing"),
        (lambda r: r["prediction"].update(label="dog"), "the class's name"),
        (lambda r: r["prediction"].update(probability=0.0), "the probability"),
        (lambda r: r["layers"][0].update(name="layer4.1"), "the layers"),
        (lambda r: r.update(method="layercam"), "the method"),
        (lambda r: r["prediction"].update(score=0.0), "the score"),
        (lambda r: r.update(peak=99.0), "the peak"),
        (lambda r: r["map_statistics"].update(gini=0.0), "the map's statistics"),
        (lambda r: r["photo"].update(width=1), "the photo's size"),
        (lambda r: r["model"].update(output="probabilities"), "the network's output"),
        (lambda r: r.update(evidence=False), "evidence"),
        (lambda r: r.update(map={"shape": [1, 1], "values": [1.0]}), "the map's shape"),
    ],
)
def test_every_difference_is_named(
    record: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    anew = deepcopy(record)
    assert differences(record, anew) == []
    change(record)
    (difference,) = differences(record, anew)
    assert said in difference


def test_the_coarser_precision_decides(record: dict[str, Any]) -> None:
    anew = deepcopy(record)
    record["precision"]["tolerance"], anew["precision"]["tolerance"] = 0.01, 0.15
    anew["map"]["values"][0] += 0.1
    assert differences(record, anew) == []
    anew["precision"]["tolerance"] = 0.01
    assert "the map: it differs by 0.1, and 0.01 is within rounding" in differences(record, anew)


def test_a_condition_or_a_limit_of_the_first_request_is_not_asked_for_again(
    record: dict[str, Any],
) -> None:
    record["options"] |= {"explain_when": "probability<0.1", "faithfulness": ["road"]}
    options = request_options(record)
    assert options["target"] == "0"
    # The operator's own condition may not hold.
    assert options["explain_when"] == "probability>=0"
    assert "faithfulness" not in options
    assert options["record"] is True


def test_nan_is_no_json(tmp_path: Path, record: dict[str, Any]) -> None:
    record["map"]["values"][0] = float("nan")
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(RecordError, match="no JSON"):
        read_records(tmp_path / "record.json")


def test_a_records_own_tolerance_is_bounded(record: dict[str, Any]) -> None:
    anew = deepcopy(record)
    record["precision"]["tolerance"] = 9
    record["map"]["values"][0] += 0.2
    assert "0.15 is within rounding" in differences(record, anew)[0]


def test_another_predicted_class_is_a_difference_where_the_record_says_so(
    record: dict[str, Any],
) -> None:
    best = {"class_id": 3, "label": "yellow"}
    assert prediction_difference(record, best) == []
    record["target_kind"] = "predicted"
    (difference,) = prediction_difference(record, best)
    assert difference == "the predicted class: the record has red, now it is yellow"
    record["model"]["task"] = "multilabel"
    assert prediction_difference(record, best) == []


def test_records_are_found_in_a_reply_of_kserve_v2(tmp_path: Path, record: dict[str, Any]) -> None:
    tensor = {"name": "record", "datatype": "BYTES", "shape": [2], "data": [json.dumps(record), ""]}
    (tmp_path / "v2.json").write_text(json.dumps({"model_name": "m", "outputs": [tensor]}))
    assert read_records(tmp_path / "v2.json") == [record]


def test_a_model_without_the_records_layer_is_different(
    verify: Verify, record: dict[str, Any]
) -> None:
    record["options"]["layer"] = ["layer1.0"]
    done = verify(record)
    assert done.returncode == 3
    assert "the model refuses what the record asks for" in done.stdout


def test_a_record_with_values_of_another_kind_is_refused(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    changes: list[dict[str, Any]] = [
        {"map": {"shape": [2], "values": []}},
        {"photo": None},
        {"precision": {}},
        {"model": {**record["model"], "name": None}},
        {"prediction": {**record["prediction"], "class_id": "top:2"}},
    ]
    for change in changes:
        (tmp_path / "record.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(RecordError, match="something is missing"):
            read_records(tmp_path / "record.json")
