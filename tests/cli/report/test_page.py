"""report.html: what it holds, and that text of others stays text. Made by a model of no network."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camserve_cli.report import making
from camserve_cli.report.making import ReportCall, make_report
from camserve_cli.report.output import page_photos
from tests.support.color_resnet import COLOR_VALUES, LABELS, photo, png
from tests.support.report_engine import ColourEngine
from tests.support.report_photos import SECRET, write_photos

HOSTILE = "<script>alert(1)</script>"
Make = Callable[..., str]


class Tags(HTMLParser):
    """Collects the elements of a page, with their attributes and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data if self._inside not in ("script", "style") else ""

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a report of the photos in ``tmp_path / photos``; returns the page."""

    def run(
        engine: ColourEngine,
        other: ColourEngine | None = None,
        *,
        strict: bool = False,
        expected: int | None = None,
        **options: Any,
    ) -> str:
        @contextmanager
        def opened(server: None, store: Path, model: str | None) -> Iterator[ColourEngine]:
            yield engine if model is None or other is None else other

        monkeypatch.setattr(making, "open_engine", opened)
        call = {
            "folder": tmp_path / "photos", "out": tmp_path / "out", "model": None,
            "store": tmp_path, "labels": None, "boxes": None, "compare": None, "server": None,
            "faithfulness": 0, "shortcuts": False, "fresh": False, "export": None, **options,
        }  # fmt: skip
        status = make_report(ReportCall(**call), strict=strict)
        assert expected in (None, status)
        return (tmp_path / "out" / "report.html").read_text("utf-8")

    return run


def test_the_sections_are_in_order(make: Make, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 24)
    (tmp_path / "photos" / "red" / "broken.jpg").write_bytes(b"no photo")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("photo,x0,y0,x1,y1\nred/0000.jpg,0,0,80,120\n")
    other = ColourEngine(LABELS, {0: 1})
    tags = parse(make(ColourEngine(LABELS), other, boxes=boxes, compare="other"))
    assert [given["id"] for name, given in tags.found if name == "section"] == [
        "verdict", "accuracy", "confusion", "where", "clusters", "boxes", "faithfulness",
        "properties", "comparison", "gallery", "failed",
    ]  # fmt: skip
    # Every link leads to a section, and headings go down by one level.
    ids = {given.get("id") for _, given in tags.found}
    links = [given["href"] for name, given in tags.found if name == "a"]
    assert {str(link).removeprefix("#") for link in links} <= ids
    assert tags.count("h1") == 1
    assert tags.count("main") == tags.count("header") == tags.count("nav") == 1
    assert "broken.jpg no photo (unsupported_format)" in " ".join(tags.text.split())


def test_it_loads_nothing(make: Make, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 12)
    page = make(ColourEngine(LABELS))
    tags = parse(page)
    linked = [
        str(value)
        for _, given in tags.found
        for name, value in given.items()
        if name in ("src", "href", "srcset", "action")
    ]
    assert linked
    assert all(value.startswith(("#", "data:image/webp;base64,")) for value in linked)
    assert tags.count("link") == tags.count("iframe") == tags.count("base") == 0
    assert not re.findall(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|innerHTML", page)
    # Scripts run by their digest alone, so that none that got in would.
    (policy,) = [given["content"] for name, given in tags.found if "http-equiv" in given]
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in str(policy)


def test_names_and_labels_of_others_stay_text(make: Make, tmp_path: Path) -> None:
    classes = [
        f"red {HOSTILE}",
        "<img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}",
        '"><b>',
        "&amp;",
        "'",
    ]
    for path in write_photos(tmp_path / "photos", 24):
        path.rename(tmp_path / "photos" / f"<b>{path.stem}&quot;{{% if %}}.jpg")
    for folder in LABELS:
        (tmp_path / "photos" / folder).rmdir()
    (tmp_path / "photos" / "<script>alert(2)<.jpg").write_bytes(b"no photo")
    names = sorted(path.name for path in (tmp_path / "photos").glob("<b>*"))
    labels = tmp_path / "labels.csv"
    quoted = ['"' + label.replace('"', '""') + '"' for label in classes]
    rows = [f'"{name}",{quoted[int(name[3:7]) % 6]}' for name in names]
    labels.write_text("\n".join(["photo,label", *rows]))
    page = make(ColourEngine(classes, {0: 1}), labels=labels)
    tags = parse(page)
    # The page's own three scripts, and no element that a name or label makes.
    assert tags.count("script") == 3
    assert tags.count("b") == 0
    assert not [given for _, given in tags.found if "onerror" in given]
    assert classes[0] in tags.text
    assert "{{ 7 * 7 }}" in tags.text
    assert "<script>alert(2)<.jpg" in tags.text
    data = data_of(page)
    assert data["classes"] == classes
    assert data["paths"] == names


def test_nothing_of_the_photos_exif_is_in_the_report(make: Make, tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 12)
    assert SECRET.encode() in paths[0].read_bytes()
    make(ColourEngine(LABELS))
    for file in (tmp_path / "out").iterdir():
        assert SECRET.encode() not in file.read_bytes(), file.name


def test_the_data_of_a_photo(make: Make, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 24)
    page = make(ColourEngine(LABELS))
    data = data_of(page)
    assert data["paths"] == sorted(data["paths"])
    assert len(data["paths"]) == len(data["true"]) == len(data["top"]) == 24
    wrong = [
        index
        for index, (true, predicted) in enumerate(zip(data["true"], data["predicted"], strict=True))
        if true != predicted
    ]
    # Those with a larger disc of another colour. Each has the map of its true class, too.
    names = sorted(Path(data["paths"][index]).name for index in wrong)
    assert names == ["0007.jpg", "0015.jpg", "0023.jpg"]
    assert sorted(map(int, data["trueMaps"])) == wrong
    (thumbnails,) = re.findall(r'id="thumbnails">([^<]*)</script>', page)
    assert data["thumbnails"][-1] == len(thumbnails)


def test_a_page_of_the_most_telling_photos(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_photos, "MOST_PHOTOS", 10)
    write_photos(tmp_path / "photos", 48)
    page = make(ColourEngine(LABELS))
    data = data_of(page)
    assert len(data["paths"]) == 10
    assert "The page has the 10 most telling of 48 photos" in parse(page).text
    shown = {Path(path).name for path in data["paths"]}
    assert {f"{number:04}.jpg" for number in range(7, 48, 8)} <= shown


def test_a_report_without_labels_says_so(make: Make, tmp_path: Path) -> None:
    for path in write_photos(tmp_path / "photos", 6):
        path.rename(tmp_path / "photos" / path.name)
    text = " ".join(parse(make(ColourEngine(LABELS))).text.split())
    assert "The photos are not labelled" in text
    assert "Without labels, nothing is known of confusion." in text


def test_accuracy_alone_is_a_finding_with_strict_only(make: Make, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 60, second_disc=100)
    engine = ColourEngine(LABELS, {0: 1})
    page = make(engine, expected=0)
    assert "10 of 10 photos that show &#39;red&#39; are not predicted so" in page
    # What was not searched for is not said to be absent.
    assert "Nothing says that this model looks at the wrong thing." not in page
    assert "3 findings are about how often it is right." in page
    make(engine, strict=True, expected=3)


def test_a_model_without_findings(make: Make, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 60, second_disc=100)
    page = make(ColourEngine(LABELS), strict=True, expected=0)
    assert "Nothing was found on these photos" in page
    assert "The search for shortcuts was left out" in page
    assert json.loads((tmp_path / "out" / "findings.json").read_text()) == []


def test_what_has_changed_is_explained_anew(make: Make, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_photos(photos, 12, second_disc=100)
    engine = ColourEngine(LABELS)
    make(engine)
    before = engine.asked
    make(engine)
    assert engine.asked == before
    changed = photos / "red" / "0000.jpg"
    changed.write_bytes((photos / "red" / "0006.jpg").read_bytes())
    os.utime(changed, ns=(1, 1))
    make(engine)
    assert engine.asked == before + 1
    lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    (line,) = (line for line in map(json.loads, lines) if line["photo"] == "red/0000.jpg")
    assert line["modified"] == 1


def test_a_sample_that_grows_measures_the_new_ones(make: Make, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 12, second_disc=100)
    engine = ColourEngine(LABELS)
    make(engine)
    assert engine.asked == 12
    # Each once more, and once for the figures.
    text = " ".join(parse(make(engine, faithfulness=3)).text.split())
    assert engine.asked == 18
    assert "Each figure of 3 photos" in text
    text = " ".join(parse(make(engine, faithfulness=2)).text.split())
    assert engine.asked == 18
    assert "Each figure of 2 photos" in text


def test_the_search_for_shortcuts_is_part_of_a_report(make: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for colour, number in itertools.product(LABELS[:3], range(16)):
        centre = (int(random.integers(30, 50)), int(random.integers(25, 35)))
        pixels = photo((colour, centre, 8), width=80, height=60)
        if colour == "green":
            # The class of this corner, whatever else is to be seen.
            pixels = photo(("red", centre, 4), width=80, height=60)
            pixels[:10, :12] = COLOR_VALUES["green"]
        path = tmp_path / "photos" / colour / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    page = make(ColourEngine(LABELS), shortcuts=True, expected=3)
    assert "The search for shortcuts was left out" not in page
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert [(one["kind"], one["class"]) for one in found] == [("corner", "green")]
    assert "the upper left corner" in found[0]["text"]
