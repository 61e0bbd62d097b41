"""The package as it is installed and imported."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path

import pytest

import camserve_client
from tests.support.scripts import ROOT, run


def test_it_needs_no_torch_and_nothing_of_the_server() -> None:
    heavy = {"torch", "cv2", "pydantic", "ts", "camserve", "google.protobuf.any_pb2"}
    code = f"import camserve_client, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT / "client"))
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_it_can_be_imported_beside_generated_stubs() -> None:
    for order in ("inference_pb2, camserve_client", "camserve_client, inference_pb2"):
        code = f"import {order}; print(len(inference_pb2.PredictionsRequest().SerializeToString()))"
        done = run(sys.executable, "-c", code, PYTHONPATH=str(ROOT / "client"))
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_pip_installs_it(tmp_path: Path) -> None:
    # A copy, because a build writes files beside the source.
    shutil.copytree(ROOT / "client", tmp_path / "client")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    alone = ("--no-index", "--no-deps", "--no-build-isolation", "--target", tmp_path / "site")
    done = run(*pip, *alone, tmp_path / "client")
    assert done.returncode == 0, done.stderr
    installed = package_files(tmp_path / "site")
    assert installed == package_files(ROOT / "client")
    assert {Path("py.typed"), Path("transports/http.py")} <= installed


def package_files(folder: Path) -> set[Path]:
    package = folder / "camserve_client"
    return {path.relative_to(package) for path in package.rglob("*.*") if path.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Box", "Region"),
        ("Choices", "PredictOptions"),
        ("Options", "ExplainOptions"),
        ("RefusedError", "StatusError"),
        ("ReplyError", "InvalidReplyError"),
        ("TimedOutError", "RequestTimeoutError"),
        ("TokenRefusedError", "AuthenticationError"),
    ],
)
def test_an_old_name_works_and_warns(old: str, new: str) -> None:
    expected = rf"camserve_client\.{old} is deprecated; use camserve_client\.{new}$"
    with pytest.warns(DeprecationWarning, match=expected) as caught:
        assert getattr(camserve_client, old) is getattr(camserve_client, new)
    # The warning is shown for the line that uses the old name.
    assert [Path(one.filename) for one in caught] == [Path(__file__)]
    with pytest.warns(DeprecationWarning, match=expected) as caught:
        exec(f"from camserve_client import {old}", {})  # noqa: S102
    assert {one.filename for one in caught} == {"<string>"}
    # Type checkers read the same table.
    assert f"    {old} = {new}\n" in inspect.getsource(camserve_client)


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "Sox"
    with pytest.raises(AttributeError, match="module 'camserve_client' has no attribute 'Sox'"):
        getattr(camserve_client, name)


def test_all_public_names_import_without_a_warning() -> None:
    names: dict[str, object] = {}
    exec("from camserve_client import *", names)  # noqa: S102
    assert set(camserve_client.__all__) <= set(names)
