"""The house as CONTRIBUTING.md and DESIGN's order have it: its map, and the doors between wings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scripts import ROOT

CAMSERVE = ROOT / "handler" / "camserve"
WINGS = ("protocols", "images", "networks", "explain", "runtime")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def map_rows() -> dict[str, str]:
    """The table under CONTRIBUTING's heading "Where things are": what each path holds."""
    section = CONTRIBUTING.split("## Where things are")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    return {path.rstrip("/"): text for path, text in rows}


def tracked_folders(root: Path) -> set[str]:
    """The names of a folder's own folders that hold source, without caches and hidden ones."""
    return {
        folder.name
        for folder in root.iterdir()
        if folder.is_dir() and any(folder.rglob("*.py")) and folder.name[0] not in "._"
    }


def test_the_map_is_short_and_every_path_in_it_exists() -> None:
    rows = map_rows()
    assert 10 <= len(rows) <= 14
    assert [path for path in rows if not (ROOT / path).exists()] == []


def test_the_map_has_every_wing_and_every_top_level_folder_with_code() -> None:
    rows = map_rows()
    wings = tracked_folders(CAMSERVE)
    assert wings == set(WINGS)
    assert [wing for wing in WINGS if f"handler/camserve/{wing}" not in rows] == []
    tops = {path.split("/")[0] for path in rows}
    assert tracked_folders(ROOT) - {"model_store"} <= tops


def test_a_module_that_the_map_names_lies_where_it_says() -> None:
    wrong = []
    for path, text in map_rows().items():
        for name in re.findall(r"`(\w+)`", text):
            if not list((ROOT / path).glob(f"**/{name}.py")) and not (ROOT / path / name).is_dir():
                wrong.append(f"{path}: {name}")
    assert wrong == []


@pytest.mark.parametrize(
    ("sought", "path", "module", "source"),
    [
        ("a PNG is written", "handler/camserve/images", "png", "def encode"),
        ("a KServe v2 body is read", "handler/camserve/protocols", "kserve_v2", "def parse"),
        ("the backward runs", "handler/camserve/explain", "backward", "torch.autograd.grad"),
        ("a CAM method is added", "handler/camserve/explain", "methods", "METHODS"),
        ("a photo's limit is checked", "handler/camserve/images", "header", "limits.side"),
    ],
)
def test_a_newcomer_finds_it_in_one_step(sought: str, path: str, module: str, source: str) -> None:
    assert f"`{module}`" in map_rows()[path], sought
    assert source in (ROOT / path / f"{module}.py").read_text(), sought


def imports_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The modules that a file imports from, each with the names that it takes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []


def wing_of(module: str) -> str | None:
    """The wing that a dotted name lies in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "camserve" and parts[1] in WINGS else None


def test_a_wing_is_entered_by_its_public_names_alone() -> None:
    """Outside of a wing, only what its ``__init__`` hands out is imported."""
    wrong = []
    for path in [*CAMSERVE.rglob("*.py"), ROOT / "handler" / "gradcam_handler.py"]:
        own = path.parent.name if path.parent.name in WINGS else None
        for module, names in imports_of(path):
            wing = wing_of(module)
            if wing is None or wing == own:
                continue
            public = set(importlib.import_module(f"camserve.{wing}").__all__)
            if module != f"camserve.{wing}" or not set(names) <= public:
                wrong.append(f"{path.relative_to(ROOT)} imports {names} from {module}")
    assert wrong == []


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_says_what_lives_there_and_hands_out_what_it_has(wing: str) -> None:
    package = importlib.import_module(f"camserve.{wing}")
    assert len((package.__doc__ or "").split()) >= 20
    assert list(package.__all__) == sorted(
        package.__all__, key=lambda name: (name.upper() != name, name[0].islower(), name)
    )
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_no_module_of_the_handler_is_longer_than_a_sitting() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for path in CAMSERVE.rglob("*.py")
    }
    assert {str(path): length for path, length in lengths.items() if length > 300} == {}
