"""Labels as people have them: in JSON, CSV and text, by their content and not their suffix."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from camserve.networks import Labels
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.label_files import read_labels

WNIDS = ("n01440764", "n01443537")


def write(folder: Path, content: Any) -> Path:
    path = folder / "names.any"
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        ["cat", "big dog"],
        {"0": "cat", "1": "big dog"},
        {"1": "big dog", "0": "cat"},
        {"0": ["cat"], "1": "big dog"},
        {"cat": 0, "big dog": 1},
        {"class_to_idx": {"cat": 0, "big dog": 1}, "root": "/data"},
        {"id2label": {"0": "cat", "1": "big dog"}, "model_type": "vit"},
        {"id2label": {"0": "cat", "1": "big dog"}, "label2id": {"cat": 0, "big dog": 1}},
        {"label2id": {"cat": 0, "big dog": 1}},
        {"label_names": ["cat", "big dog"], "architecture": "resnet18"},
        "{0: 'cat',\n 1: 'big dog'}",
        "cat\nbig dog",
        "cat\r\nbig dog\r\n",
        "  cat \nbig dog\n\n\n",
        "0 cat\n1 big dog",
        "1 big dog\n0 cat",
        "1: big dog\n0: cat",
        "- cat\n- big dog",
        "* cat\n*  big dog",
        "cat,\nbig dog,",
        "cat,\nbig dog",
        "0: cat\n1: big dog",
        "0,cat\n1,big dog",
        "1;big dog\n0;cat",
        "cat\t0\nbig dog\t1",
        '0,"cat"\r\n1,"big dog"\r\n',
        "index,name\n0,cat\n1,big dog",
        "name,index\nbig dog,1\ncat,0",
        "Class ID;Class Name\n1;big dog\n0;cat",
        "label,name\n0,cat\n1,big dog",
        "name,label\ncat,0\nbig dog,1",
        ",name\n0,cat\n1,big dog",
        "\ufeffcat\nbig dog",
        '\ufeff["cat", "big dog"]',
        "cat\nbig dog".encode("utf-16"),
        "index,name\r\n0,cat\r\n1,big dog".encode("utf-16"),
        b"\xfe\xff" + "cat\nbig dog".encode("utf-16-be"),
    ],
)
def test_a_format_is_read(tmp_path: Path, content: Any) -> None:
    labels, notes = read_labels(write(tmp_path, content))
    assert labels.names == ("cat", "big dog")
    assert labels.wnid_indices == {}
    assert notes == []


@pytest.mark.parametrize(
    "content",
    [
        {"0": [WNIDS[0], "cat"], "1": [WNIDS[1], "big dog"]},
        [[WNIDS[0], "cat"], [WNIDS[1], "big dog"]],
        {"0": ["cat", WNIDS[0]], "1": ["big dog", WNIDS[1]]},
        f"{WNIDS[0]} cat\n{WNIDS[1]} big dog",
        f"0,{WNIDS[0]},cat\n1,{WNIDS[1]},big dog",
        f"wnid,name\n{WNIDS[0]},cat\n{WNIDS[1]},big dog",
        f"index\tsynset\tlabel\n1\t{WNIDS[1]}\tbig dog\n0\t{WNIDS[0]}\tcat",
    ],
)
def test_wordnet_ids_are_kept_in_the_archive(tmp_path: Path, content: Any) -> None:
    labels, _ = read_labels(write(tmp_path, content))
    assert (labels.names, labels.wnids) == (("cat", "big dog"), WNIDS)
    kept = write(tmp_path, labels.to_json())
    assert json.loads(kept.read_text()) == {"0": [WNIDS[0], "cat"], "1": [WNIDS[1], "big dog"]}
    assert Labels.load(kept).wnids == WNIDS


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("tench, Tinca tinca\ngoldfish, Carassius", ("tench, Tinca tinca", "goldfish, Carassius")),
        ('"tench, Tinca tinca"\n"gold ""fish"""', ("tench, Tinca tinca", 'gold "fish"')),
        ('0,"tench, Tinca tinca"\n1,gold', ("tench, Tinca tinca", "gold")),
        ({"0": 1, "1": 0}, ("1", "0")),
        ({"names": 0, "classes": 1}, ("names", "classes")),
        ("0\n1\n2", ("0", "1", "2")),
        ("3 point\n2 point", ("3 point", "2 point")),
        ("Bär\n猫", ("Bär", "猫")),
        ("cat\n[unused]", ("cat", "[unused]")),
    ],
)
def test_names_are_read_as_they_are(tmp_path: Path, content: Any, names: tuple[str, ...]) -> None:
    assert read_labels(write(tmp_path, content))[0].names == names


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (["crane", "dog", "crane"], "'crane' is of the classes 0, 2; a request names"),
        ("name\ncat\ndog", "first line, 'name', is read as a header"),
        ("index,name,colour\n0,cat,red\n1,dog,blue", "not read: colour"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "stand in for names"),
    ],
)
def test_what_a_person_should_know_is_said(tmp_path: Path, content: Any, note: str) -> None:
    (said,) = read_labels(write(tmp_path, content))[1]
    assert note in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["cat", ""], "class 1 has an empty name"),
        ({"0": " ", "1": "dog"}, "class 0 has an empty name"),
        ("cat\n\ndog", "line 2 is empty: class 1 has an empty name"),
        ("index,name\n0,\n1,dog", "class 0 has an empty name"),
        ({"0": "cat", "2": "dog"}, "1 is missing; the indices must be 0 to 1"),
        ("1 cat\n2 dog", "each line begins with a number, from 1 to 2; accepted: indices from 0"),
        ("2 dog\n1 cat", "each line begins with a number, from 1 to 2; accepted: indices from 0"),
        ({"1": "cat", "2": "dog"}, "are 1 to 2, and 0 is missing"),
        ({"cat": 0, "dog": 5}, "1 is missing"),
        ("0,cat\n2,dog", "1 is missing"),
        ("index,name\n1,cat\n2,dog", "0 is missing"),
        ('{"0": "cat", "0": "dog"}', "the key '0' is given twice"),
        ("{0: 'cat', 0: 'dog'}", "the key '0' is given twice"),
        ({"0": "cat", "00": "dog"}, "index 0 is given twice, to 'cat' and 'dog'"),
        ({"cat": 0, "dog": 0}, "index 0 is given twice, to 'cat' and 'dog'"),
        ("0,cat\n0,dog", "index 0 is given twice, in the lines 1 and 2"),
        ("index,name\n0,cat\nx,dog", "'index' has other values than whole numbers"),
        ("0,tench, Tinca\n1,gold", "line 2 has 2 columns, '1,gold', and line 1 has 3"),
        ("0,cat,red\n1,dog,blue", "no header says which has the names"),
        ('["cat" "dog"]', "begins as JSON does but is none"),
        ("[1, 2", "begins as JSON does but is none"),
        ([1, 2], "class 0 is 1, which is no name"),
        ({"0": None}, "class 0 is None"),
        ({"a": "b"}, "no index and name"),
        ({"model_type": "vit"}, "a config.json without id2label"),
        (
            {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"dog": 0, "cat": 1}},
            "id2label and label2id differ, in 'cat'",
        ),
        (
            {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"ant": 0, "bee": 1}},
            "id2label and label2id differ, in 'cat'; accepted: both alike, or id2label alone",
        ),
        ('["cat", "\\ud800"]', r"class 1 has a name with '\\ud800', a half of a character"),
        ('{"cat\\udfff": 0}', r"class 0 has a name with '\\udfff', a half of a character"),
        ("null", "JSON of another kind"),
        ("", "no label in it"),
        ([], "no label in it"),
        ("[" * 100_000, "nested too deep"),
        (b"B\xe4r\nHund", "not UTF-8: byte 0xe4 in line 1 .*iconv"),
        ("cat\ndog".encode("utf-16-le"), r"line 1 has the control character '\\x00'"),
        ("<html></html>", "a web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_what_is_no_list_of_labels_is_said_with_its_place(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(PackageError) as error:
        read_labels(path)
    assert re.search(f"^labels {path}: .*{message}", str(error.value))
    assert "accepted" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        {"id2label": {"0": "crane", "1": "crane"}, "label2id": {"crane": 1}},
        {"id2label": {"0": "cat", "1": "dog"}, "label2id": {}},
        {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": "0", "dog": 1}},
    ],
)
def test_labels_by_name_and_by_index_may_agree(tmp_path: Path, content: Any) -> None:
    names = tuple(content["id2label"].values())
    assert read_labels(write(tmp_path, content))[0].names == names


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackageError, match="it is no file but a pipe or a device; accepted: "):
        read_labels(tmp_path / "pipe")


def test_labels_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"labels .*none\.txt: No such file"):
        read_labels(tmp_path / "none.txt")
