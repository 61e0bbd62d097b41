"""Why one class rather than another: the contrastive maps of the most confused pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camserve_cli.engines.engine import Engine, Question
from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.confusion import PHOTOS_A_PAIR, ConfusedPair
from camserve_cli.report.requests import map_options


@dataclass(frozen=True)
class Contrast:
    """A photo of a confused pair, and what in it speaks for which class.

    Attributes:
        row: the photo's place among the columns.
        for_predicted: (h, w) in [0, 1], what speaks for the predicted class rather than the true.
        for_true: the other way round.
    """

    row: int
    for_predicted: NDArray[np.float64]
    for_true: NDArray[np.float64]


def contrast_pairs(
    columns: ReportColumns, pairs: Sequence[ConfusedPair], folder: Path, engine: Engine
) -> list[list[Contrast]]:
    """Of each pair a few photos; those that are not answered any more are left out.

    Raises:
        EngineError: the model answers nothing any more.
    """
    asked = [
        (number, row, pair)
        for number, pair in enumerate(pairs)
        for row in pair.photos[:PHOTOS_A_PAIR]
    ]
    found: list[list[Contrast]] = [[] for _ in pairs]
    for start in range(0, len(asked), engine.batch):
        batch = asked[start : start + engine.batch]
        answers = engine.ask(
            [
                Question(
                    folder / columns.photos.paths[row],
                    {
                        **map_options(engine.description),
                        # By index: a label may hold a hyphen, or name two classes.
                        "target": [
                            f"{pair.predicted}-{pair.true}",
                            f"{pair.true}-{pair.predicted}",
                        ],
                        "top_k": 1,
                    },
                )
                for _, row, pair in batch
            ]
        )
        for (number, row, _), answer in zip(batch, answers, strict=True):
            if "error" in answer:
                continue
            one, other = (
                np.asarray(part["map"]["values"]).reshape(part["map"]["shape"])
                for part in answer["explanations"]
            )
            found[number].append(Contrast(row, one, other))
    return found
