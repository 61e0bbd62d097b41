"""A batch from its first byte to its last.

``preprocess`` reads the requests and makes their photos ready, ``inference`` runs the network once,
``postprocess`` runs one backward and writes the replies. A request that fails keeps its place as a
:class:`RequestError`; its neighbours never notice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camserve import gradcam, pictures, render, replies, requests
from camserve.errors import RequestError, SettingsError
from camserve.network import Network
from camserve.options import Options
from camserve.pictures import Picture
from camserve.replies import Explanation, Model, Prediction, Reply
from camserve.requests import Row
from camserve.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One photo on its way through the network.

    Attributes:
        picture: the photo.
        options: what is asked of it.
        target: the class to explain; None for the predicted one.
    """

    picture: Picture
    options: Options
    target: int | None


@dataclass(frozen=True)
class Batch:
    """Requests read and photos ready, in the order of the rows."""

    jobs: tuple[Job | RequestError, ...]

    @property
    def alive(self) -> list[Job]:
        """The jobs that go through the network, in order."""
        return [job for job in self.jobs if isinstance(job, Job)]


@dataclass(frozen=True)
class Scored:
    """A batch and its scores, one row for each living job; None where no job lives."""

    batch: Batch
    scores: gradcam.Scores | None


class Pipeline:
    """A loaded archive.

    Args:
        model: what replies call it.
        settings: of the operator.
        network: the classifier.
        layer: the hook on the layer to explain.
    """

    def __init__(
        self, model: Model, settings: Settings, network: Network, layer: gradcam.TargetLayer
    ) -> None:
        self.model = model
        self.settings = settings
        self.network = network
        self.layer = layer

    @classmethod
    def load(
        cls, config: dict[str, Any], directory: Path, model: Model, device: torch.device
    ) -> Pipeline:
        """Load an unpacked archive and register its hook.

        Args:
            config: the parsed model-config.yaml.
            directory: of the archive's files.
            model: the name and version to reply with.
            device: where the network runs.

        Raises:
            SettingsError: a setting, a file or the layer does not fit; the message names it.
        """
        settings = Settings.from_yaml(config)
        network = Network.load(settings, directory, device)
        side = settings.preprocess.crop
        example = network.normalise(np.zeros((1, side, side, 3), np.uint8))
        layer = gradcam.TargetLayer(network.module, settings.layer, example)
        settings = _fitted(settings, network, layer)
        logger.info(
            "%s %s: %s on %s, %d classes, layer %s, %d threads",
            model.name, model.version, settings.arch, device, len(network.labels), layer.name,
            torch.get_num_threads(),
        )  # fmt: skip
        return cls(model, settings, network, layer)

    def preprocess(self, rows: Sequence[Row]) -> Batch:
        """Rows as the server hands them on -> photos and what is asked of them."""
        return Batch(tuple(_attempt(self._prepare, row) for row in rows))

    def inference(self, batch: Batch) -> Scored:
        """One forward pass for all living jobs, the head on the tape."""
        crops = [job.picture.crop for job in batch.alive]
        if not crops:
            return Scored(batch, None)
        return Scored(batch, self.layer.forward(self.network.normalise(np.stack(crops))))

    def postprocess(self, scored: Scored) -> list[Reply]:
        """One backward for all chosen classes, then each row's reply, in order."""
        if scored.scores is None:
            outcomes: list[Reply | RequestError] = []
        else:
            outcomes = self._explain(scored.batch.alive, scored.scores)
        living = iter(outcomes)
        results = [next(living) if isinstance(job, Job) else job for job in scored.batch.jobs]
        return [
            replies.refused(result) if isinstance(result, RequestError) else result
            for result in results
        ]

    def _prepare(self, row: Row) -> Job:
        instance = requests.read(row, self.settings)
        options, classes = instance.options, len(self.network.labels)
        target = self.network.labels.resolve(options.target)
        if options.top_k > classes:
            raise RequestError(
                "invalid_option",
                f"option 'top_k': {options.top_k} is not accepted; accepted: 1 to {classes}",
            )
        picture = pictures.open_picture(
            instance.image, self.settings.preprocess, self.settings.limits
        )
        return Job(picture, options, target)

    def _explain(self, jobs: Sequence[Job], scores: gradcam.Scores) -> list[Reply | RequestError]:
        """The scores and maps of all living jobs brought to the host, then one reply for each."""
        logits = scores.logits.detach().float()
        results = _Results(
            logits.cpu().numpy(),
            logits.softmax(dim=1).cpu().numpy(),
            self._maps(jobs, scores, logits.argmax(dim=1)),
        )
        return [_attempt(self._reply, job, n, results) for n, job in enumerate(jobs)]

    def _maps(
        self, jobs: Sequence[Job], scores: gradcam.Scores, predicted: Tensor
    ) -> dict[int, _Map]:
        """The map of every job that wants one, by the job's place among ``jobs``."""
        wanted = [n for n, job in enumerate(jobs) if job.options.explain]
        if not wanted:
            return {}
        samples = torch.tensor(wanted, device=predicted.device)
        named = torch.tensor(
            [-1 if (target := jobs[n].target) is None else target for n in wanted],
            device=predicted.device,
        )
        classes = torch.where(named < 0, predicted[samples], named)
        gradients = gradcam.gradients(scores, samples, classes)
        activations = scores.activations.detach()[samples]
        maps = gradcam.normalise(gradcam.gradcam(activations.float(), gradients.float()))
        columns = (classes, maps.values, maps.peak, maps.evidence)
        rows = zip(*(column.cpu().numpy() for column in columns), strict=True)
        return {
            n: _Map(int(class_id), values, float(peak), bool(evidence))
            for n, (class_id, values, peak, evidence) in zip(wanted, rows, strict=True)
        }

    def _reply(self, job: Job, n: int, results: _Results) -> Reply:
        logits = results.logits[n]
        map = results.maps.get(n)
        if not np.isfinite(logits).all() or (map and not math.isfinite(map.peak)):
            raise RequestError(
                "non_finite_scores", "the network's scores for this photo are not finite"
            )

        def prediction(class_id: int) -> Prediction:
            return Prediction(
                class_id,
                self.network.labels[class_id],
                float(results.probabilities[n, class_id]),
                float(logits[class_id]),
            )

        # A stable sort: of equal scores the lower index comes first, as argmax has it.
        best = np.argsort(-logits, kind="stable")[: job.options.top_k]
        return replies.explained(
            self.model,
            job.picture.frame,
            [prediction(int(class_id)) for class_id in best],
            [self._explanation(job, map, prediction(map.class_id))] if map else [],
        )

    def _explanation(self, job: Job, map: _Map, prediction: Prediction) -> Explanation:
        return Explanation(
            prediction,
            job.options.method,
            self.layer.name,
            map.evidence,
            map.peak,
            render.draw(map.values, job.picture.crop, job.options),
        )


