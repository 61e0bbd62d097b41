"""A batch from its first byte to its last.

``preprocess`` reads the requests and makes their photos ready, ``inference`` runs the network,
``postprocess`` runs the short backwards and writes the replies. A request or a photo that fails
keeps its place as a :class:`RequestError`; its neighbours never notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camserve import description, photo_preparation
from camserve.errors import RequestError
from camserve.explain import explanations, hooks
from camserve.model import Loaded
from camserve.photo_preparation import SMALLER, Job, Plan, Purse
from camserve.protocols import parsing, schema
from camserve.protocols.parsing import Instance, Row
from camserve.protocols.schema import Envelope, ModelBody, Outcome, Reply
from camserve.reply_builder import Answers, Seen
from camserve.request_log import Entry
from camserve.runtime import failures
from camserve.runtime.stage_timer import Stopwatch
from camserve.runtime.thread_pool import Crew


@dataclass(frozen=True)
class Asked:
    """A request's photos, and how their answers are to be written.

    Attributes:
        row: the request as it came.
        envelope: the form of its reply.
        photos: by the place of their job in the batch; an error where there is none.
        refusal: why none of it could be read.
    """

    row: Row
    envelope: Envelope
    photos: tuple[int | RequestError, ...] = ()
    refusal: RequestError | None = None


@dataclass(frozen=True)
class Batch:
    """Requests read and photos ready, in the order of the rows; or answered already.

    Attributes:
        watch: counts the time it takes.
        journal: is told of each request once it is answered.
    """

    requests: tuple[Asked | Reply, ...]
    jobs: tuple[Job | RequestError, ...]
    watch: Stopwatch
    journal: list[Entry]


#: Some of a batch's jobs, with their places there.
Photos = Sequence[tuple[int, Job]]


@dataclass(frozen=True)
class Pass:
    """One forward pass over some of a batch's photos."""

    way: hooks.TargetLayers
    photos: Photos
    scores: hooks.Scores


@dataclass(frozen=True)
class Scored:
    """A batch and its forward passes, and the photos for which there was none, by their places."""

    batch: Batch
    passes: tuple[Pass, ...]
    failed: Mapping[int, RequestError]


