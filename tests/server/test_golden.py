"""Replies do not change: recorded requests are sent again, byte for byte.

A reply may gain keys. Nothing that was recorded may change or disappear, except by rounding and in
the wording of messages. ``tests.golden.compare`` has the rules; CONTRIBUTING.md says when a record
may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.golden.compare import differences
from tests.golden.records import Reply, load_all
from tests.golden.server import golden_server

RECORDS = load_all()


@pytest.fixture(scope="module")
def replies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Reply]]]:
    """By name, the reply to each recorded request; six are in flight at a time."""
    with (
        golden_server(tmp_path_factory.mktemp("golden")) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        yield {name: pool.submit(client.send, record.request) for name, record in RECORDS.items()}


@pytest.mark.parametrize("name", RECORDS)
def test_the_reply_is_as_it_was_recorded(name: str, replies: dict[str, Future[Reply]]) -> None:
    assert differences(RECORDS[name].reply, replies[name].result()) == []
