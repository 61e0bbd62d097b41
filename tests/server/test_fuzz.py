"""A few hundred broken requests over all protocols to a real server, valid ones among them."""

from __future__ import annotations

from pathlib import Path

from devtools.fuzzing.process_memory import MemorySampler
from devtools.fuzzing.results import FuzzResults
from devtools.fuzzing.server_target import ServerTarget
from devtools.fuzzing.traffic import send_calls
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client

SEED, REQUESTS = 6, 400


def test_every_answer_is_correct_and_no_worker_ends(server: Client, tmp_path: Path) -> None:
    target = ServerTarget.from_run_dir(
        server.run_dir, server.token, COLOR_MODEL, predicts_color=True
    )
    results, sampler = FuzzResults(SEED, tmp_path), MemorySampler(target.pid)
    indices = range(REQUESTS)
    send_calls(target, results, connections=6, indices=indices, on_interval=sampler.sample)
    sampler.sample()
    assert results.sent == REQUESTS
    assert results.findings == []
    assert results.problems == 0
    assert sampler.worker_deaths == 0
    assert results.valid_answered > REQUESTS / 6
    # Every kind was sent, and most of the broken calls reached the handler.
    assert len(results.kinds) == 10
    assert {"invalid_image", "invalid_json", "missing_image", "answered"} <= results.outcomes.keys()
