"""A batch from its first byte to its last.

``preprocess`` reads the requests and makes their photos ready, ``inference`` runs the network,
``postprocess`` runs the short backwards and writes the replies. A request or a photo that fails
keeps its place as a :class:`RequestError`; its neighbours never notice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from camserve import description, explain, gradcam, pictures, render, replies, requests, wire
from camserve.errors import RequestError, SettingsError, shown
from camserve.explain import Explained, Wish
from camserve.geometry import Frame, Pixels, View
from camserve.network import Network
from camserve.options import Options
from camserve.requests import Instance, Row
from camserve.settings import Limits, Settings
from camserve.wire import AnswerBody, Envelope, ModelBody, Outcome, PredictionBody, Reply

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One photo on its way through the network.

    Attributes:
        crop: (crop, crop, 3) RGB, 0 to 255: what the network sees, before normalisation.
        frame: where that lies in the photo.
        view: what the reply's pictures show.
        options: what is asked of the photo.
        wish: what is to be explained of it.
    """

    crop: Pixels
    frame: Frame
    view: View
    options: Options
    wish: Wish


@dataclass(frozen=True)
class Asked:
    """A request's photos, and how their answers are to be written."""

    envelope: Envelope
    jobs: tuple[Job | RequestError, ...]


@dataclass(frozen=True)
class Batch:
    """Requests read and photos ready, in the order of the rows; or answered already."""

    requests: tuple[Asked | Reply, ...]

    @property
    def jobs(self) -> list[Job]:
        """Those that go through the network, in order."""
        asked = (request for request in self.requests if isinstance(request, Asked))
        return [job for request in asked for job in request.jobs if isinstance(job, Job)]


@dataclass(frozen=True)
class Pass:
    """One forward pass over some of a batch's jobs."""

    jobs: Sequence[Job]
    scores: gradcam.Scores


@dataclass(frozen=True)
class Scored:
    """A batch and its forward passes; all its jobs, in order."""

    batch: Batch
    passes: tuple[Pass, ...]


class Pipeline:
    """A loaded archive.

    Args:
        model: what replies call it.
        settings: of the operator.
        network: the classifier.
        layers: the hooks on the layers to explain.
        batch_size: how many photos share a forward pass at most.
    """

    def __init__(
        self,
        model: ModelBody,
        settings: Settings,
        network: Network,
        layers: gradcam.TargetLayers,
        batch_size: int,
    ) -> None:
        self.model = model
        self.settings = settings
        self.network = network
        self.layers = layers
        self.batch_size = batch_size

    @classmethod
    def load(
        cls, config: dict[str, Any], directory: Path, model: ModelBody, device: torch.device
    ) -> Pipeline:
        """Load an unpacked archive and register its hooks.

        Args:
            config: the parsed model-config.yaml.
            directory: of the archive's files.
            model: the name and version to reply with.
            device: where the network runs.

        Raises:
            SettingsError: a setting, a file or a layer does not fit; the message names it.
        """
        settings = Settings.from_yaml(config)
        network = Network.load(settings, directory, device)
        side = settings.preprocess.crop
        example = network.normalise(np.zeros((1, side, side, 3), np.uint8))
        layers = gradcam.TargetLayers(network.module, settings.served, example)
        settings = _fitted(settings, network, layers)
        logger.info(
            "%s %s: %s on %s, %d classes, layers %s, %d threads",
            model["name"], model["version"], settings.arch, device, len(network.labels),
            ", ".join(settings.served), torch.get_num_threads(),
        )  # fmt: skip
        return cls(model, settings, network, layers, config.get("batchSize", 1))

    def preprocess(self, rows: Sequence[Row]) -> Batch:
        """Rows as the server hands them on -> photos and what is asked of them."""
        return Batch(tuple(self._read(row) for row in rows))

    def inference(self, batch: Batch) -> Scored:
        """The forward passes for all living jobs, the heads on the tape.

        A request may carry several photos; more than the batch size go through in several passes.
        """
        passes = []
        alive = batch.jobs
        for start in range(0, len(alive), self.batch_size):
            jobs = alive[start : start + self.batch_size]
            inputs = self.network.normalise(np.stack([job.crop for job in jobs]))
            layers = explain.layers_of(job.wish for job in jobs)
            passes.append(Pass(jobs, self.layers.forward(inputs, layers)))
        return Scored(batch, tuple(passes))

    def postprocess(self, scored: Scored) -> list[Reply]:
        """The backwards for all chosen scores, then each row's reply, in order."""
        outcomes = (outcome for one in scored.passes for outcome in self._outcomes(one))
        return [
            self._reply(request, outcomes) if isinstance(request, Asked) else request
            for request in scored.batch.requests
        ]

    def describe(self) -> Reply:
        """What the model can do, for whoever asks before calling it."""
        return wire.written(
            description.describe(self.model, self.settings, self.network, self.layers)
        )

    def _read(self, row: Row) -> Asked | Reply:
        if row.describe:
            return self.describe()
        request = _attempt(requests.read, row, self.settings)
        if isinstance(request, RequestError):
            return requests.envelope(row).refused(request, self.model)
        if isinstance(request.instances, RequestError):
            return request.envelope.refused(request.instances, self.model)
        purse = _Purse(self.settings.limits)
        return Asked(
            request.envelope,
            tuple(
                _attempt(self._prepare, instance, purse)
                if isinstance(instance, Instance)
                else instance
                for instance in request.instances
            ),
        )

    def _prepare(self, instance: Instance, purse: _Purse) -> Job:
        options, classes = instance.options, len(self.network.labels)
        limits, preprocess = self.settings.limits, self.settings.preprocess
        targets = self.network.labels.resolve(options.target, limits.targets)
        if options.top_k > classes:
            raise RequestError(
                "invalid_option",
                f"option 'top_k': {shown(options.top_k)} is not accepted; accepted: 1 to {classes}",
            )
        if not options.explain:
            targets = ()
        pictured = len(targets) * len(render.PICTURES & set(options.outputs))
        # Where no picture is drawn, nothing of the photo need be kept.
        size = options.size if pictured else "model"
        photo = pictures.decode(instance.image, limits, purse.pixels)
        crop, frame = pictures.fit(photo, preprocess)
        frame_shown = pictures.shown(frame, preprocess, size)
        purse.spend(frame, pictured * frame_shown.width * frame_shown.height)
        view = pictures.view(photo, crop, frame_shown, size)
        return Job(crop, frame, view, options, Wish(targets, options.layer or (), options.method))

    def _outcomes(self, one: Pass) -> Iterator[Outcome]:
        """The scores and maps of one pass brought to the host, then what became of each job."""
        logits = one.scores.logits.detach().float()
        # A stable sort: of equal scores the lower index comes first, as argmax has it.
        order = logits.argsort(dim=1, descending=True, stable=True)
        results = _Results(
            logits.cpu().numpy(),
            logits.softmax(dim=1).cpu().numpy(),
            order.cpu().numpy(),
            explain.explain(one.scores, order, [job.wish for job in one.jobs]),
        )
        for n, job in enumerate(one.jobs):
            yield _attempt(self._answer, job, n, results)

    def _answer(self, job: Job, n: int, results: _Results) -> AnswerBody:
        logits, explained = results.logits[n], results.explained[n]
        peaks = [map.peak for one in explained for map in one.maps]
        if not np.isfinite(logits).all() or not all(math.isfinite(peak) for peak in peaks):
            raise RequestError(
                "non_finite_scores", "the network's scores for this photo are not finite"
            )
        return replies.answer(
            self.model,
            job.frame,
            [self._prediction(int(c), n, results) for c in results.order[n, : job.options.top_k]],
            [self._explanation(job, one, n, results) for one in explained],
        )

    def _prediction(self, class_id: int, n: int, results: _Results) -> PredictionBody:
        return {
            "class_id": class_id,
            "label": self.network.labels[class_id],
            "probability": float(results.probabilities[n, class_id]),
            "score": float(results.logits[n, class_id]),
        }

    def _explanation(
        self, job: Job, one: Explained, n: int, results: _Results
    ) -> replies.Explanation:
        side = self.settings.preprocess.crop
        heat = render.Heat([map.values for map in one.maps], side)
        return replies.Explanation(
            prediction=self._prediction(one.class_id, n, results),
            against=None if one.against is None else self._prediction(one.against, n, results),
            method=job.wish.method,
            layers=job.wish.layers,
            evidence=any(map.evidence for map in one.maps) and not heat.flat,
            peak=one.maps[0].peak if len(one.maps) == 1 else heat.peak,
            drawings=render.draw(heat, job.view, job.frame, side, job.options),
        )

    def _reply(self, request: Asked, outcomes: Iterator[Outcome]) -> Reply:
        """One request's reply; its living jobs take theirs from ``outcomes``."""
        of_request = [next(outcomes) if isinstance(job, Job) else job for job in request.jobs]
        reply = _attempt(request.envelope.reply, of_request, self.model)
        limit = self.settings.limits.reply_bytes
        if isinstance(reply, Reply) and len(reply.body) > limit:
            reply = RequestError(
                "reply_too_large",
                f"the reply would have {len(reply.body)} bytes; accepted: up to {limit}. "
                f"{_SMALLER}",
            )
        if isinstance(reply, RequestError):
            return request.envelope.refused(reply, self.model)
        return reply


