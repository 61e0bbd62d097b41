"""The package as it is installed and imported."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.scripts import ROOT, run


def test_it_needs_no_torch_and_nothing_of_the_server() -> None:
    heavy = {"torch", "cv2", "pydantic", "ts", "camserve", "google.protobuf.any_pb2"}
    code = f"import camserve_client, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT / "client"))
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_it_stands_beside_stubs_that_were_generated() -> None:
    for order in ("inference_pb2, camserve_client", "camserve_client, inference_pb2"):
        code = f"import {order}; print(len(inference_pb2.PredictionsRequest().SerializeToString()))"
        done = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT / "client"))
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_pip_installs_it(tmp_path: Path) -> None:
    # A build leaves things beside the source.
    shutil.copytree(ROOT / "client", tmp_path / "client")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    alone = ("--no-index", "--no-deps", "--no-build-isolation", "--target", tmp_path / "site")
    done = run(*pip, *alone, tmp_path / "client")
    assert done.returncode == 0, done.stderr
    installed = {path.name for path in (tmp_path / "site" / "camserve_client").glob("*.*")}
    source = {path.name for path in (ROOT / "client" / "camserve_client").glob("*.*")}
    assert installed == source
    assert "py.typed" in installed
