"""A batch from its first byte to its last.

``preprocess`` parses the requests and prepares their photos, ``inference`` runs the network,
``postprocess`` runs the short backwards and builds the replies. A request or a photo that fails
keeps its index as a :class:`RequestError`; its neighbours in the batch are not affected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from camserve.batch import (
    Batch,
    ForwardPass,
    IndexedPhotos,
    ParsedRequest,
    ScoredBatch,
    network_inputs,
)
from camserve.description import describe
from camserve.errors import RequestError
from camserve.explain import (
    BatchExplanations,
    DecisionRule,
    ForwardOutput,
    HookedNetwork,
    explain_batch,
    required_layers,
)
from camserve.faithfulness_stage import FaithfulnessStage
from camserve.model import LoadedModel
from camserve.photo_preparation import DecodePlan, PreparedPhoto, plan_photo, prepare_photo
from camserve.protocols import (
    ImageRequest,
    IncomingRequest,
    ModelBody,
    PhotoOutcome,
    Reply,
    ReplyFormat,
    detect_protocol,
    json_reply,
    parse_request,
)
from camserve.record import RecordBuilder
from camserve.reply_builder import PhotoResult, ReplyBuilder
from camserve.request_budget import REDUCE_REPLY_HINT, RequestBudget
from camserve.request_log import RequestRecord
from camserve.runtime import StageTimer, ThreadPool, bisect_on_failure, capture_error


class Pipeline:
    """What a batch goes through in a loaded archive.

    Args:
        model: the name and version that replies carry.
        loaded: the loaded archive.
    """

    def __init__(self, model: ModelBody, loaded: LoadedModel) -> None:
        self.model = model
        self.loaded = loaded
        self.settings = loaded.settings
        self.network = loaded.network
        self.forward_paths = loaded.forward_paths
        self.batch_size = loaded.batch_size
        self._reply_builder = ReplyBuilder(
            model,
            self.network.labels,
            self.settings.limits.targets,
            self.settings.preprocess.input_size,
            RecordBuilder(model, loaded),
        )
        self._decision_rule = DecisionRule(
            self.settings.task, self.settings.decision_threshold, self.settings.limits.targets
        )
        self._faithfulness = FaithfulnessStage(loaded, self._decision_rule)
        self._pool = ThreadPool(loaded.threads)

    @classmethod
    def load(
        cls, config: dict[str, Any], directory: Path, model: ModelBody, device: torch.device
    ) -> Pipeline:
        """Load an unpacked archive, as :meth:`LoadedModel.load` does.

        Args:
            config: the parsed model-config.yaml.
            directory: of the archive's files.
            model: the name and version that replies carry.
            device: where the network runs.
        """
        return cls(model, LoadedModel.load(config, directory, device))

    def preprocess(self, requests: Sequence[IncomingRequest]) -> Batch:
        """Parse requests, and decode their photos side by side."""
        timer = StageTimer()
        parsed: list[ParsedRequest | Reply] = []
        plans: list[DecodePlan] = []
        with timer.stage("read"):
            for request in requests:
                result, of_request = self._parse(request, first=len(plans))
                parsed.append(result)
                plans += of_request
        with timer.stage("decode"):
            photos = self._pool.map(partial(prepare_photo, plan, self.settings) for plan in plans)
        return Batch(tuple(parsed), tuple(photos), timer)

    def inference(self, batch: Batch) -> ScoredBatch:
        """Run the network on all valid photos, with autograd recording the heads.

        A request may carry several photos; more than the batch size take several passes. So do
        photos that are explained at other layers than the default: what a photo is answered depends
        on no other photo.
        """
        passes, failed = list[ForwardPass](), dict[int, RequestError]()
        with batch.timer.stage("forward"):
            for path in self.forward_paths:
                valid = [
                    (index, photo)
                    for index, photo in enumerate(batch.photos)
                    if isinstance(photo, PreparedPhoto)
                    and self.loaded.select_path(photo.explanation_request) is path
                ]
                for start in range(0, len(valid), self.batch_size):
                    chunk = valid[start : start + self.batch_size]
                    for photos, output in bisect_on_failure(partial(self._forward, path), chunk):
                        if isinstance(output, RequestError):
                            failed.update((index, output) for index, _ in photos)
                        else:
                            passes.append(ForwardPass(path, photos, output))
        return ScoredBatch(batch, tuple(passes), failed)

    def postprocess(self, scored: ScoredBatch) -> list[Reply]:
        """Run the backwards for all chosen scores, then build each request's reply, in order.

        Masked photos come last, when what the other requests ask for is computed.
        """
        batch, timer = scored.batch, scored.batch.timer
        outcomes: dict[int, PhotoOutcome] = {
            index: photo
            for index, photo in enumerate(batch.photos)
            if isinstance(photo, RequestError)
        }
        outcomes.update(scored.failed)
        results = dict[int, PhotoResult]()
        with timer.stage("backward"):
            for index, result in self._photo_results(scored):
                if isinstance(result, RequestError):
                    outcomes[index] = result
                else:
                    results[index] = result
        with timer.stage("draw"):
            rendered = self._pool.map_pipelined(
                [self._reply_builder.render(result) for result in results.values()]
            )
        with timer.stage("faithfulness"):
            measured = self._faithfulness.measure(results)
        with timer.stage("write"):
            for (index, result), outputs in zip(results.items(), rendered, strict=True):
                figures = measured.get(index)
                parts = [outputs, figures]
                failed = [part for part in parts if isinstance(part, RequestError)]
                outcomes[index] = (
                    failed[0]
                    if failed
                    else capture_error(self._reply_builder.build, result, outputs, figures)
                )
            return [
                self._reply(request, batch, outcomes)
                if isinstance(request, ParsedRequest)
                else request
                for request in batch.requests
            ]

    def describe(self) -> Reply:
        """What the model can do, for callers who ask before they call it."""
        return json_reply(describe(self.model, self.loaded))

    def _parse(
        self, request: IncomingRequest, first: int
    ) -> tuple[ParsedRequest | Reply, list[DecodePlan]]:
        """A request parsed, and the plans of its photos; ``first`` is the first one's index."""
        if request.is_describe_call:
            return self.describe(), []
        body = capture_error(parse_request, request, self.settings)
        if isinstance(body, RequestError):
            return ParsedRequest(request, detect_protocol(request), error=body), []
        if isinstance(body.instances, RequestError):
            return ParsedRequest(request, body.reply_format, error=body.instances), []
        budget = RequestBudget(self.settings.limits)
        photos: list[int | RequestError] = []
        plans: list[DecodePlan] = []
        for instance in body.instances:
            plan = (
                capture_error(plan_photo, instance, self.settings, self.network.labels, budget)
                if isinstance(instance, ImageRequest)
                else instance
            )
            if isinstance(plan, DecodePlan):
                photos.append(first + len(plans))
                plans.append(plan)
            else:
                photos.append(plan)
        return ParsedRequest(request, body.reply_format, tuple(photos)), plans

    def _forward(self, path: HookedNetwork, photos: IndexedPhotos) -> ForwardOutput:
        """One forward pass."""
        inputs = network_inputs(self.network, [photo for _, photo in photos])
        layers = required_layers(photo.explanation_request for _, photo in photos)
        return path.forward(inputs, layers)

    def _photo_results(
        self, scored: ScoredBatch
    ) -> Iterator[tuple[int, PhotoResult | RequestError]]:
        """Scores and maps of each photo that went through the network, with its index."""

        def explain(output: ForwardOutput, photos: IndexedPhotos) -> BatchExplanations:
            requests = [photo.explanation_request for _, photo in photos]
            return explain_batch(output, requests, self._decision_rule)

        def explain_again(path: HookedNetwork, photos: IndexedPhotos) -> BatchExplanations:
            # A backward uses up what autograd recorded: fewer photos need a pass of their own.
            return explain(self._forward(path, photos), photos)

        for one in scored.passes:
            first, retry = partial(explain, one.output), partial(explain_again, one.path)
            for photos, explanations in bisect_on_failure(first, one.photos, retry):
                for n, (index, photo) in enumerate(photos):
                    if isinstance(explanations, RequestError):
                        yield index, explanations
                    else:
                        collect = self._reply_builder.collect
                        yield index, capture_error(collect, photo, n, explanations)

    def _reply(
        self, parsed: ParsedRequest, batch: Batch, outcomes: Mapping[int, PhotoOutcome]
    ) -> Reply:
        """One request's reply; its record is added to the batch's."""
        reply_format, photos = parsed.reply_format, parsed.photos
        of_request = [outcomes[photo] if isinstance(photo, int) else photo for photo in photos]
        errors = [outcome for outcome in of_request if isinstance(outcome, RequestError)]
        answered = [
            (prepared, outcome)
            for photo, outcome in zip(photos, of_request, strict=True)
            if isinstance(photo, int)
            and isinstance(prepared := batch.photos[photo], PreparedPhoto)
            and not isinstance(outcome, RequestError)
        ]
        reply = (
            capture_error(self._serialize, reply_format, of_request)
            if parsed.error is None
            else parsed.error
        )
        if isinstance(reply, RequestError):
            errors, answered = [reply], []
            reply = reply_format.error_reply(reply, self.model)
        batch.records.append(
            RequestRecord.of(parsed.request, reply, reply_format.protocol, errors, answered)
        )
        return reply

    def _serialize(self, reply_format: ReplyFormat, outcomes: Sequence[PhotoOutcome]) -> Reply:
        """The outcomes of a request's photos in its protocol's format.

        Raises:
            RequestError: ``reply_too_large``.
        """
        reply, limit = reply_format.reply(outcomes, self.model), self.settings.limits.reply_bytes
        if len(reply.body) > limit:
            raise RequestError(
                "reply_too_large",
                f"the reply would have {len(reply.body)} bytes; accepted: up to {limit}. "
                f"{REDUCE_REPLY_HINT}",
            )
        return reply
