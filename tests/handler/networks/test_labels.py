"""Labels from their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camserve.errors import SettingsError
from camserve.networks.labels import Labels


@pytest.mark.parametrize(
    "content",
    [
        ["cat", "dog", "kite"],
        {"0": "cat", "1": "dog", "2": "kite"},
        {"2": "kite", "0": "cat", "1": "dog"},
        {"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "kite"]},
        {"0": ["n01", "cat"], "1": "dog", "2": ["kite"]},
    ],
)
def test_labels_load_from_either_form(content: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    labels = Labels.load(path)
    assert labels.names == ("cat", "dog", "kite")
    assert len(labels) == 3
    assert [labels[n] for n in range(3)] == ["cat", "dog", "kite"]


@pytest.mark.parametrize(
    ("content", "wnids"),
    [
        ({"0": ["n01", "cat"], "1": ["n02", "dog"]}, ("n01", "n02")),
        ([["n01", "cat"], ["n02", "dog"]], ("n01", "n02")),
        ({"0": ["n01", "cat"], "1": "dog"}, ("n01", "")),
        ({"0": ["cat"], "1": ["a", "b", "dog"]}, ("", "")),
        (["cat", "dog"], ("", "")),
    ],
)
def test_wordnet_ids_are_kept(content: object, wnids: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    labels = Labels.load(path)
    assert (labels.names, labels.wnids) == (("cat", "dog"), wnids)
    path.write_text(json.dumps(labels.to_json()))
    assert Labels.load(path).wnids == wnids


def test_an_archive_without_ids_keeps_a_plain_list() -> None:
    assert Labels(("cat", "dog")).to_json() == ["cat", "dog"]


def test_labels_keep_their_letters(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(["Bär", "猫"], ensure_ascii=False), "utf-8")
    assert Labels.load(path).names == ("Bär", "猫")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0": "cat", "2": "dog"}', "keys must be 0 to 1"),
        ('{"1": "cat", "2": "dog"}', "keys must be 0 to 1"),
        ('{"cat": 0, "dog": 1}', "keys must be 0 to 1"),
        ('{"0": "cat", "1": 7}', "accepted are a JSON list of names"),
        ('{"0": "cat", "1": []}', "accepted are a JSON list of names"),
        ('["cat", 7]', "accepted are a JSON list of names"),
        ('"cat"', "accepted are a JSON list of names"),
        ("null", "accepted are a JSON list of names"),
        ("[]", "no label in it"),
        ("{}", "no label in it"),
        ("cat\ndog\n", "Expecting value"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_labels_of_another_form_are_refused(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingsError, match=f"labels.json: .*{message}"):
        Labels.load(path)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"labels\.json: .*No such file"):
        Labels.load(tmp_path / "labels.json")
