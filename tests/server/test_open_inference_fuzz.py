"""A few hundred broken requests to the Open Inference front, over HTTP and gRPC, valid ones too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from devtools.fuzzing.process_memory import MemorySampler
from devtools.fuzzing.results import FuzzResults
from devtools.fuzzing.server_target import ServerTarget
from devtools.fuzzing.traffic import send_calls
from tests.support.open_inference import front_before
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

SEED, REQUESTS = 6, 400


def test_every_answer_is_correct_and_nothing_ends(server: Client, tmp_path: Path) -> None:
    target = ServerTarget.from_run_dir(
        server.run_dir, server.token, COLOR_MODEL, predicts_color=True
    )
    results, sampler = FuzzResults(SEED, tmp_path), MemorySampler(target.pid)
    with front_before(server.ports, server.token, tmp_path) as front:
        base = str(front.http.base_url).rstrip("/")
        target = replace(target, base=base, grpc=front.address, is_front=True)
        send_calls(
            target,
            results,
            connections=6,
            indices=range(REQUESTS),
            on_interval=sampler.sample,
        )
    sampler.sample()
    assert results.sent == REQUESTS
    assert results.findings == []
    assert results.problems == 0
    assert sampler.worker_deaths == 0
    assert results.valid_answered > REQUESTS / 6
    assert len(results.kinds) == 8
    # The front has no defect that its log would tell of.
    lines = [json.loads(line) for line in (tmp_path / "front.log").read_text().splitlines()]
    assert {line["level"] for line in lines} == {"INFO"}