@dataclass(frozen=True)
class _Map:
    """One class's map, on the host: ``values`` (h, w) in [0, 1]."""

    class_id: int
    values: NDArray[np.float32]
    peak: float
    evidence: bool


@dataclass(frozen=True)
class _Results:
    """What the network says of N photos, on the host: (N, C) each, and the maps by photo."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    maps: dict[int, _Map]


def _fitted(settings: Settings, network: Network, layer: gradcam.TargetLayer) -> Settings:
    """The operator's settings held to the network's classes; a default ``top_k`` is cut to them."""
    labels = network.labels
    if layer.classes != len(labels):
        raise SettingsError(
            f"the network scores {layer.classes} classes, but {settings.labels} names {len(labels)}"
        )
    defaults = settings.defaults
    try:
        labels.resolve(defaults.target)
    except RequestError as error:
        raise SettingsError(f"handler.defaults.target: {error.message}") from None
    defaults = defaults.model_copy(update={"top_k": min(defaults.top_k, layer.classes)})
    return settings.model_copy(update={"defaults": defaults})


def _attempt(step: Callable[..., T], *args: Any) -> T | RequestError:
    """One request's step; whatever goes wrong in it stays its own."""
    try:
        return step(*args)
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request failed in %s", step.__name__)
        return RequestError("internal_error", "the server failed on this request; see its log")
