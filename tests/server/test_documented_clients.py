"""The lines of README and docs/clients.md, in the environments of KServe's and Triton's clients."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from camserve_cli.sample_photos import sample_photo
from tests.support.kserve_clients.documented import documented_blocks, run_block
from tests.support.kserve_clients.environments import REQUIREMENTS
from tests.support.kserve_clients.server import OpenInferenceServer
from tests.support.scripts import ROOT

in_environments = pytest.mark.env
PNG = b"\x89PNG"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the photo that a quick start leaves."""
    (tmp_path / "out").mkdir()
    shutil.copy(sample_photo("coffee.png"), tmp_path / "out")
    return tmp_path


@in_environments
def test_readme_on_tritons_client(
    triton_python: Path, open_inference: OpenInferenceServer, folder: Path
) -> None:
    (code,) = documented_blocks("triton", "README.md")
    said = run_block(triton_python, code, open_inference, folder)
    assert said.splitlines() == ["cup True", "cup True"]
    over_http, over_grpc = (
        (folder / "out" / name).read_bytes() for name in ("cup-http.png", "cup-grpc.png")
    )
    assert over_http.startswith(PNG)
    assert over_grpc.startswith(PNG)


@in_environments
def test_readme_on_kserves_client(
    kserve_python: Path, open_inference: OpenInferenceServer, folder: Path
) -> None:
    (code,) = documented_blocks("kserve", "README.md")
    run_block(kserve_python, code, open_inference, folder)
    over_rest, over_grpc = (
        (folder / "out" / name).read_bytes() for name in ("cup-rest.png", "cup-grpc.png")
    )
    assert over_rest.startswith(PNG)
    assert over_grpc.startswith(PNG)


@in_environments
def test_the_page_on_tritons_client(
    triton_python: Path, open_inference: OpenInferenceServer, folder: Path
) -> None:
    (code,) = documented_blocks("triton", "docs/clients.md")
    said = run_block(triton_python, code, open_inference, folder)
    assert re.match(r"\(2, 1, \d+, \d+\)\n\[", said)
    assert len(re.findall(r"b'0\.\d+:\d+:", said)) == 3


@in_environments
def test_the_page_on_kserves_client(
    kserve_python: Path, open_inference: OpenInferenceServer, folder: Path
) -> None:
    (code,) = documented_blocks("kserve", "docs/clients.md")
    assert run_block(kserve_python, code, open_inference, folder) == "cup True\n"


@pytest.mark.parametrize("page", ["README.md", "docs/clients.md"])
def test_the_versions_that_were_tested_are_named(page: str) -> None:
    text = (ROOT / page).read_text()
    for requirement in REQUIREMENTS.values():
        name, version = re.split(r"(?:\[all\])?==", requirement)
        assert f"`{name}`" in text
        assert version in text