_SMALLER: Final = (
    "Ask for a smaller size, for jpeg or webp, for fewer targets or outputs, or send fewer photos"
)


class _Purse:
    """What is left of the limits that all photos of a request share.

    Attributes:
        pixels: that further photos may have.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.pixels = limits.pixels
        self._drawn = limits.drawn_pixels

    def spend(self, frame: Frame, drawn: int) -> None:
        """Take a photo, and the pixels of the pictures that are to be drawn of it.

        Raises:
            RequestError: ``reply_too_large``.
        """
        self.pixels -= frame.width * frame.height
        if drawn > self._drawn:
            raise RequestError(
                "reply_too_large",
                f"the pictures of this photo would have {drawn} pixels, with {self._drawn} left of "
                f"the {self._limits.drawn_pixels} that a reply may have. {_SMALLER}",
            )
        self._drawn -= drawn


@dataclass(frozen=True)
class _Results:
    """What the network says of N photos, on the host: (N, C) each, and their explanations."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    order: NDArray[np.int64]
    explained: list[list[Explained]]


def _fitted(settings: Settings, network: Network, layers: gradcam.TargetLayers) -> Settings:
    """The operator's settings held to the network's classes; a default ``top_k`` is cut to them."""
    labels = network.labels
    if layers.classes != len(labels):
        raise SettingsError(
            f"the network scores {layers.classes} classes, but {settings.labels} names "
            f"{len(labels)}"
        )
    defaults = settings.defaults
    try:
        labels.resolve(defaults.target, settings.limits.targets)
    except RequestError as error:
        raise SettingsError(f"handler.defaults.target: {error.message}") from None
    defaults = defaults.model_copy(update={"top_k": min(defaults.top_k, layers.classes)})
    return settings.model_copy(update={"defaults": defaults})


def _attempt(step: Callable[..., T], *args: Any) -> T | RequestError:
    """One photo's step; whatever goes wrong in it stays its own."""
    try:
        return step(*args)
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request failed in %s", step.__name__)
        return RequestError("internal_error", "the server failed on this request; see its log")
