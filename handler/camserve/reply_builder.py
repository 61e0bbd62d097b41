"""What the network said of one photo -> the answer to it, its pictures drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from camserve import serialize
from camserve.errors import RequestError
from camserve.explain.explanations import Explained, Results
from camserve.explain.targets import Labels
from camserve.images import render
from camserve.images.render import Drawing, Heat
from camserve.options import Output
from camserve.photo_preparation import Job
from camserve.protocols.schema import AnswerBody, ModelBody, PredictionBody
from camserve.runtime.thread_pool import Step


@dataclass(frozen=True)
class Seen:
    """What the network saw in one photo.

    Attributes:
        job: the photo.
        n: its place in the pass.
        results: of the pass.
        heats: of each of its explanations.
    """

    job: Job
    n: int
    results: Results
    heats: Sequence[Heat]


@dataclass(frozen=True)
class Answers:
    """The answers of one model.

    Attributes:
        model: what they call it.
        labels: of its classes.
        side: of the network's input.
    """

    model: ModelBody
    labels: Labels
    side: int

    def see(self, job: Job, n: int, results: Results) -> Seen:
        """Photo ``n`` of a pass.

        Raises:
            RequestError: ``non_finite_scores``.
        """
        if not results.finite[n]:
            raise RequestError(
                "non_finite_scores", "the network's scores for this photo are not finite"
            )
        heats = [Heat([map.values for map in one.maps], self.side) for one in results.explained[n]]
        return Seen(job, n, results, heats)

    def draw(self, seen: Seen) -> Iterator[Step[Drawing]]:
        """What a photo asks for of each of its explanations, one output after another."""
        job = seen.job
        for heat in seen.heats:
            yield from render.draw(heat, job.view, job.frame, self.side, job.options)

    def answer(self, seen: Seen, drawings: Sequence[Drawing]) -> AnswerBody:
        """The answer to a photo, with what the steps of :meth:`draw` gave."""
        job, outputs = seen.job, seen.job.options.outputs
        # As many of each explanation as there are outputs.
        left = iter(drawings)
        return serialize.answer(
            self.model,
            job.frame,
            [
                self._prediction(int(c), seen)
                for c in seen.results.order[seen.n, : job.options.top_k]
            ],
            [
                self._explanation(
                    one, heat, seen, dict(zip(outputs, islice(left, len(outputs)), strict=True))
                )
                for one, heat in zip(seen.results.explained[seen.n], seen.heats, strict=True)
            ],
        )

    def _prediction(self, class_id: int, seen: Seen) -> PredictionBody:
        n, results = seen.n, seen.results
        return {
            "class_id": class_id,
            "label": self.labels[class_id],
            "probability": float(results.probabilities[n, class_id]),
            "score": float(results.logits[n, class_id]),
        }

    def _explanation(
        self, one: Explained, heat: Heat, seen: Seen, drawings: Mapping[Output, Drawing]
    ) -> serialize.Explanation:
        return serialize.Explanation(
            prediction=self._prediction(one.class_id, seen),
            against=None if one.against is None else self._prediction(one.against, seen),
            method=seen.job.wish.method,
            layers=seen.job.wish.layers,
            evidence=any(map.evidence for map in one.maps) and not heat.flat,
            peak=one.maps[0].peak if len(one.maps) == 1 else heat.peak,
            drawings=drawings,
        )
