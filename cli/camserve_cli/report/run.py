"""The photos of a report, explained batch by batch, each kept as soon as it is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from camserve_cli.engines.engine import Answer, Engine, Question
from camserve_cli.report.boxes import ObjectPlace
from camserve_cli.report.photo_file import PhotoFile, read_photo_file
from camserve_cli.report.requests import AnswerReader, PhotoRequests, map_options
from camserve_cli.report.store import ReportStore

#: How many photos' faithfulness is measured, unless the command says otherwise.
FAITHFULNESS_SAMPLE = 64


@dataclass(frozen=True)
class Photos:
    """The photos of a report, and what is known of them beforehand.

    Attributes:
        folder: that they lie in.
        paths: relative to it, sorted.
        true: of a photo that is labelled, the indices of its classes.
        places: of a photo with boxes, its objects.
    """

    folder: Path
    paths: Sequence[str]
    true: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    places: Mapping[str, list[ObjectPlace]] = field(default_factory=dict)


def sample_of(paths: Sequence[str], size: int, seed: int = 0) -> frozenset[str]:
    """So many of the photos, by the names and the seed alone; all, where there are no more."""
    if size >= len(paths):
        return frozenset(paths)
    names = hashlib.sha256("\0".join(paths).encode("utf-8", "surrogateescape")).digest()
    drawn = np.random.default_rng([seed, *names]).choice(len(paths), size, replace=False)
    return frozenset(paths[index] for index in drawn)


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
    progress = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("time left:"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
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
    return {"properties": properties, **({"camera": file.camera} if file.camera else {})}
