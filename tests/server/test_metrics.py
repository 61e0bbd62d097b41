"""What a real server tells of itself in Prometheus' form."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, get_args

import httpx
import pytest
import yaml

from camserve.errors import HTTP_STATUS
from camserve.explain.targets import TargetKind
from camserve.metrics import BUCKETS, _bound_text
from camserve.options import Method
from camserve.request_log import NO_ERROR, Outcome
from camserve.runtime.stage_timer import STAGES
from tests.support import color_resnet
from tests.support.request_builders import b64
from tests.support.scripts import COLOR_MODEL, ROOT
from tests.support.server_client import Client

SIZE = 320, 240
PHOTO = color_resnet.png(
    color_resnet.photo(("cyan", (160, 120), 60), width=SIZE[0], height=SIZE[1])
)
PATH = f"/predictions/{COLOR_MODEL}"


def growth(server: Client, call: Callable[[], Any], batches: int = 1) -> dict[str, float]:
    """By how much each series of the model grows when a call is made, without fixed labels."""

    def series() -> dict[str, float]:
        found = {}
        for name, value in server.metrics().items():
            if f'ModelName="{COLOR_MODEL}"' in name:
                fixed = r'(ModelName|Level|Hostname)="[^"]*",?'
                found[re.sub(fixed, "", name).replace(",}", "}").replace("{}", "")] = value
        return found

    before, already = series(), server.batches(COLOR_MODEL)
    call()
    # The server reads what the worker says of them after it has sent the replies.
    deadline = time.monotonic() + 10
    while server.batches(COLOR_MODEL) < already + batches and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    after = series()
    return {name: value - before.get(name, 0) for name, value in after.items()}


def test_torchserves_own_are_there(server: Client) -> None:
    server.predict(COLOR_MODEL, data=PHOTO)
    metrics = server.metrics()
    assert any(name.startswith("ts_inference_requests_total{model_name=") for name in metrics)
    assert any(name.startswith(f'HandlerTime{{ModelName="{COLOR_MODEL}"') for name in metrics)


def test_each_batch_counts_once_in_every_stage(server: Client) -> None:
    grown = growth(server, lambda: server.predict(COLOR_MODEL, data=PHOTO))
    assert {grown[f'StageTime_count{{Stage="{stage}"}}'] for stage in STAGES} == {1}
    assert all(0 < grown[f'StageTime_sum{{Stage="{stage}"}}'] < 60 for stage in STAGES)
    assert grown["BatchSize_count"] == grown["BatchSize_sum"] == 1


def test_requests_are_counted_by_how_they_ended(server: Client) -> None:
    def calls() -> None:
        server.http.post(PATH, content=PHOTO)
        server.http.post(PATH, content=b"no photo")
        server.http.post(f"{PATH}/1.0/alpha=7", content=PHOTO)
        server.predict(COLOR_MODEL, data=PHOTO, target=b"pink")
        body = {"instances": [b64(PHOTO), "eA=="]}
        server.http.post(f"/v1/models/{COLOR_MODEL}:predict", json=body)

    grown = growth(server, calls, batches=5)
    told = {name: value for name, value in grown.items() if name.startswith("Requests") and value}
    assert told == {
        'Requests{Outcome="answered",Code="none"}': 1,
        'Requests{Outcome="refused",Code="unsupported_format"}': 1,
        'Requests{Outcome="refused",Code="invalid_option"}': 1,
        'Requests{Outcome="refused",Code="unknown_class"}': 1,
        'Requests{Outcome="partly",Code="unsupported_format"}': 1,
    }


def test_explanations_and_photos_are_counted(server: Client) -> None:
    target = '["red-cyan", "magenta", "top:2"]'
    form = {"target": target, "method": "layercam", "outputs": "map"}
    grown = growth(server, lambda: server.http.post(PATH, files={"data": PHOTO}, data=form))
    told = {
        name: value for name, value in grown.items() if name.startswith("Explanations") and value
    }
    assert told == {
        f'Explanations{{Method="layercam",TargetKind="{kind}"}}': 1
        for kind in ("contrast", "class", "predicted", "ranked")
    }
    # Of magenta there is nothing in the photo.
    assert grown['MapsWithoutEvidence{Method="layercam"}'] >= 1
    assert grown["PhotoMegapixels_count"] == 1
    assert grown["PhotoMegapixels_sum"] == pytest.approx(SIZE[0] * SIZE[1] / 1e6, rel=1e-3)
    assert grown["PhotoMegabytes_sum"] == pytest.approx(len(PHOTO) / 1e6, rel=1e-3)


def camserve_series(server: Client) -> dict[str, float]:
    fixed = r'(ModelName|Level|Hostname)="[^"]*",?'
    return {
        re.sub(fixed, "", name).replace(",}", "}").replace("{}", ""): value
        for name, value in server.metrics().items()
        if name.startswith("camserve_") and f'ModelName="{COLOR_MODEL}"' in name
    }


def test_what_is_added_up_is_told_within_seconds(server: Client) -> None:
    form = {"target": '["cyan", "magenta"]', "method": "hirescam", "outputs": "map"}
    # What came before is told by then.
    time.sleep(2.5)
    before = camserve_series(server)
    assert server.http.post(PATH, files={"data": PHOTO}, data=form).status_code == 200
    assert server.http.post(PATH, content=b"no photo").status_code == 415
    wanted = 'camserve_requests_total{outcome="refused",code="unsupported_format"}'
    deadline = time.monotonic() + 10
    while camserve_series(server).get(wanted, 0) <= before.get(wanted, 0):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    after = camserve_series(server)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown[wanted] == 1
    assert grown['camserve_requests_total{outcome="answered",code="none"}'] == 1
    assert grown['camserve_explanations_total{method="hirescam",target_kind="class"}'] == 2
    # Of magenta there is nothing in the photo.
    assert grown['camserve_maps_without_evidence_total{method="hirescam"}'] >= 1
    pixels = SIZE[0] * SIZE[1]
    assert grown["camserve_photo_pixels_sum"] == pixels
    assert grown["camserve_photo_bytes_sum"] == len(PHOTO)
    assert grown["camserve_batch_photos_sum"] == 1
    for bound in ("100000.0", "12500000.0", "+Inf"):
        assert grown[f'camserve_photo_pixels_bucket{{le="{bound}"}}'] == 1
    batches = grown["camserve_batch_photos_count"]
    for stage in STAGES:
        assert grown[f'camserve_stage_seconds_count{{stage="{stage}"}}'] == batches
        assert grown[f'camserve_stage_seconds_bucket{{stage="{stage}",le="+Inf"}}'] == batches
        assert 0 < grown[f'camserve_stage_seconds_sum{{stage="{stage}"}}'] < 60


def test_help_texts_say_what_is_counted(server: Client) -> None:
    text = httpx.get(f"http://127.0.0.1:{server.ports['METRICS_PORT']}/metrics").text
    declared = yaml.safe_load((ROOT / "metrics.yaml").read_text())["model_metrics"]["counter"]
    for metric in (one for one in declared if one["name"].startswith("camserve_")):
        assert re.search(rf"(?m)^# HELP {metric['name']} .*: {metric['unit']}$", text)


def test_labels_are_of_bounded_sets(server: Client) -> None:
    server.http.post(f"{PATH}/1.0/target=nobody,nothing=7", content=PHOTO)
    values = {
        "Outcome": set(get_args(Outcome)),
        "Code": {NO_ERROR, *HTTP_STATUS},
        "Method": set(get_args(Method)),
        "TargetKind": set(get_args(TargetKind)),
        "Stage": set(STAGES),
    }
    values |= {
        "outcome": values["Outcome"],
        "code": values["Code"],
        "method": values["Method"],
        "target_kind": values["TargetKind"],
        "stage": values["Stage"],
        "le": {_bound_text(bound) for bounds in BUCKETS.values() for bound in bounds} | {"+Inf"},
    }
    declared = yaml.safe_load((ROOT / "metrics.yaml").read_text())["model_metrics"]
    ours = {one["name"]: one["dimensions"] for kind in declared.values() for one in kind}
    assert {label for labels in ours.values() for label in labels} <= {
        *values, "ModelName", "Level",
    }  # fmt: skip
    told: dict[str, set[str]] = {label: set() for label in values}
    for name in server.metrics():
        metric, _, labels = name.partition("{")
        histogram = re.sub("_(count|sum|bucket|total|created)$", "", metric)
        # TorchServe's own histograms have a label "le" that is not declared.
        known = ours.get(metric, ours.get(histogram, ()))
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            if label in known:
                told.get(label, set()).add(value)
    for label, bounded in values.items():
        assert told[label]
        assert told[label] <= bounded
