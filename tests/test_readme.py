"""The README's calls, run as they are written, against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from camserve.errors import HTTP_STATUS
from camserve.options import Options
from camserve.settings import Limits, Preprocess, Settings
from camserve.validation import FrozenModel
from camserve_cli.sample_photos import sample_photo
from tests.support.kserve_clients.documented import is_of_other_client
from tests.support.scripts import CAMSERVE, IMAGENET, ROOT, run
from tests.support.server_client import Client

README = (ROOT / "README.md").read_text()
#: The settings that `camserve package` writes: the archive's files are its own.
WRITTEN = {"weights", "weights_sha256", "labels"}
BLOCKS = [
    (language, code)
    for language, code in re.findall(
        r"^```(bash|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE
    )
    # tests/server/test_documented_clients.py runs these in environments of their own.
    if not is_of_other_client(code)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the project's after a quick start."""
    (tmp_path / "out").mkdir()
    shutil.copy(sample_photo("coffee.png"), tmp_path / "out")
    (tmp_path / "client").symlink_to(ROOT / "client")
    return tmp_path


def run_block(language: str, code: str, server: Client, folder: Path, **variables: str) -> str:
    # The tests' server has ports of its own.
    code = code.replace("127.0.0.1:8080", f"127.0.0.1:{server.ports['INFERENCE_PORT']}")
    code = code.replace("127.0.0.1:8081", f"127.0.0.1:{server.ports['MANAGEMENT_PORT']}")
    code = code.replace("127.0.0.1:7070", f"127.0.0.1:{server.ports['GRPC_INFERENCE_PORT']}")
    shell = ("bash", "-euo", "pipefail") if language == "bash" else (sys.executable,)
    path = f"{CAMSERVE.parent}:{os.environ['PATH']}"
    done = run(*shell, "-c", code, cwd=folder, **{**server.ports, "PATH": path, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_calls_to_run() -> None:
    assert [language for language, _ in BLOCKS].count("bash") == 7
    assert [language for language, _ in BLOCKS].count("python") == 4


def test_the_calls_of_the_readme(server: Client, folder: Path) -> None:
    (_, setting), *calls = BLOCKS
    show = 'printf "%s %s" "$MODEL" "$TOKEN"'
    model, token = run_block("bash", setting + show, server, folder).split()
    assert model == IMAGENET
    replies: list[Any] = []
    said = []
    for language, code in calls:
        output = run_block(language, code, server, folder, MODEL=model, TOKEN=token)
        if language == "python":
            said.append(output)
            continue
        decoder = json.JSONDecoder()
        while output := output.strip():
            reply, end = decoder.raw_decode(output)
            replies.append(reply)
            output = output[end:]
    first, *cups, several, v1, v2, description = replies
    assert first["predictions"][0]["label"] == "espresso"
    assert len(first["predictions"]) == 5
    (instance,) = v1["explanations"]
    assert len(cups) == 5
    for reply in (*cups, instance):
        assert len(reply["predictions"]) == 3
        (explanation,) = reply["explanations"]
        assert explanation["label"] == "cup"
        assert {"heatmap", "overlay"} <= explanation.keys()
    contrast, *top = several["explanations"]
    assert (contrast["label"], contrast["against"]["label"]) == ("espresso", "cup")
    assert [one["class_id"] for one in top] == [
        one["class_id"] for one in several["predictions"][:3]
    ]
    assert all(one["boxes"] and one["overlay"]["width"] == 600 for one in several["explanations"])
    tensors = {tensor["name"]: tensor for tensor in v2["outputs"]}
    assert tensors["explained_label"]["data"] == ["cup"]
    assert tensors["label"]["shape"] == [1, 3]
    assert description[0]["customizedMetadata"]["classes"][967] == "espresso"
    by_client, over_http, over_grpc, open_inference = said
    assert by_client.split()[0] == "espresso"
    assert "espresso" in over_http
    assert over_grpc.split() == ["cup", "True"]
    assert open_inference.split() == ["cup", "True"]
    assert (folder / "out" / "cup-overlay.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert (folder / "out" / "cup.jpg").read_bytes().startswith(b"\xff\xd8")


def first_column(header: str) -> list[str]:
    """What stands in backticks in the first column of the README's table with such a header."""
    (table,) = re.findall(rf"^\| {header} \|.*\n\| --- .*\n((?:\|.*\n)+)", README, re.MULTILINE)
    cells = [row.split("|")[1] for row in table.splitlines()]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_options_in_the_readme_are_the_codes() -> None:
    assert sorted(first_column("option")) == sorted(Options.model_fields)


def test_the_settings_in_the_readme_are_the_codes() -> None:
    documented, section = [], ""
    for name in first_column("key"):
        # After `handler.limits.side`, `.aspect_ratio` is of the same section.
        section = section if name.startswith(".") else name.rpartition(".")[0]
        documented.append(f"{section}.{name.rpartition('.')[2]}")
    sections: dict[str, type[FrozenModel]] = {"preprocess": Preprocess, "limits": Limits}
    top = Settings.model_fields.keys() - {*sections, *WRITTEN, "defaults"}
    keys = ["handler.defaults.*", *(f"handler.{name}" for name in top)]
    for section, model in sections.items():
        keys += [f"handler.{section}.{key}" for key in model.model_fields]
    assert sorted(documented) == sorted(keys)


def test_the_error_codes_in_the_readme_are_the_codes() -> None:
    codes = re.findall(r'"code": "(\w+)"', README)
    assert codes
    assert set(codes) <= HTTP_STATUS.keys()


def test_what_the_readme_links_to_is_there() -> None:
    headings = {f"#{title.lower().replace(' ', '-')}" for title in re.findall("#+ (.+)", README)}
    targets = set(re.findall(r"\]\((?!http)([^)]+)\)", README))
    files = {target for target in targets if (ROOT / target).exists()}
    assert targets - files <= headings
