"""``camserve report``, run as a person would, with packaged archives whose answers are known."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from camserve_cli.commands import report as report_command
from camserve_client import Client as CamserveClient
from tests.support import color_resnet
from tests.support.color_resnet import LABELS, NARROW
from tests.support.report_photos import SECRET, write_photos
from tests.support.scripts import CAMSERVE, COLOR_MODEL, camserve, interruptible, run
from tests.support.server_client import Client

COUNT = 42
#: Photos in which a larger disc is of another colour.
MISTAKEN = [f"{number:04}.jpg" for number in range(7, COUNT, 8)]
QUICK = ("--faithfulness", "1", "--no-shortcuts")


@pytest.fixture(scope="module")
def archives(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the constructed ResNet50, and one that takes red for green and green for red."""
    folder = tmp_path_factory.mktemp("archives")
    own = folder / "store"
    own.mkdir()
    (own / f"{COLOR_MODEL}.mar").symlink_to(store / f"{COLOR_MODEL}.mar")
    inputs = color_resnet.package_inputs(folder, **NARROW)
    weights = folder / "colours.safetensors"
    swapped = load_file(weights)
    swapped["fc.weight"] = swapped["fc.weight"][[1, 0, *range(2, len(LABELS))]].contiguous()
    save_file(swapped, weights)
    camserve("package", "--name", "swapped", *inputs, "--store", own)
    return own


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "photos"
    write_photos(folder, COUNT)
    (folder / "red" / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo either")
    return folder


def report(
    archives: Path, photos: Path, out: Path, *arguments: str | Path, model: str = COLOR_MODEL
) -> subprocess.CompletedProcess[str]:
    given = ("--store", archives, "--model", model, "--out", out)
    return run(CAMSERVE, "report", photos, *given, *arguments, cwd=out.parent, COLUMNS="200")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(
    archives: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a report that was made in one run, and what the command said."""
    out = tmp_path_factory.mktemp("whole") / "report"
    return out, report(archives, photos, out, *QUICK)


Whole = tuple[Path, subprocess.CompletedProcess[str]]


def test_what_it_says_and_writes(whole: Whole) -> None:
    out, done = whole
    # The network is unsure by construction, which is a mild finding.
    assert done.returncode == 0, done.stderr
    assert f"{COUNT} of {COUNT + 1} photos explained, 1 failed; 1 finding; " in done.stdout
    assert done.stderr == f"passed over 1: 1 .txt ({Path(done.args[2]) / 'notes.txt'})\n"
    assert {path.name for path in out.iterdir()} == {
        "report.html", "report.jsonl", "report.parquet", "findings.json", "report.run.json",
        "thumbnails.bin",
    }  # fmt: skip
    (unsure,) = json.loads((out / "findings.json").read_text())
    assert (unsure["kind"], unsure["class"]) == ("calibration", "")
    assert unsure.keys() == {"kind", "class", "share", "count", "limit", "photos", "text"}


def test_a_line_for_each_photo(whole: Whole) -> None:
    written = lines(whole[0])
    assert len(written) == COUNT + 1
    by_photo = {line["photo"]: line for line in written}
    assert by_photo["red/broken.jpg"]["error"]["code"] == "unsupported_format"
    line = by_photo["red/0000.jpg"]
    assert line["true"] == [{"class_id": 0, "label": "red"}]
    (explanation,) = line["reply"]["explanations"]
    assert explanation["label"] == "red"
    assert explanation["map"]["shape"] == [7, 7]
    assert set(explanation["map_statistics"]) >= {"border", "corners", "entropy"}
    assert line["camera"] == "Acme X100"
    assert line["properties"]["width"] == 160
    # In a wrong one the map of the true class is beside that of the predicted one.
    wrong = by_photo["green/0007.jpg"]["reply"]["explanations"]
    assert [one["label"] for one in wrong] == ["blue", "green"]
    peaks = [int(np.argmax(one["map"]["values"])) % 7 for one in wrong]
    assert peaks[0] > peaks[1]


def test_the_faithfulness_of_a_sample(whole: Whole) -> None:
    measured = [
        line["reply"]["explanations"][0]["faithfulness"]
        for line in lines(whole[0])
        if "faithfulness" in line.get("reply", {"explanations": [{}]})["explanations"][0]
    ]
    assert len(measured) == 1
    assert set(measured[0]) == {"drop", "increase", "insertion", "deletion", "road"}
    assert set(measured[0]["drop"]) == {"value", "random", "centre"}


def test_the_table(whole: Whole) -> None:
    table = pq.read_table(whole[0] / "report.parquet")
    rows = table.to_pylist()
    assert len(rows) == COUNT
    by_photo = {row["photo"]: row for row in rows}
    red = by_photo["red/0000.jpg"]
    assert (red["predicted"], red["true"], red["right"]) == ("red", ["red"], True)
    assert len(red["map"]) == 49
    assert red["map_shape"] == [7, 7]
    assert [row["photo"].split("/")[1] for row in rows if not row["right"]] == sorted(
        MISTAKEN, key=lambda name: (LABELS_SORTED.index(LABELS[int(name[:4]) % 6]), name)
    )
    metadata = pq.ParquetFile(whole[0] / "report.parquet").metadata
    assert metadata.row_group(0).column(0).compression == "ZSTD"


LABELS_SORTED = sorted(LABELS)


def test_the_page_tells_the_numbers(whole: Whole) -> None:
    page = (whole[0] / "report.html").read_text()
    right = COUNT - len(MISTAKEN)
    assert f"{right} of {COUNT} labelled photos are predicted right: {right / COUNT:.1%}" in page
    assert "green rather than blue" in page
    assert "red/broken.jpg" in page
    assert SECRET not in page
    assert SECRET.encode() not in (whole[0] / "thumbnails.bin").read_bytes()


def test_the_same_call_again_explains_nothing_again(
    archives: Path, photos: Path, whole: Whole
) -> None:
    out, first = whole
    before = (out / "report.jsonl").read_bytes()
    done = report(archives, photos, out, *QUICK, "--strict")
    assert done.stdout == first.stdout
    # Mild findings count.
    assert done.returncode == 3
    # The photo that failed was tried again.
    kept = [line for line in before.splitlines() if b"broken" not in line]
    assert [
        line for line in (out / "report.jsonl").read_bytes().splitlines() if b"broken" not in line
    ] == kept


def test_a_run_that_is_stopped_goes_on(
    archives: Path, photos: Path, whole: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    given = ("--store", archives, "--model", COLOR_MODEL, "--out", out, *QUICK)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = interruptible([CAMSERVE, "report", photos, *given], **pipes)
    deadline = time.monotonic() + 120
    while not (out / "report.jsonl").exists() or not (out / "report.jsonl").stat().st_size:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"stopped: what was explained is kept in {out}; the same command goes on" in said
    kept = (out / "report.jsonl").read_bytes().splitlines()
    assert 0 < len(kept) < COUNT
    assert not (out / "report.html").exists()

    done = report(archives, photos, out, *QUICK)
    assert done.returncode == 0, done.stderr
    assert (out / "report.jsonl").read_bytes().splitlines()[: len(kept)] == kept
    for name in ("report.html", "findings.json", "report.parquet"):
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_labels_boxes_and_a_second_model(archives: Path, photos: Path, tmp_path: Path) -> None:
    some = sorted((photos / "red").glob("0*.jpg")) + sorted((photos / "blue").glob("0*.jpg"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in some:
        (flat / path.name).write_bytes(path.read_bytes())
    rows = [f"{path.name},{path.parent.name}" for path in some]
    (tmp_path / "labels.csv").write_text("\n".join(["photo,label", *rows, "gone.jpg,red"]))
    # All discs of the true class lie in the left half.
    coco = {
        "images": [{"id": n, "file_name": path.name} for n, path in enumerate(some)],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
        "annotations": [
            {
                "image_id": n,
                "category_id": 1 if path.parent.name == "red" else 2,
                "bbox": [0, 0, 85, 120],
            }
            for n, path in enumerate(some)
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    given = ("--labels", tmp_path / "labels.csv", "--boxes", tmp_path / "boxes.json")
    out = tmp_path / "report"
    more: tuple[str, ...] = ("--compare", "swapped", "--export", "fiftyone", "--faithfulness", "0")
    more += ("--no-shortcuts",)
    done = report(archives, flat, out, *given, *more)
    assert done.returncode == 0, done.stderr
    assert f"labels of {len(some)} of {len(some)} photos" in done.stderr
    assert "1 photos that it lists are not in the folder" in done.stderr
    table = {row["photo"]: row for row in pq.read_table(out / "report.parquet").to_pylist()}
    for path in some:
        row = table[path.name]
        at_the_disc = row["right"]
        assert (row["box_mass"] > 0.7) == at_the_disc
        swapped = {"red": "green", "green": "red"}
        assert row["compared_predicted"] == swapped.get(row["predicted"], row["predicted"])
    page = (out / "report.html").read_text()
    regressions = sum(row["right"] for row in table.values() if row["true"] == ["red"])
    assert f"Regressions: right before, wrong with swapped ({regressions})" in page
    check_fiftyone(out / "fiftyone", [path.name for path in some])


def check_fiftyone(folder: Path, names: list[str]) -> None:
    """A dataset as FiftyOne's guide lays it out: metadata.json, samples.json, data/."""
    assert json.loads((folder / "metadata.json").read_text())["media_type"] == "image"
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    assert [sample["filepath"] for sample in samples] == [f"data/{name}" for name in sorted(names)]
    for sample in samples:
        assert (folder / sample["filepath"]).is_file()
        assert sample["prediction"].keys() == {"_cls", "label", "confidence"}
        assert sample["ground_truth"]["_cls"] == "Classification"
        assert sample["heatmap"]["_cls"] == "Heatmap"
        (found,) = sample["objects"]["detections"]
        assert found["label"] == sample["ground_truth"]["label"]
        assert found["bounding_box"] == [0, 0, 85 / 160, 1]
        with Image.open(sample["heatmap"]["map_path"]) as heatmap:
            assert (heatmap.mode, heatmap.size) == ("L", (224, 168))


@pytest.mark.server
def test_a_server_and_an_archive_say_the_same(
    server: Client, archives: Path, photos: Path, whole: Whole, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.ports['INFERENCE_PORT']}"
    reds = tmp_path / "photos" / "red"
    reds.mkdir(parents=True)
    for path in (photos / "red").glob("*.jpg"):
        (reds / path.name).write_bytes(path.read_bytes())
    call: tuple[str | Path, ...] = (
        CAMSERVE,
        "report",
        "photos",
        "--out",
        "report",
        "--url",
        url,
        "--model",
        COLOR_MODEL,
    )
    call += ("--faithfulness", "1", "--no-shortcuts")
    # Once a server whose token alone is known, once that which was started here.
    there = run(*call, "--token", server.token, cwd=tmp_path, RUN_DIR=str(tmp_path))
    assert there.returncode == 0, there.stderr
    here = run(*call, "--fresh", cwd=tmp_path, **server.ports)
    assert here.returncode == 0, here.stderr
    by_photo = {line["photo"]: line for line in lines(whole[0])}
    for line in lines(tmp_path / "report"):
        expected = by_photo[line["photo"]]
        assert line.keys() == expected.keys()
        best = line.get("reply", {}).get("predictions", [{}])[0].get("label")
        assert best == expected.get("reply", {}).get("predictions", [{}])[0].get("label")
    with CamserveClient(url, COLOR_MODEL, token=server.token) as client:
        reply = client.explain(reds / "0000.jpg", outputs=["map"])
    assert reply.predictions[0].label == "red"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        report_command, "find_spec", lambda name: None if name == "pyarrow" else name
    )
    done = CliRunner().invoke(report_command.app, [str(tmp_path)])
    assert isinstance(done.exception, report_command.ReportError)
    assert str(done.exception) == (
        "pyarrow is not installed; accepted: pip install 'camserve[report]'"
    )


def test_a_server_that_does_not_answer(photos: Path, tmp_path: Path) -> None:
    given = ("--out", tmp_path / "report", "--url", "http://127.0.0.1:9", "--model", "m")
    done = run(CAMSERVE, "report", photos, *given, "--token", "t", RUN_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "colour"], 2, "holds no archive 'colour'; accepted: one of colours, swapped"),
        (["--engine", "ray"], 2, "--engine ray is not in this version; accepted: local"),
        (["--url", "http://127.0.0.1:9", "--store", "s"], 2, "two places of a model; use one"),
        (["--labels", "nowhere.csv"], 2, "nowhere.csv: No such file"),
        (["--compare", "third"], 2, "holds no archive 'third'"),
        (["--out", "."], 2, "--out . holds the photos; accepted: a folder of its own"),
    ],
)
def test_a_call_that_is_wrong(
    archives: Path, photos: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    # Of two options the last counts.
    given = ("--store", archives, "--model", COLOR_MODEL, "--out", tmp_path / "report")
    done = run(CAMSERVE, "report", photos, *given, *arguments, cwd=photos.parent)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ([], 2, "no photo in photos; looked for "),
        (["a.jpg"], 1, "none of 1 photos could be explained; the first, a.jpg: "),
    ],
)
def test_a_folder_without_photos(
    archives: Path, tmp_path: Path, content: list[str], status: int, message: str
) -> None:
    (tmp_path / "photos").mkdir()
    for name in content:
        (tmp_path / "photos" / name).write_text("no photo")
    done = run(
        CAMSERVE, "report", "photos", "--store", archives, "--model", COLOR_MODEL, cwd=tmp_path
    )
    assert done.returncode == status
    assert message in done.stderr


def test_another_model_is_not_mixed_in(archives: Path, photos: Path, whole: Whole) -> None:
    done = report(archives, photos, whole[0], *QUICK, model="swapped")
    assert done.returncode == 2
    assert "holds a report with another model" in done.stderr
    assert "--fresh to begin anew" in done.stderr
