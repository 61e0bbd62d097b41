"""How often a model is right, class by class, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.columns import ReportColumns
from camserve_cli.report.explained_photos import Floats
from camserve_cli.report.figures.chance import Interval, share_interval


@dataclass(frozen=True)
class ClassFigures:
    """How a model does on one class, or one label.

    Attributes:
        class_id: index of the class.
        label: its; several classes may have the same.
        photos: how many photos show it, as far as is known.
        predicted: for how many it is predicted.
        right: how many of those that show it are predicted so.
        accuracy: right of photos, the recall; NaN where no photo shows it.
        interval: of the accuracy, 95 percent.
        precision: right of predicted; NaN where it is never predicted.
        confidence: the mean probability where it is predicted; NaN where it never is.
        average_precision: the area under precision over recall, by label; NaN where it is not
            computed.
    """

    class_id: int
    label: str
    photos: int
    predicted: int
    right: int
    accuracy: float
    interval: Interval
    precision: float
    confidence: float
    average_precision: float = float("nan")


@dataclass(frozen=True)
class Accuracy:
    """Of the model as a whole.

    Attributes:
        labelled: how many photos' classes are known.
        right: how many of them are predicted right; for several labels: the best one is among them.
        interval: of the share, 95 percent.
        classes: of each class that a photo shows or is predicted as, those with most errors first.
    """

    labelled: int
    right: int
    interval: Interval
    classes: tuple[ClassFigures, ...]

    @property
    def share(self) -> float:
        """Right of labelled; NaN where none is."""
        return self.right / self.labelled if self.labelled else float("nan")


def measure_accuracy(columns: ReportColumns) -> Accuracy:
    """The figures of all classes that occur."""
    sets = columns.true_sets
    figures = _by_class(columns) if sets is None else _by_label(columns, sets)
    errors = sorted(figures, key=lambda one: (-(one.photos - one.right), -one.photos, one.label))
    labelled, right = int(columns.known.sum()), int(columns.right.sum())
    return Accuracy(labelled, right, share_interval(right, labelled), tuple(errors))


def _by_class(columns: ReportColumns) -> list[ClassFigures]:
    photos, known = columns.photos, columns.known
    classes = np.union1d(photos.predicted, photos.true[known]).astype(int)
    figures = []
    for index in classes:
        shown, chosen = photos.true == index, photos.predicted == index
        score = _average_precision(columns, int(index), shown)
        # Of those predicted, only labelled ones say whether that was right.
        figures.append(
            _class_figures(columns, int(index), shown, chosen, known, photos.probability, score)
        )
    return figures


def _by_label(columns: ReportColumns, true_sets: NDArray[np.bool_]) -> list[ClassFigures]:
    """Each label by itself: a photo may have several, and several may be predicted."""
    photos = columns.photos
    figures = []
    for index in range(len(photos.classes)):
        shown = true_sets[:, index]
        if columns.probabilities is None:
            probability = np.where(photos.predicted == index, photos.probability, np.nan)
        else:
            probability = columns.probabilities[:, index].astype(np.float64)
        # The best label is predicted even where it stays below the threshold.
        chosen = (np.nan_to_num(probability) > columns.threshold) | (photos.predicted == index)
        if not shown.any() and not chosen.any():
            continue
        score = _average_precision(columns, index, shown)
        figures.append(
            _class_figures(columns, index, shown, chosen, columns.labelled, probability, score)
        )
    return figures


def _class_figures(
    columns: ReportColumns,
    index: int,
    shown: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    known: NDArray[np.bool_],
    probability: Floats,
    average_precision: float,
) -> ClassFigures:
    count, right = int(shown.sum()), int((shown & chosen).sum())
    judged = int((chosen & known).sum())
    return ClassFigures(
        class_id=index,
        label=columns.photos.classes[index],
        photos=count,
        predicted=int(chosen.sum()),
        right=right,
        accuracy=right / count if count else float("nan"),
        interval=share_interval(right, count),
        precision=right / judged if judged else float("nan"),
        confidence=float(probability[chosen].mean()) if chosen.any() else float("nan"),
        average_precision=average_precision,
    )


def _average_precision(columns: ReportColumns, index: int, shown: NDArray[np.bool_]) -> float:
    from sklearn.metrics import average_precision_score

    known = columns.labelled
    if columns.probabilities is None or not shown[known].any():
        return float("nan")
    scores = columns.probabilities[known, index].astype(np.float64)
    return float(average_precision_score(shown[known], scores))
