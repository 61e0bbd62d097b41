"""Where a batch's time goes: each stage's, and all of them to the server's metrics."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import yaml

from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from camserve.runtime import stage_timer
from camserve.runtime.stage_timer import STAGES, StageTimer
from tests.support import color_resnet, request_builders

METRICS = Path(__file__).parents[3] / "metrics.yaml"
PHOTO = color_resnet.png(color_resnet.photo(("red", (90, 120), 40)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next readings of the clock are."""
    readings: list[float] = []
    monkeypatch.setattr(stage_timer, "perf_counter", lambda: readings.pop(0))
    return readings


def test_a_stopwatch_starts_at_zero() -> None:
    watch = StageTimer()
    assert list(watch.seconds) == list(STAGES)
    assert set(watch.seconds.values()) == {0.0}


def test_what_is_done_within_a_stage_counts_to_it(clock: list[float]) -> None:
    watch, other = StageTimer(), StageTimer()
    clock += [1.0, 3.5, 10.0, 10.25, 20.0, 21.0]
    with watch.stage("decode"):
        assert clock == [3.5, 10.0, 10.25, 20.0, 21.0]
    with watch.stage("decode"):
        pass
    with watch.stage("write"):
        pass
    assert watch.seconds == {
        "read": 0, "decode": 2.75, "forward": 0, "backward": 0, "draw": 0, "write": 1,
    }  # fmt: skip
    assert set(other.seconds.values()) == {0.0}


def test_a_stage_that_fails_counts_too(clock: list[float]) -> None:
    watch = StageTimer()
    clock += [1.0, 1.5]
    with pytest.raises(ZeroDivisionError), watch.stage("draw"):
        raise ZeroDivisionError
    assert watch.seconds["draw"] == 0.5


def test_a_return_from_within_a_stage_counts(clock: list[float]) -> None:
    watch = StageTimer()
    clock += [0.0, 0.25]

    def written() -> str:
        with watch.stage("write"):
            return "reply"

    assert written() == "reply"
    assert watch.seconds["write"] == 0.25


def test_there_is_no_stage_of_another_name(clock: list[float]) -> None:
    clock += [0.0, 1.0]
    with pytest.raises(KeyError), StageTimer().stage("decoding"):
        pass


# A batch


@pytest.fixture(scope="module")
def colours(load: Callable[..., Pipeline]) -> Pipeline:
    """With a layer beside the default one, to which photos go another way."""
    return load(layers=["layer4.1"], preprocess={"resize": 64, "crop": 64})


@pytest.mark.parametrize(
    "asked",
    [
        [request_builders.form(PHOTO)] * 3,
        [
            request_builders.form(PHOTO),
            request_builders.form(b"no photo"),
            request_builders.jsoned(PHOTO, explain=False),
        ],
        [request_builders.v1(PHOTO, PHOTO), request_builders.v2(PHOTO)],
        [request_builders.form(PHOTO, layer="layer4.1"), request_builders.form(PHOTO)],
    ],
)
def test_every_stage_of_a_batch_is_timed_and_none_twice(
    asked: list[IncomingRequest], colours: Pipeline
) -> None:
    start = perf_counter()
    batch = colours.preprocess(asked)
    until = {name for name, seconds in batch.timer.seconds.items() if seconds}
    assert until == {"read", "decode"}
    scored = colours.inference(batch)
    until = {name for name, seconds in batch.timer.seconds.items() if seconds}
    assert until == {"read", "decode", "forward"}
    colours.postprocess(scored)
    whole = perf_counter() - start
    assert list(batch.timer.seconds) == list(STAGES)
    assert all(seconds > 0 for seconds in batch.timer.seconds.values())
    assert sum(batch.timer.seconds.values()) <= whole


