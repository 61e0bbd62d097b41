"""deploy/prometheus.yml, read by a real Prometheus that scrapes a real server."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from devtools.ports import free_ports
from tests.support import color_resnet
from tests.support.scripts import COLOR_MODEL, ROOT
from tests.support.server_client import Client

pytestmark = pytest.mark.env

CONFIG = ROOT / "deploy" / "prometheus.yml"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of prometheus and promtool: those of this machine, or of Debian's package."""
    if found := shutil.which("promtool"):
        return Path(found).parent
    folder = tmp_path_factory.mktemp("prometheus")
    for command in (
        ["apt-get", "update"],
        ["apt-get", "download", "prometheus"],
        ["sh", "-c", "dpkg-deb -x *.deb ."],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder / "usr" / "bin"


def test_promtool_accepts_it(programs: Path) -> None:
    done = subprocess.run(
        [programs / "promtool", "check", "config", CONFIG], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout


@pytest.fixture(scope="module")
def prometheus(
    programs: Path, server: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("scraping")
    text = CONFIG.read_text().replace("127.0.0.1:8082", f"127.0.0.1:{server.ports['METRICS_PORT']}")
    (folder / "prometheus.yml").write_text(text.replace("15s", "1s"))
    (port,) = free_ports(1)
    options = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [programs / "prometheus", *options], cwd=folder, stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http
    finally:
        process.terminate()
        process.wait(timeout=30)


def query(prometheus: httpx.Client, expression: str) -> list[Any]:
    """The result, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            reply = prometheus.get("/api/v1/query", params={"query": expression})
            if found := reply.json()["data"]["result"]:
                return list(found)
        except (httpx.HTTPError, KeyError, ValueError):
            # It is not ready yet.
            pass
        time.sleep(0.2)
    raise AssertionError(f"nothing found for {expression}")


def test_it_scrapes_a_server(prometheus: httpx.Client, server: Client) -> None:
    photo = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60)))
    for _ in range(3):
        assert server.http.post(f"/predictions/{COLOR_MODEL}", content=photo).status_code == 200
    model = f'model="{COLOR_MODEL}"'
    (requests,) = query(
        prometheus, f'camserve_requests_total{{{model},outcome="answered",code="none"}} >= 3'
    )
    assert requests["metric"]["job"] == "camserve"
    assert "Hostname" not in requests["metric"]
    # A histogram is one for Prometheus' functions.
    (pixels,) = query(
        prometheus, f"histogram_quantile(0.5, camserve_photo_pixels_bucket{{{model}}})"
    )
    assert 0 < float(pixels["value"][1]) <= 100_000
    stages = query(
        prometheus,
        f"histogram_quantile(0.9, sum by (stage, le) (camserve_stage_seconds_bucket{{{model}}}))",
    )
    assert {one["metric"]["stage"] for one in stages} >= {"decode", "forward", "backward"}
    assert all(0 < float(one["value"][1]) < 60 for one in stages)
    # TorchServe's own keep their names; those that were replaced are not stored.
    assert query(prometheus, f"ts_inference_requests_total{{{model}}}")
    names = prometheus.get("/api/v1/label/__name__/values").json()["data"]
    assert not {name for name in names if name.startswith(("Photo", "StageTime", "BatchSize"))}
    assert "Explanations" not in names
    assert "HandlerTime" in names
