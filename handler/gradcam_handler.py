"""What TorchServe loads: a thin adapter onto :mod:`camserve.pipeline`.

This module defines one class and no more: TorchServe refuses an entry module with two.
"""

from __future__ import annotations

import gc
import logging
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

# isort: off
# First, since it says what of OpenVINO TorchServe's base handler is to leave alone.
from camserve.protocols import replies
from camserve import request_log, pipeline
from camserve.protocols import parsing

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler
# isort: on

logger = logging.getLogger("camserve")


class GradCamHandler(BaseHandler):  # type: ignore[misc]  # TorchServe is untyped
    """Serves an image classifier whose replies explain themselves."""

    def initialize(self, context: Any) -> None:
        """Load network and labels and register the Grad-CAM hook.

        Raises:
            SettingsError: the archive does not fit together; the worker stops with its message.
        """
        properties = context.system_properties
        on_gpu = torch.cuda.is_available() and properties.get("gpu_id") is not None
        self.device = (
            torch.device("cuda", int(properties["gpu_id"])) if on_gpu else torch.device("cpu")
        )
        self.manifest = context.manifest
        version = self.manifest["model"].get("modelVersion", "1.0")
        self.pipeline = pipeline.Pipeline.load(
            context.model_yaml_config,
            Path(properties["model_dir"]),
            {"name": context.model_name, "version": version},
            self.device,
        )
        self.model = self.pipeline.network.module
        # All that is loaded stays: the collector need not walk through it between requests.
        gc.freeze()
        # TorchServe's own lines for each request, which this handler's say better.
        logging.getLogger().addFilter(request_log.is_torchserve_request_noise)
        for handler in logging.getLogger().handlers:
            # Loading is over: what fails from now on, fails on somebody's request.
            handler.addFilter(request_log.hide_exception_message)
        self.initialized = True

    def preprocess(self, data: list[parsing.IncomingRequest]) -> pipeline.Batch:
        """Requests -> photos and what is asked of them."""
        return self.pipeline.preprocess(data)

    def inference(self, data: pipeline.Batch) -> pipeline.ScoredBatch:
        """One forward pass for the batch, the head on the tape."""
        return self.pipeline.inference(data)

    def postprocess(self, data: pipeline.ScoredBatch) -> list[replies.Reply]:
        """One backward for the predicted or requested class of every request, then the replies."""
        return self.pipeline.postprocess(data)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch: each request by itself, whatever stands beside it."""
        start = perf_counter()
        headers = [self._http(context.get_all_request_header(n)) for n in range(len(data))]
        rows = [
            parsing.IncomingRequest(
                fields,
                sent,
                path=sent.get("url_path", ""),
                force_explain=sent.get("explain") == "True",
                # Asked through the management API, which sends nothing else.
                is_describe_call=not fields and sent.get("describe") == "True",
                id=context.get_request_id(n) or "",
            )
            for n, (fields, sent) in enumerate(zip(data, headers, strict=True))
        ]
        scored = self.inference(self.preprocess(rows))
        answers = self.postprocess(scored)
        for n, answer in enumerate(answers):
            phrase = HTTPStatus(answer.status).phrase
            context.set_response_status(answer.status, phrase, n)
            context.set_response_content_type(n, answer.content_type)
            if not headers[n]:
                # StreamPredictions kills the worker without this header; it hangs an HTTP client.
                context.set_response_header(n, "ts_stream_next", "false")
        self._tell(scored.batch, perf_counter() - start, context.metrics)
        return [answer.body for answer in answers]

    def _tell(self, batch: pipeline.Batch, seconds: float, metrics: Any) -> None:
        """Tell the log and the server's metrics what became of a batch."""
        model = self.pipeline.model
        for entry in batch.records:
            line = request_log.line(entry, model, len(batch.requests), seconds)
            logger.log(entry.level, "%s", line)
        metrics.add_time("HandlerTime", seconds * 1000, None, "ms")
        for sample in request_log.samples(batch.records, batch.timer.seconds):
            labels = {"ModelName": model["name"], **sample.labels, "Level": "Model"}
            dimensions = [Dimension(name, value) for name, value in labels.items()]
            kind = MetricTypes.COUNTER if sample.counts else MetricTypes.HISTOGRAM
            metrics.add_metric(sample.name, sample.value, sample.unit, None, dimensions, kind)

    @staticmethod
    def _http(headers: dict[str, Any]) -> dict[str, str]:
        """A request's HTTP headers, names in lower case; none for gRPC.

        Beside them stands each field's content type, which is a dict, whatever the transport.
        """
        return {name.lower(): sent for name, sent in headers.items() if isinstance(sent, str)}
