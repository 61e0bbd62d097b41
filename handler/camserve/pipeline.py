"""A batch from its first byte to its last.

``preprocess`` reads the requests and makes their photos ready, ``inference`` runs the network,
``postprocess`` runs the short backwards and writes the replies. A request or a photo that fails
keeps its place as a :class:`RequestError`; its neighbours never notice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from camserve import description, explain, gradcam, jobs, machine, requests, trunk, wire
from camserve.answers import Answers
from camserve.errors import RequestError, SettingsError
from camserve.jobs import SMALLER, Job, Plan, Purse
from camserve.network import Network
from camserve.requests import Instance, Row
from camserve.settings import Settings
from camserve.stages import Stopwatch
from camserve.wire import Envelope, ModelBody, Outcome, Reply

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A request's photos, and how their answers are to be written.

    Attributes:
        envelope: the form of its reply.
        photos: by the place of their job in the batch; an error where there is none.
    """

    envelope: Envelope
    photos: tuple[int | RequestError, ...]


@dataclass(frozen=True)
class Batch:
    """Requests read and photos ready, in the order of the rows; or answered already."""

    requests: tuple[Asked | Reply, ...]
    jobs: tuple[Job | RequestError, ...]
    watch: Stopwatch


@dataclass(frozen=True)
class Pass:
    """One forward pass over some of a batch's jobs, and their places there."""

    places: Sequence[int]
    jobs: Sequence[Job]
    scores: gradcam.Scores


@dataclass(frozen=True)
class Scored:
    """A batch and its forward passes."""

    batch: Batch
    passes: tuple[Pass, ...]


