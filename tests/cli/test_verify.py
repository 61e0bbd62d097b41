"""``camserve verify``, run as a person would, with a packaged archive and with changed records."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from camserve_cli.engines.engine import Question
from camserve_cli.engines.opening import open_engine
from camserve_cli.records import (
    RecordError,
    differences,
    prediction_difference,
    read_records,
    request_options,
)
from tests.support import color_resnet
from tests.support.color_resnet import NARROW
from tests.support.scripts import CAMSERVE, camserve, run

PHOTO = color_resnet.png(color_resnet.photo(("red", (90, 120), 80), ("blue", (270, 60), 40)))
OTHER = color_resnet.png(color_resnet.photo(("green", (90, 120), 80)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two archives whose weights differ, and photos."""
    folder = tmp_path_factory.mktemp("verify")
    weights, labels = color_resnet.write_archive_inputs(folder, **NARROW)
    changed = load_file(weights)
    changed["fc.weight"] = changed["fc.weight"] * 1.01
    save_file(changed, folder / "changed.safetensors")
    arch = ("--arch", "resnet50", "--arch-kwargs", json.dumps(NARROW), "--labels", labels)
    for name, given in (("colours", weights), ("changed", folder / "changed.safetensors")):
        camserve("package", *arch, "--name", name, "--weights", given, "--store", folder / "store")
    (folder / "photo.png").write_bytes(PHOTO)
    (folder / "other.png").write_bytes(OTHER)
    return folder


@pytest.fixture(scope="module")
def reply(folder: Path) -> dict[str, Any]:
    """A reply with three records, two of a layer's maps and one of a contrast."""
    options = {"target": ["red", "blue", "red-blue"], "outputs": ["boxes"], "record": True}
    with open_engine(None, folder / "store", "colours") as engine:
        (answer,) = engine.ask([Question(PHOTO, options)])
    return answer


@pytest.fixture
def record(reply: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deepcopy(reply["explanations"][0]["record"])
    return found


def verify(
    folder: Path, content: object, photo: str = "photo.png", *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "record.json").write_text(text)
    given = (folder / "record.json", folder / photo, "--store", folder / "store")
    return run(CAMSERVE, "verify", *given, *arguments, cwd=folder, COLUMNS="300")


def test_the_same_explanation_is_the_same(folder: Path, reply: dict[str, Any]) -> None:
    done = verify(folder, reply)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split(",")[0] for line in said] == [
        "same: red",
        "same: blue",
        "same: red rather than blue",
    ]


def test_records_are_found_in_lines_and_those_of_other_photos_are_passed_over(
    folder: Path, reply: dict[str, Any]
) -> None:
    foreign = deepcopy(reply)
    for explanation in foreign["explanations"]:
        explanation["record"]["photo"]["sha256"] = "0" * 64
    lines = [{"photo": "a.png", "reply": foreign}, {"photo": "b.png", "reply": reply}]
    done = verify(folder, "\n".join(map(json.dumps, lines)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same:") == 3


def test_another_photo_is_different(folder: Path, record: dict[str, Any]) -> None:
    done = verify(folder, record, "other.png")
    assert done.returncode == 3
    assert "is not the photo of the record" in done.stdout


def test_other_weights_are_different(folder: Path, record: dict[str, Any]) -> None:
    done = verify(folder, record, "photo.png", "--model", "changed")
    assert done.returncode == 3
    assert "the weights' SHA-256" in done.stdout


def test_another_map_is_different(folder: Path, record: dict[str, Any]) -> None:
    values = record["map"]["values"]
    # Beyond the tolerance of either precision.
    record["map"]["values"] = [1 - value for value in values]
    done = verify(folder, record)
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
def test_a_file_without_a_record_fails(folder: Path, content: str, said: str) -> None:
    done = verify(folder, content)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_photo_or_a_record_that_is_not_there_fails(folder: Path, record: dict[str, Any]) -> None:
    done = verify(folder, record, "missing.png")
    assert done.returncode == 1
    assert "missing.png: No such file" in done.stderr
    done = run(CAMSERVE, "verify", folder / "none.json", folder / "photo.png")
    assert done.returncode == 1
    assert "none.json: No such file" in done.stderr


def test_a_model_that_is_not_there_is_a_wrong_call(folder: Path, record: dict[str, Any]) -> None:
    done = verify(folder, record, "photo.png", "--model", "none")
    assert done.returncode == 2
    assert "no archive 'none'; accepted: one of changed, colours" in done.stderr


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
    folder: Path, record: dict[str, Any]
) -> None:
    record["options"]["layer"] = ["layer1.0"]
    done = verify(folder, record)
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
