"""The time of each stage of a batch, and the server's metrics of it."""

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

from camserve.batch import Batch
from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from camserve.runtime import stage_timer
from camserve.runtime.stage_timer import STAGES, StageTimer
from tests.support import color_resnet, request_builders

METRICS = Path(__file__).parents[3] / "metrics.yaml"
PHOTO = color_resnet.png(color_resnet.photo(("red", (90, 120), 40)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The next readings of the clock."""
    readings: list[float] = []
    monkeypatch.setattr(stage_timer, "perf_counter", lambda: readings.pop(0))
    return readings


def test_a_timer_starts_at_zero() -> None:
    timer = StageTimer()
    assert list(timer.seconds) == list(STAGES)
    assert set(timer.seconds.values()) == {0.0}


def test_a_stage_adds_up_the_time_of_its_blocks(clock: list[float]) -> None:
    timer, other = StageTimer(), StageTimer()
    clock += [1.0, 3.5, 10.0, 10.25, 20.0, 21.0]
    with timer.stage("decode"):
        assert clock == [3.5, 10.0, 10.25, 20.0, 21.0]
    with timer.stage("decode"):
        pass
    with timer.stage("write"):
        pass
    assert timer.seconds == {
        "read": 0, "decode": 2.75, "forward": 0, "backward": 0, "draw": 0, "faithfulness": 0,
        "write": 1,
    }  # fmt: skip
    assert set(other.seconds.values()) == {0.0}


def test_a_block_that_fails_counts(clock: list[float]) -> None:
    timer = StageTimer()
    clock += [1.0, 1.5]
    with pytest.raises(ZeroDivisionError), timer.stage("draw"):
        raise ZeroDivisionError
    assert timer.seconds["draw"] == 0.5


def test_a_block_that_returns_counts(clock: list[float]) -> None:
    timer = StageTimer()
    clock += [0.0, 0.25]

    def write() -> str:
        with timer.stage("write"):
            return "reply"

    assert write() == "reply"
    assert timer.seconds["write"] == 0.25


def test_an_unknown_stage_is_an_error(clock: list[float]) -> None:
    clock += [0.0, 1.0]
    with pytest.raises(KeyError), StageTimer().stage("decoding"):
        pass


# A batch


@pytest.fixture(scope="module")
def color_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    """It serves a further layer, whose photos take another forward path."""
    return load(layers=["layer4.1"], preprocess={"resize": 64, "crop": 64})


def timed_stages(batch: Batch) -> set[str]:
    return {name for name, seconds in batch.timer.seconds.items() if seconds}


@pytest.mark.parametrize(
    "requests",
    [
        [request_builders.form(PHOTO)] * 3,
        [
            request_builders.form(PHOTO),
            request_builders.form(b"no photo"),
            request_builders.json_request(PHOTO, explain=False),
        ],
        [request_builders.v1(PHOTO, PHOTO), request_builders.v2(PHOTO)],
        [request_builders.form(PHOTO, layer="layer4.1"), request_builders.form(PHOTO)],
    ],
)
def test_every_stage_of_a_batch_is_timed_and_no_time_is_counted_twice(
    requests: list[IncomingRequest], color_pipeline: Pipeline
) -> None:
    start = perf_counter()
    batch = color_pipeline.preprocess(requests)
    assert timed_stages(batch) == {"read", "decode"}
    scored = color_pipeline.inference(batch)
    assert timed_stages(batch) == {"read", "decode", "forward"}
    color_pipeline.postprocess(scored)
    total = perf_counter() - start
    assert list(batch.timer.seconds) == list(STAGES)
    assert all(seconds > 0 for seconds in batch.timer.seconds.values())
    assert sum(batch.timer.seconds.values()) <= total


def test_batches_that_overlap_are_timed_separately(color_pipeline: Pipeline) -> None:
    first, second = (color_pipeline.preprocess([request_builders.form(PHOTO)]) for _ in range(2))
    scored = color_pipeline.inference(first)
    assert second.timer.seconds["forward"] == 0
    color_pipeline.postprocess(scored)
    assert second.timer.seconds["draw"] == 0


def test_an_empty_batch_has_a_time_of_each_stage(color_pipeline: Pipeline) -> None:
    batch = color_pipeline.preprocess([])
    assert color_pipeline.postprocess(color_pipeline.inference(batch)) == []
    assert list(batch.timer.seconds) == list(STAGES)


# The server's metrics


@pytest.fixture(scope="module")
def torchserve_service(make_archive: Callable[..., tuple[dict[str, Any], Path]]) -> Any:
    """An archive that TorchServe's own loader has loaded, with this project's metrics."""
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
    service = ts.model_loader.TsModelLoader().load(
        "colours", str(directory), "gradcam_handler.py", None, 8, None, True, metrics
    )
    # The tests themselves have written what is added up.
    service._entry_point.__self__.emission.stop()
    return service


# TorchServe does not close its version file and the metrics' configuration.
ignore_unclosed_files = pytest.mark.filterwarnings(
    r"ignore:unclosed file .*(version\.txt|metrics\.yaml)"
)


def metric_lines(
    service: Any, caplog: pytest.LogCaptureFixture, *fields: dict[str, Any]
) -> list[str]:
    """The metrics that the worker logs for the server when it answers requests."""
    from ts.context import RequestProcessor

    service.context.request_processor = [RequestProcessor({}) for _ in fields]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        service._entry_point(list(fields), service.context)
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith("[METRICS]")]


METRIC_LINE = re.compile(
    r"\[METRICS\](?P<name>\w+)\.(?P<unit>\w+):(?P<value>[\d.e-]+)"
    r"\|#ModelName:(?P<model>\w+),(?:(?:Stage:(?P<stage>\w+)|[\w:,]+),)?Level:Model\|(?P<type>#type:\w+)?"
)


@ignore_unclosed_files
@pytest.mark.parametrize("photos", [1, 3])
def test_every_stage_of_a_batch_is_a_metric(
    photos: int, torchserve_service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = metric_lines(torchserve_service, caplog, *[{"data": PHOTO}] * photos)
    matches = [METRIC_LINE.match(line) for line in lines]
    metrics = [match.groupdict() for match in matches if match is not None]
    assert len(metrics) == len(lines), lines
    stage_times = [metric for metric in metrics if metric["name"] == "StageTime"]
    (handler_time,) = (metric for metric in metrics if metric["name"] == "HandlerTime")
    # Once a batch, however many photos it has.
    assert [metric["stage"] for metric in stage_times] == list(STAGES)
    assert {metric["model"] for metric in stage_times} == {"colours"}
    assert {metric["unit"] for metric in stage_times} == {"Seconds"}
    seconds = {metric["stage"]: float(metric["value"]) for metric in stage_times}
    assert sum(seconds.values()) <= float(handler_time["value"]) / 1000 + 1e-6
    assert seconds["forward"] > 0


@ignore_unclosed_files
def test_every_metric_is_declared_in_metrics_yaml(
    torchserve_service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    declared = {
        (metric["name"], kind): metric["dimensions"]
        for kind, metrics in yaml.safe_load(METRICS.read_text())["model_metrics"].items()
        for metric in metrics
    }
    assert declared["StageTime", "histogram"] == ["ModelName", "Stage", "Level"]
    assert declared["HandlerTime", "gauge"] == ["ModelName", "Level"]
    lines = metric_lines(torchserve_service, caplog, {"data": PHOTO})
    assert {line.split("]")[1].split(".")[0] for line in lines} <= {name for name, _ in declared}
    service = torchserve_service
    with caplog.at_level(logging.INFO):
        service._entry_point.__self__._emit_totals(service.context.metrics)
    added_up = [line for line in caplog.messages if line.startswith("[METRICS]camserve_")]
    found = {line.split("]")[1].split(".")[0] for line in added_up}
    ours = {name for name, _ in declared if name.startswith("camserve_")}
    assert found == ours - {"camserve_maps_without_evidence_total"}
    # The unit, which the server writes as the help text, is that of metrics.yaml.
    assert any(".Answered photos in a batch counted:" in line for line in added_up)


@ignore_unclosed_files
def test_a_batch_without_a_valid_photo_is_measured(
    torchserve_service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = metric_lines(torchserve_service, caplog, {"data": b"no photo"})
    assert sum("StageTime" in line for line in lines) == len(STAGES)
