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
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from camserve_cli.report.boxes import ObjectPlace
from camserve_cli.report.engine import Answer, Engine, Question
from camserve_cli.report.photo_file import PhotoFile, read_photo_file
from camserve_cli.report.requests import AnswerReader, PhotoRequests
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
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    failed = 0
    with progress, ThreadPoolExecutor(2) as pool:
        bar = progress.add_task(
            "", total=len(photos.paths), completed=len(photos.paths) - len(left), failed=0
        )
        # Without those that were done before, the time left is that of the rest.
        progress.reset(bar, total=len(left), failed=0)
        for batch in _batches(left, engine.batch):
            files = [pool.submit(read_photo_file, photos.folder / path) for path in batch]
            try:
                answers = _ask(engine, photos, requests, batch)
                compared = _compare(other, photos, batch)
                for path, answer, second, file in zip(batch, answers, compared, files, strict=True):
                    line, thumbnail = _line(path, answer, second, file.result(), photos, reader)
                    failed += "error" in line
                    store.add(line, thumbnail)
            finally:
                store.flush()
            progress.update(bar, advance=len(batch), failed=failed)


def _batches(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _ask(
    engine: Engine, photos: Photos, requests: PhotoRequests, batch: Sequence[str]
) -> list[Answer]:
    return engine.ask(
        [
            Question(photos.folder / path, requests.options(path, photos.true.get(path, ())))
            for path in batch
        ]
    )


def _compare(other: Engine | None, photos: Photos, batch: Sequence[str]) -> Sequence[Answer | None]:
    """What the other model says of the same photos."""
    if other is None:
        return [None] * len(batch)
    options = {"target": "top:1", "outputs": ["map"], "size": "model", "top_k": 1}
    return other.ask([Question(photos.folder / path, options) for path in batch])


def _line(
    path: str,
    answer: Answer,
    second: Answer | None,
    file: PhotoFile,
    photos: Photos,
    reader: AnswerReader,
) -> tuple[dict[str, Any], bytes]:
    true = photos.true.get(path, ())
    line: dict[str, Any] = {"photo": path}
    if true:
        line["true"] = [{"class_id": index, "label": reader.classes[index]} for index in true]
    line |= reader.read(answer, true, photos.places.get(path, ()))
    if second is not None and "error" not in second:
        best = second["explanations"][0]
        line["compared"] = {
            **{key: best[key] for key in ("class_id", "label", "probability", "evidence")},
            "map": {**best["map"], "values": [round(one, 3) for one in best["map"]["values"]]},
        }
    line["properties"] = {name: float(f"{one:.6g}") for name, one in file.properties.items()}
    if file.camera:
        line["camera"] = file.camera
    return line, file.thumbnail