class Pipeline:
    """A loaded archive.

    Args:
        model: what replies call it.
        settings: of the operator.
        network: the classifier.
        ways: through it, the fastest first, each with the hooks of the layers that it can explain.
        fast: how the first of them runs.
        batch_size: how many photos share a forward pass at most.
        threads: that pictures are decoded and drawn in.
    """

    def __init__(
        self,
        model: ModelBody,
        settings: Settings,
        network: Network,
        ways: Sequence[gradcam.TargetLayers],
        fast: trunk.Fast,
        batch_size: int,
        threads: int,
    ) -> None:
        self.model = model
        self.settings = settings
        self.network = network
        self.ways = tuple(ways)
        self.fast = fast
        self.batch_size = batch_size
        self._answers = Answers(model, network.labels, settings.preprocess.crop)
        self._threads = ThreadPoolExecutor(threads, "pictures")

    @classmethod
    def load(
        cls, config: dict[str, Any], directory: Path, model: ModelBody, device: torch.device
    ) -> Pipeline:
        """Load an unpacked archive, make its network fast and register the hooks.

        Every kernel that a batch of up to ``batchSize`` photos needs is built when it returns.

        Args:
            config: the parsed model-config.yaml.
            directory: of the archive's files.
            model: the name and version to reply with.
            device: where the network runs.

        Raises:
            SettingsError: a setting, a file or a layer does not fit; the message names it.
        """
        settings = Settings.from_yaml(config)
        batch_size, workers = config.get("batchSize", 1), config.get("maxWorkers", 1)
        threads = machine.threads(settings.threads, workers)
        torch.set_num_threads(threads)
        network = Network.load(settings, directory, device)
        machine.release()
        example = network.example(settings.preprocess.crop)
        # A layer that is not there stops the load; one that cannot be cut at does not.
        gradcam.find_layer(network.module, settings.layer)
        fast = trunk.accelerate(
            network.module,
            settings.layer,
            example,
            batch_size,
            settings.precision,
            settings.compile,
        )
        ways = []
        if fast.cut is not None:
            place = {settings.layer: fast.cut.layer}
            ways.append(gradcam.TargetLayers(fast.cut, place, example))
        if fast.cut is None or len(settings.served) > 1:
            ways.append(gradcam.TargetLayers(network.module, settings.served, example))
        else:
            # What the fast trunk was made of is needed no more.
            network = replace(network, module=fast.cut)
        settings = _fitted(settings, network, ways[0].classes)
        for way in ways:
            _warm_up(way, example, batch_size)
        machine.release()
        logger.info(
            "%s %s: %s on %s, %d classes, layers %s, %s, %s%s, %d threads",
            model["name"], model["version"], settings.arch, device, len(network.labels),
            ", ".join(settings.served), fast.precision, "compiled" if fast.compiled else "eager",
            f" ({fast.reason})" if fast.reason else "", threads,
        )  # fmt: skip
        return cls(model, settings, network, ways, fast, batch_size, threads)

    def preprocess(self, rows: Sequence[Row]) -> Batch:
        """Rows as the server hands them on -> photos and what is asked of them."""
        watch, plans = Stopwatch(), list[Plan]()
        with watch.stage("read"):
            asked = tuple(self._read(row, plans) for row in rows)
        with watch.stage("decode"):
            ready = self._side_by_side(
                jobs.ready, [(plan, self.settings.preprocess) for plan in plans]
            )
        return Batch(asked, tuple(ready), watch)

    def inference(self, batch: Batch) -> Scored:
        """The forward passes for all living jobs, the heads on the tape.

        A request may carry several photos; more than the batch size go through in several passes.
        So do those that are explained at other layers than the default: what a photo is answered
        depends on no other.
        """
        passes = []
        with batch.watch.stage("forward"):
            for way in self.ways:
                alive = [
                    (place, job)
                    for place, job in enumerate(batch.jobs)
                    if isinstance(job, Job) and self._way(job) is way
                ]
                for start in range(0, len(alive), self.batch_size):
                    places, living = zip(*alive[start : start + self.batch_size], strict=True)
                    inputs = self.network.normalise(np.stack([job.crop for job in living]))
                    layers = explain.layers_of(job.wish for job in living)
                    passes.append(Pass(places, living, way.forward(inputs, layers)))
        return Scored(batch, tuple(passes))

    def postprocess(self, scored: Scored) -> list[Reply]:
        """The backwards for all chosen scores, then each row's reply, in order."""
        batch, watch = scored.batch, scored.batch.watch
        tasks: list[tuple[int, tuple[Any, ...]]] = []
        with watch.stage("backward"):
            for one in scored.passes:
                results = explain.explain(one.scores, [job.wish for job in one.jobs])
                tasks += [
                    (place, (job, n, results))
                    for n, (place, job) in enumerate(zip(one.places, one.jobs, strict=True))
                ]
        with watch.stage("draw"):
            answers = self._side_by_side(self._answers.answer, [task for _, task in tasks])
        outcomes: dict[int, Outcome] = {
            place: job for place, job in enumerate(batch.jobs) if isinstance(job, RequestError)
        }
        outcomes.update(zip((place for place, _ in tasks), answers, strict=True))
        with watch.stage("write"):
            return [
                self._reply(request, outcomes) if isinstance(request, Asked) else request
                for request in batch.requests
            ]

    def describe(self) -> Reply:
        """What the model can do, for whoever asks before calling it."""
        shapes = {name: shape for way in self.ways for name, shape in way.shapes.items()}
        return wire.written(
            description.describe(self.model, self.settings, self.network, self.fast, shapes)
        )

    def _read(self, row: Row, plans: list[Plan]) -> Asked | Reply:
        """A request read; its photos' plans are added to the batch's."""
        if row.describe:
            return self.describe()
        request = _attempt(requests.read, row, self.settings)
        if isinstance(request, RequestError):
            return requests.envelope(row).refused(request, self.model)
        if isinstance(request.instances, RequestError):
            return request.envelope.refused(request.instances, self.model)
        purse = Purse(self.settings.limits)
        photos: list[int | RequestError] = []
        for instance in request.instances:
            plan = (
                _attempt(jobs.plan, instance, self.settings, self.network.labels, purse)
                if isinstance(instance, Instance)
                else instance
            )
            if isinstance(plan, Plan):
                photos.append(len(plans))
                plans.append(plan)
            else:
                photos.append(plan)
        return Asked(request.envelope, tuple(photos))

    def _way(self, job: Job) -> gradcam.TargetLayers:
        """The fastest way through the network that can explain what is asked of a photo."""
        layers = set(explain.layers_of([job.wish]))
        return next(way for way in self.ways if layers <= way.shapes.keys())

    def _side_by_side(
        self, step: Callable[..., T], tasks: Sequence[tuple[Any, ...]]
    ) -> list[T | RequestError]:
        """One step for many photos, in threads: OpenCV and Pillow work without Python's lock."""
        if len(tasks) < 2:
            return [_attempt(step, *task) for task in tasks]
        return list(self._threads.map(lambda task: _attempt(step, *task), tasks))

    def _reply(self, request: Asked, outcomes: Mapping[int, Outcome]) -> Reply:
        """One request's reply."""
        of_request = [
            outcomes[photo] if isinstance(photo, int) else photo for photo in request.photos
        ]
        reply = _attempt(request.envelope.reply, of_request, self.model)
        limit = self.settings.limits.reply_bytes
        if isinstance(reply, Reply) and len(reply.body) > limit:
            reply = RequestError(
                "reply_too_large",
                f"the reply would have {len(reply.body)} bytes; accepted: up to {limit}. {SMALLER}",
            )
        if isinstance(reply, RequestError):
            return request.envelope.refused(reply, self.model)
        return reply


def _fitted(settings: Settings, network: Network, classes: int) -> Settings:
    """The operator's settings held to the network's classes; a default ``top_k`` is cut to them."""
    labels = network.labels
    if classes != len(labels):
        raise SettingsError(
            f"the network scores {classes} classes, but {settings.labels} names {len(labels)}"
        )
    defaults = settings.defaults
    try:
        labels.resolve(defaults.target, settings.limits.targets)
    except RequestError as error:
        raise SettingsError(f"handler.defaults.target: {error.message}") from None
    defaults = defaults.model_copy(update={"top_k": min(defaults.top_k, classes)})
    return settings.model_copy(update={"defaults": defaults})


def _warm_up(way: gradcam.TargetLayers, example: torch.Tensor, batch_size: int) -> None:
    """Have every kernel built: one is made for each shape that comes along."""
    for size in range(1, batch_size + 1):
        batch = example.expand(size, -1, -1, -1)
        scores = way.forward(batch.contiguous(memory_format=torch.channels_last), [*way.shapes][:1])
        torch.autograd.grad(scores.logits.sum(), list(scores.activations.values()))


def _attempt(step: Callable[..., T], *args: Any) -> T | RequestError:
    """One photo's step; whatever goes wrong in it stays its own."""
    try:
        return step(*args)
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request failed in %s", step.__name__)
        return RequestError("internal_error", "the server failed on this request; see its log")
