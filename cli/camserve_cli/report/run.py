"""The photos of a report, explained batch by batch, each kept as soon as it is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn

from camserve_cli.engines.engine import Answer, Engine, Question
from camserve_cli.report.photos.dataset import Photos
from camserve_cli.report.photos.photo_file import PhotoFile, read_photo_file
from camserve_cli.report.progress import progress_bar
from camserve_cli.report.requests import AnswerReader, PhotoRequests, map_options
from camserve_cli.report.store import Line, ReportStore


def sample_of(paths: Sequence[str], size: int, seed: int = 0) -> frozenset[str]:
    """So many of the photos, drawn by the digests of their names and the seed.

    A larger sample, or one of more photos, shares what it can with the one before.
    """

    def rank(path: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{path}".encode("utf-8", "surrogateescape")).digest()

    return frozenset(sorted(paths, key=rank)[:size])


def is_current(line: Line, folder: Path, sample: frozenset[str]) -> bool:
    """Whether an earlier run's line says what this run would find out.

    Not if the photo's file was changed since, or its faithfulness is to be measured and was not.
    """
    try:
        modified = (folder / line["photo"]).stat().st_mtime_ns
    except OSError:
        # A photo that is no longer there is not in the report.
        return True
    measured = "faithfulness" in line["reply"]["explanations"][0]
    return modified == line.get("modified") and (measured or line["photo"] not in sample)


def explain_photos(
    photos: Photos,
    requests: PhotoRequests,
    engine: Engine,
    other: Engine | None,
    reader: AnswerReader,
    store: ReportStore,
    console: Console,
) -> None:
    """Explain the photos that the store does not have yet.

    Args:
        photos: of the report.
        requests: what to ask about each.
        engine: that answers.
        other: of the model to compare with.
        reader: of the answers.
        store: where each photo's line goes.
        console: shows the progress.

    Raises:
        EngineError: the model answers nothing any more.
        OSError: a line cannot be written.
        KeyboardInterrupt: what was answered before is kept.
    """
    left = [path for path in photos.paths if path not in store.done]
    progress = progress_bar(
        console, "explaining", MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed")
    )
    failed = 0
    with progress, ThreadPoolExecutor(2) as pool:
        # Without those that were done before: the time left is that of the rest.
        bar = progress.add_task("", total=len(left), failed=0)
        for batch in _batches(left, engine.batch):
            files = [pool.submit(read_photo_file, photos.folder / path) for path in batch]
            try:
                answers = engine.ask(
                    [
                        Question(photos.folder / path, requests.options(photos.true.get(path, ())))
                        for path in batch
                    ]
                )
                measured = _measure_faithfulness(engine, photos, requests, batch)
                compared = _compare(other, photos, batch)
                for path, answer, file in zip(batch, answers, files, strict=True):
                    true, places = photos.true.get(path, ()), photos.places.get(path, ())
                    line = {
                        "photo": path,
                        **_truth(true, reader.classes),
                        **reader.read(answer, measured.get(path), true, places),
                        **_read_compared(compared.get(path)),
                        **_read_file(file.result()),
                    }
                    failed += "error" in line
                    store.add(line, file.result().thumbnail)
            finally:
                store.flush()
            progress.update(bar, advance=len(batch), failed=failed)


def _batches(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _measure_faithfulness(
    engine: Engine, photos: Photos, requests: PhotoRequests, batch: Sequence[str]
) -> dict[str, Answer]:
    """The answers of the photos of a batch that are in the sample."""
    asked = {path: options for path in batch if (options := requests.faithfulness_options(path))}
    questions = [Question(photos.folder / path, options) for path, options in asked.items()]
    return dict(zip(asked, engine.ask(questions), strict=True))


def _compare(other: Engine | None, photos: Photos, batch: Sequence[str]) -> dict[str, Answer]:
    """What the other model says of the same photos."""
    if other is None:
        return {}
    options = map_options(other.description) | {"target": "top:1", "top_k": 1}
    answers = other.ask([Question(photos.folder / path, options) for path in batch])
    return dict(zip(batch, answers, strict=True))


def _truth(true: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    labels = [{"class_id": index, "label": classes[index]} for index in true]
    return {"true": labels} if labels else {}


def _read_compared(answer: Answer | None) -> dict[str, Any]:
    if answer is None or not answer.get("explanations"):
        return {}
    best = answer["explanations"][0]
    values = [round(one, 3) for one in best["map"]["values"]]
    kept = {key: best[key] for key in ("class_id", "label", "probability", "evidence")}
    return {"compared": {**kept, "map": {**best["map"], "values": values}}}


def _read_file(file: PhotoFile) -> dict[str, Any]:
    properties = {name: float(f"{one:.6g}") for name, one in file.properties.items()}
    camera = {"camera": file.camera} if file.camera else {}
    return {"properties": properties, "modified": file.modified, **camera}
