"""What commands refuse before they do anything: empty values, names and numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from camserve_cli.arguments import ArgumentError, check_name, check_not_empty, key_values
from tests.support.scripts import CAMSERVE, ROOT, run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "an argument is empty"),
        (["photos", ""], "an argument is empty"),
        (["--out", ""], "--out: its value is empty"),
        (["--out=", "x"], "--out: its value is empty"),
        (["a.png", "--token", ""], "--token: its value is empty"),
    ],
)
def test_an_empty_argument_is_refused(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_not_empty(["explain", *arguments])


def test_an_empty_value_of_a_setting_is_a_value() -> None:
    check_not_empty(
        ["package", "--set", "handler.weights_sha256=", "--option=colormap=", "--", "-"]
    )


def test_values_by_name() -> None:
    given = ["a=1", "b=x=y", "c=", "a=1"]
    assert key_values("--set", given, "a=1") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "--set a: accepted is KEY=VALUE, as k=1"),
        (["=1"], "--set =1: accepted is KEY=VALUE"),
        (["a=1", "b=2", "a=2"], "--set a is given twice, as '1' and '2'"),
    ],
)
def test_values_that_are_refused(given: Sequence[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        key_values("--set", given, "k=1")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "ä", "a/b", "x" * 101, "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="accepted are up to 100 letters"):
        check_name("--models", name)


def test_an_empty_run_dir_is_the_default() -> None:
    code = "from camserve_cli import paths; print(paths.RUN_DIR)"
    python = CAMSERVE.with_name("python")
    assert run(python, "-c", code, RUN_DIR="").stdout == f"{ROOT / '.run'}\n"
