"""Tokens: renewed late, and by one caller at a time."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from camserve_cli.serving.tokens import current_token, read_tokens, renewal_margin
from camserve_client import Client as CamserveClient
from devtools.ports import free_server_ports
from tests.support import color_resnet
from tests.support.scripts import COLOR_MODEL, ROOT, camserve


def write(run_dir: Path, text: str, seconds_left: float) -> None:
    expires = datetime.fromtimestamp(time.time() + seconds_left, UTC).isoformat()
    key = {"key": text, "expiration time": expires.replace("+00:00", "Z")}
    content = {"inference": key, "management": key, "API": {"key": "api"}}
    (run_dir / "key_file.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("lifetime", "margin"), [(3600, 60), (600, 60), (599, 59.9), (60, 6), (10, 1)]
)
def test_the_margin_is_a_tenth_of_the_life_and_at_most_a_minute(
    lifetime: float, margin: float
) -> None:
    assert renewal_margin(lifetime) == pytest.approx(margin)


@pytest.mark.parametrize(
    ("seconds_left", "lifetime", "expected"),
    [
        (3000, 3600, "old"),
        (65, 3600, "old"),
        (55, 3600, "new api"),
        (50, 60, "old"),
        (8, 60, "old"),
        (4, 60, "new api"),
        (-5, 60, "new api"),
    ],
)
def test_a_token_is_renewed_shortly_before_its_end(
    tmp_path: Path, seconds_left: float, lifetime: float, expected: str
) -> None:
    write(tmp_path, "old", seconds_left)
    token = current_token(
        tmp_path, "inference", lifetime, lambda key: write(tmp_path, f"new {key}", lifetime)
    )
    assert token.text == expected
    assert read_tokens(tmp_path)["inference"].text == expected


def test_a_token_that_is_still_good_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "old", 3000)
    token = current_token(
        tmp_path, "inference", 3600, lambda key: write(tmp_path, f"new {key}", 3600), replace=True
    )
    assert token.text == "new api"


def test_callers_at_the_same_time_share_one_renewal(tmp_path: Path) -> None:
    write(tmp_path, "old", 1)
    renewals: list[str] = []

    def renew(key: str) -> None:
        renewals.append(key)
        time.sleep(0.3)
        write(tmp_path, f"new {len(renewals)}", 60)

    def ask(_: int) -> str:
        return current_token(tmp_path, "inference", 60, renew).text

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"new 1"}
    assert renewals == ["api"]


@pytest.mark.slow
@pytest.mark.server
def test_no_call_fails_while_tokens_of_a_minute_are_renewed(store: Path, tmp_path: Path) -> None:
    """Eight callers for three minutes; a call may ask for a new token once, as the client does."""
    config = (ROOT / "config.properties").read_text()
    config = config.replace("token_expiration_min=60", "token_expiration_min=1")
    (tmp_path / "short.properties").write_text(config)
    environment = {"RUN_DIR": str(tmp_path / "run"), **free_server_ports()}
    given = ("--store", store, "--models", COLOR_MODEL, "--workers", "1")
    camserve("serve", "start", *given, "--config", tmp_path / "short.properties", **environment)
    photo = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60)))
    url = f"http://127.0.0.1:{environment['INFERENCE_PORT']}"
    issued: list[str] = []

    def token() -> str:
        issued.append(camserve("serve", "token", **environment).strip())
        return issued[-1]

    def call(_: int) -> int:
        calls = 0
        with CamserveClient(url, COLOR_MODEL, token=token) as client:
            while time.monotonic() < deadline:
                assert client.predict(photo).predictions[0].label == "cyan"
                calls += 1
                time.sleep(0.2)
        return calls

    try:
        deadline = time.monotonic() + 180
        with ThreadPoolExecutor(8) as pool:
            calls = list(pool.map(call, range(8)))
    finally:
        camserve("serve", "stop", **environment)
    assert min(calls) > 50
    # One for each minute, and no renewal ends another.
    assert 3 <= len(set(issued)) <= 5