class Pipeline:
    """The way of a batch through a loaded archive.

    Args:
        model: what replies call it.
        loaded: what it is made of.
    """

    def __init__(self, model: ModelBody, loaded: Loaded) -> None:
        self.model = model
        self.loaded = loaded
        self.settings = loaded.settings
        self.network = loaded.network
        self.ways = loaded.ways
        self.batch_size = loaded.batch_size
        self._answers = Answers(model, loaded.network.labels, loaded.settings.preprocess.crop)
        self._crew = Crew(loaded.threads)

    @classmethod
    def load(
        cls, config: dict[str, Any], directory: Path, model: ModelBody, device: torch.device
    ) -> Pipeline:
        """Load an unpacked archive, as :meth:`Loaded.load` does.

        Args:
            model: the name and version to reply with.
        """
        return cls(model, Loaded.load(config, directory, device))

    def preprocess(self, rows: Sequence[Row]) -> Batch:
        """Rows as the server hands them on -> photos and what is asked of them."""
        watch, plans = Stopwatch(), list[Plan]()
        with watch.stage("read"):
            asked = tuple(self._read(row, plans) for row in rows)
        with watch.stage("decode"):
            ready = self._crew.each(
                partial(photo_preparation.ready, plan, self.settings.preprocess) for plan in plans
            )
        return Batch(asked, tuple(ready), watch, [])

    def inference(self, batch: Batch) -> Scored:
        """The forward passes for all living jobs, the heads on the tape.

        A request may carry several photos; more than the batch size go through in several passes.
        So do those that are explained at other layers than the default: what a photo is answered
        depends on no other.
        """
        passes, failed = list[Pass](), dict[int, RequestError]()
        with batch.watch.stage("forward"):
            for way in self.ways:
                alive = [
                    (place, job)
                    for place, job in enumerate(batch.jobs)
                    if isinstance(job, Job) and self._way(job) is way
                ]
                for start in range(0, len(alive), self.batch_size):
                    chunk = alive[start : start + self.batch_size]
                    for photos, scores in failures.together(partial(self._forward, way), chunk):
                        if isinstance(scores, RequestError):
                            failed.update((place, scores) for place, _ in photos)
                        else:
                            passes.append(Pass(way, photos, scores))
        return Scored(batch, tuple(passes), failed)

    def postprocess(self, scored: Scored) -> list[Reply]:
        """The backwards for all chosen scores, then each row's reply, in order."""
        batch, watch = scored.batch, scored.batch.watch
        outcomes: dict[int, Outcome] = {
            place: job for place, job in enumerate(batch.jobs) if isinstance(job, RequestError)
        }
        outcomes.update(scored.failed)
        found = dict[int, Seen]()
        with watch.stage("backward"):
            for place, seen in self._seen(scored):
                if isinstance(seen, RequestError):
                    outcomes[place] = seen
                else:
                    found[place] = seen
        with watch.stage("draw"):
            drawn = self._crew.all([self._answers.draw(seen) for seen in found.values()])
        with watch.stage("write"):
            for (place, seen), drawings in zip(found.items(), drawn, strict=True):
                outcomes[place] = (
                    drawings
                    if isinstance(drawings, RequestError)
                    else failures.attempt(self._answers.answer, seen, drawings)
                )
            return [
                self._reply(request, batch, outcomes) if isinstance(request, Asked) else request
                for request in batch.requests
            ]

    def describe(self) -> Reply:
        """What the model can do, for whoever asks before calling it."""
        return schema.written(description.describe(self.model, self.loaded))

    def _read(self, row: Row, plans: list[Plan]) -> Asked | Reply:
        """A request read; its photos' plans are added to the batch's."""
        if row.describe:
            return self.describe()
        request = failures.attempt(parsing.read, row, self.settings)
        if isinstance(request, RequestError):
            return Asked(row, parsing.envelope(row), refusal=request)
        if isinstance(request.instances, RequestError):
            return Asked(row, request.envelope, refusal=request.instances)
        purse = Purse(self.settings.limits)
        photos: list[int | RequestError] = []
        for instance in request.instances:
            plan = (
                failures.attempt(
                    photo_preparation.plan, instance, self.settings, self.network.labels, purse
                )
                if isinstance(instance, Instance)
                else instance
            )
            if isinstance(plan, Plan):
                photos.append(len(plans))
                plans.append(plan)
            else:
                photos.append(plan)
        return Asked(row, request.envelope, tuple(photos))

    def _forward(self, way: hooks.TargetLayers, photos: Photos) -> hooks.Scores:
        """One forward pass."""
        inputs = self.network.normalise(np.stack([job.crop for _, job in photos]))
        return way.forward(inputs, explanations.layers_of(job.wish for _, job in photos))

    def _explain(self, one: Pass, photos: Photos) -> explanations.Results:
        """What a pass says of its photos; of some of them alone, after a pass of their own."""
        scores = one.scores if photos is one.photos else self._forward(one.way, photos)
        return explanations.explain(scores, [job.wish for _, job in photos])

    def _seen(self, scored: Scored) -> Iterator[tuple[int, Seen | RequestError]]:
        """What was seen in each photo that went through the network, by its place."""
        for one in scored.passes:
            for photos, results in failures.together(partial(self._explain, one), one.photos):
                for n, (place, job) in enumerate(photos):
                    if isinstance(results, RequestError):
                        yield place, results
                    else:
                        yield place, failures.attempt(self._answers.see, job, n, results)

    def _way(self, job: Job) -> hooks.TargetLayers:
        """The fastest way through the network that can explain what is asked of a photo."""
        layers = set(explanations.layers_of([job.wish]))
        return next(way for way in self.ways if layers <= way.shapes.keys())

    def _reply(self, request: Asked, batch: Batch, outcomes: Mapping[int, Outcome]) -> Reply:
        """One request's reply, noted in the batch's journal."""
        envelope, photos = request.envelope, request.photos
        of_request = [outcomes[one] if isinstance(one, int) else one for one in photos]
        errors = [outcome for outcome in of_request if isinstance(outcome, RequestError)]
        answered = [
            (job, outcome)
            for one, outcome in zip(photos, of_request, strict=True)
            if isinstance(one, int)
            and isinstance(job := batch.jobs[one], Job)
            and not isinstance(outcome, RequestError)
        ]
        written = (
            failures.attempt(self._written, envelope, of_request)
            if request.refusal is None
            else request.refusal
        )
        if isinstance(written, RequestError):
            errors, answered = [written], []
            reply = envelope.refused(written, self.model)
        else:
            reply = written
        batch.journal.append(Entry.of(request.row, reply, envelope.protocol, errors, answered))
        return reply

    def _written(self, envelope: Envelope, outcomes: Sequence[Outcome]) -> Reply:
        """The outcomes of a request's photos as its protocol has them.

        Raises:
            RequestError: ``reply_too_large``.
        """
        reply, limit = envelope.reply(outcomes, self.model), self.settings.limits.reply_bytes
        if len(reply.body) > limit:
            raise RequestError(
                "reply_too_large",
                f"the reply would have {len(reply.body)} bytes; accepted: up to {limit}. {SMALLER}",
            )
        return reply
