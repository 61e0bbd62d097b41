"""The lines that a report keeps while it runs: what goes on, and what begins anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camserve_cli.report.run import sample_of
from camserve_cli.report.store import LINES, ReportStore, StoreError, read_lines, read_thumbnails

SETTINGS: dict[str, Any] = {"model": ["pets", "1.0", "abc"], "folder": "photos"}


def fill(folder: Path, *photos: str, fresh: bool = False, **settings: Any) -> frozenset[str]:
    """Keep photos in a folder; the ones that were done before."""
    with ReportStore(folder, {**SETTINGS, **settings}, fresh, lambda line: True) as store:
        for photo in photos:
            kind = "error" if photo.startswith("broken") else "reply"
            store.add({"photo": photo, kind: {}}, b"" if kind == "error" else photo.encode())
        return store.done


def kept(folder: Path) -> list[str]:
    return [line["photo"] for _, line in read_lines(folder / LINES)]


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    assert fill(tmp_path, "a", "b") == frozenset()
    assert fill(tmp_path, "c") == {"a", "b"}
    assert kept(tmp_path) == ["a", "b", "c"]
    places = [line["thumbnail"] for _, line in read_lines(tmp_path / LINES)]
    assert list(read_thumbnails(tmp_path, places)) == [b"a", b"b", b"c"]


def test_photos_that_failed_are_tried_again(tmp_path: Path) -> None:
    fill(tmp_path, "a", "broken")
    assert fill(tmp_path) == {"a"}
    assert kept(tmp_path) == ["a"]


@pytest.mark.parametrize("rest", [b'{"photo":"b","rep', b'{"photo":"b"', b"\0\0\0\n", b"[]\n"])
def test_what_was_half_written_is_dropped(tmp_path: Path, rest: bytes) -> None:
    fill(tmp_path, "a")
    with (tmp_path / LINES).open("ab") as lines:
        lines.write(rest)
    assert fill(tmp_path, "b") == {"a"}
    assert kept(tmp_path) == ["a", "b"]


def test_a_line_whose_thumbnail_was_not_written_is_dropped(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    with (tmp_path / "thumbnails.bin").open("r+b") as pictures:
        pictures.truncate(1)
    assert fill(tmp_path) == {"a"}


def test_another_model_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(StoreError, match=r"another model; accepted: --fresh to begin anew") as told:
        fill(tmp_path, model=["pets", "1.0", "other"])
    assert told.value.exit_status == 2
    assert kept(tmp_path) == ["a"]


def test_a_fresh_run_forgets_the_one_before(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    assert fill(tmp_path, "b", fresh=True, labels="others") == frozenset()
    assert kept(tmp_path) == ["b"]
    assert fill(tmp_path, labels="others") == {"b"}


def test_lines_of_no_run_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / LINES).write_text('{"photo": "a"}\n')
    with pytest.raises(StoreError, match="of no run that can go on"):
        fill(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"--out .*file"):
        fill(tmp_path / "file" / "out")


def test_the_sample_is_the_same_for_the_same_photos() -> None:
    photos = [f"{n}.png" for n in range(100)]
    sample = sample_of(photos, 10)
    # A larger one, or of more photos, is not drawn anew.
    assert sample < sample_of(photos, 20)
    assert sample_of([*photos, "more"], 10) - {"more"} <= sample
    assert len(sample) == 10
    assert sample == sample_of(photos, 10)
    assert sample != sample_of(photos, 10, seed=1)
    assert sample_of(photos, 200) == frozenset(photos)
    assert sample_of(photos, 0) == frozenset()
