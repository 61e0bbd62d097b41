"""What the network said of one photo -> the answer to it, its pictures drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from camserve import render, replies
from camserve.errors import RequestError
from camserve.explain import Explained, Results
from camserve.jobs import Job
from camserve.options import Output
from camserve.render import Drawing, Heat
from camserve.targets import Labels
from camserve.wire import AnswerBody, ModelBody, PredictionBody


@dataclass(frozen=True)
class Drawn:
    """The heat of one explanation, and the outputs made of it."""

    heat: Heat
    drawings: Mapping[Output, Drawing]


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

    def draw(self, job: Job, n: int, results: Results) -> list[Drawn]:
        """What photo ``n`` of a pass asks for of each of its explanations.

        Raises:
            RequestError: ``non_finite_scores``.
        """
        if not results.finite[n]:
            raise RequestError(
                "non_finite_scores", "the network's scores for this photo are not finite"
            )
        heats = [
            render.Heat([map.values for map in one.maps], self.side) for one in results.explained[n]
        ]
        return [
            Drawn(heat, render.draw(heat, job.view, job.frame, self.side, job.options))
            for heat in heats
        ]

    def answer(self, job: Job, n: int, results: Results, drawn: Sequence[Drawn]) -> AnswerBody:
        """The answer to photo ``n`` of a pass, with what :meth:`draw` made of it."""
        return replies.answer(
            self.model,
            job.frame,
            [self._prediction(int(c), n, results) for c in results.order[n, : job.options.top_k]],
            [
                self._explanation(job, one, n, results, of_one)
                for one, of_one in zip(results.explained[n], drawn, strict=True)
            ],
        )

    def _prediction(self, class_id: int, n: int, results: Results) -> PredictionBody:
        return {
            "class_id": class_id,
            "label": self.labels[class_id],
            "probability": float(results.probabilities[n, class_id]),
            "score": float(results.logits[n, class_id]),
        }

    def _explanation(
        self, job: Job, one: Explained, n: int, results: Results, drawn: Drawn
    ) -> replies.Explanation:
        heat = drawn.heat
        return replies.Explanation(
            prediction=self._prediction(one.class_id, n, results),
            against=None if one.against is None else self._prediction(one.against, n, results),
            method=job.wish.method,
            layers=job.wish.layers,
            evidence=any(map.evidence for map in one.maps) and not heat.flat,
            peak=one.maps[0].peak if len(one.maps) == 1 else heat.peak,
            drawings=drawn.drawings,
        )