def test_batches_that_overlap_have_a_time_each(colours: Pipeline) -> None:
    first, second = (colours.preprocess([request_builders.form(PHOTO)]) for _ in range(2))
    scored = colours.inference(first)
    assert second.timer.seconds["forward"] == 0
    colours.postprocess(scored)
    assert second.timer.seconds["draw"] == 0


def test_an_empty_batch_is_timed_too(colours: Pipeline) -> None:
    batch = colours.preprocess([])
    assert colours.postprocess(colours.inference(batch)) == []
    assert list(batch.timer.seconds) == list(STAGES)


# The server's metrics


@pytest.fixture(scope="module")
def service(make_archive: Callable[..., tuple[dict[str, Any], Path]]) -> Any:
    """An archive as TorchServe's own loader loads it, with this project's metrics."""
    import ts.model_loader
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    _, directory = make_archive(preprocess={"resize": 64, "crop": 64})
    model = {
        "modelName": "colours", "modelVersion": "2.1", "handler": "gradcam_handler.py",
        "configFile": "model-config.yaml",
    }  # fmt: skip
    (directory / "MAR-INF").mkdir()
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": model}))
    metrics = MetricsCacheYamlImpl(str(METRICS))
    metrics.initialize_cache()
    return ts.model_loader.TsModelLoader().load(
        "colours", str(directory), "gradcam_handler.py", None, 8, None, True, metrics
    )


# TorchServe reads its version and the metrics' configuration without closing the files.
quiet = pytest.mark.filterwarnings(r"ignore:unclosed file .*(version\.txt|metrics\.yaml)")


def emitted(service: Any, caplog: pytest.LogCaptureFixture, *fields: dict[str, Any]) -> list[str]:
    """What the worker prints for the server when it answers these."""
    from ts.context import RequestProcessor

    service.context.request_processor = [RequestProcessor({}) for _ in fields]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        service._entry_point(list(fields), service.context)
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith("[METRICS]")]


LINE = re.compile(
    r"\[METRICS\](?P<name>\w+)\.(?P<unit>\w+):(?P<value>[\d.e-]+)"
    r"\|#ModelName:(?P<model>\w+),(?:(?:Stage:(?P<stage>\w+)|[\w:,]+),)?Level:Model\|(?P<type>#type:\w+)?"
)


@quiet
@pytest.mark.parametrize("photos", [1, 3])
def test_every_stage_of_a_batch_is_a_metric_of_the_server(
    photos: int, service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [LINE.match(line) for line in emitted(service, caplog, *[{"data": PHOTO}] * photos)]
    found = [line.groupdict() for line in lines if line is not None]
    assert len(found) == len(lines), lines
    spent = {one["stage"]: float(one["value"]) for one in found if one["name"] == "StageTime"}
    (whole,) = (one for one in found if one["name"] == "HandlerTime")
    # Once a batch, however many photos are in it.
    assert [one["stage"] for one in found if one["name"] == "StageTime"] == list(STAGES)
    assert {one["model"] for one in found if one["name"] == "StageTime"} == {"colours"}
    assert {one["unit"] for one in found if one["name"] == "StageTime"} == {"Seconds"}
    assert sum(spent.values()) <= float(whole["value"]) / 1000 + 1e-6
    assert spent["forward"] > 0


@quiet
def test_no_metric_is_unknown_to_the_server(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    known = {
        (metric["name"], kind): metric["dimensions"]
        for kind, metrics in yaml.safe_load(METRICS.read_text())["model_metrics"].items()
        for metric in metrics
    }
    assert known["StageTime", "histogram"] == ["ModelName", "Stage", "Level"]
    assert known["HandlerTime", "gauge"] == ["ModelName", "Level"]
    lines = emitted(service, caplog, {"data": PHOTO})
    assert {line.split("]")[1].split(".")[0] for line in lines} <= {name for name, _ in known}


@quiet
def test_a_batch_without_a_photo_is_measured_all_the_same(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = emitted(service, caplog, {"data": b"no photo"})
    assert sum("StageTime" in line for line in lines) == len(STAGES)
