"""What TorchServe loads: a thin adapter onto :mod:`camserve.pipeline`.

This module defines one class and no more: TorchServe refuses an entry module with two.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

# isort: off
# First: it keeps TorchServe's base handler from importing OpenVINO's telemetry.
from camserve.batch import Batch, ScoredBatch
from camserve.metrics import MetricTotals, PeriodicEmission
from camserve.pipeline import Pipeline
from camserve.protocols import IncomingRequest, Reply
from camserve.request_log import (
    drop_torchserve_request_lines,
    hide_exception_message,
    log_line,
    metric_samples,
)

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
        self.pipeline = Pipeline.load(
            context.model_yaml_config,
            Path(properties["model_dir"]),
            {"name": context.model_name, "version": version},
            self.device,
        )
        self.model = self.pipeline.network.module
        self.totals = MetricTotals()
        self.emission = PeriodicEmission(lambda: self._emit_totals(context.metrics))
        # What is loaded stays: the garbage collector need not visit it between requests.
        gc.freeze()
        # The handler's own lines replace TorchServe's for each request.
        logging.getLogger().addFilter(drop_torchserve_request_lines)
        for handler in logging.getLogger().handlers:
            # From here on an exception comes from a request, and may quote it.
            handler.addFilter(hide_exception_message)
        self.initialized = True

    def preprocess(self, data: list[IncomingRequest]) -> Batch:
        """Parse the requests and decode their photos."""
        return self.pipeline.preprocess(data)

    def inference(self, data: Batch) -> ScoredBatch:
        """Run the network once for the batch, with autograd recording the head."""
        return self.pipeline.inference(data)

    def postprocess(self, data: ScoredBatch) -> list[Reply]:
        """Run backward for the predicted or requested class of every request; build the replies."""
        return self.pipeline.postprocess(data)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch: each request by itself, whatever stands beside it."""
        start = perf_counter()
        headers = [self._http(context.get_all_request_header(n)) for n in range(len(data))]
        requests = [
            IncomingRequest(
                fields,
                sent,
                path=sent.get("url_path", ""),
                force_explain=sent.get("explain") == "True",
                # The management API asks so, and sends nothing else.
                is_describe_call=not fields and sent.get("describe") == "True",
                id=context.get_request_id(n) or "",
            )
            for n, (fields, sent) in enumerate(zip(data, headers, strict=True))
        ]
        scored = self.inference(self.preprocess(requests))
        replies = self.postprocess(scored)
        for n, reply in enumerate(replies):
            phrase = HTTPStatus(reply.status).phrase
            context.set_response_status(reply.status, phrase, n)
            context.set_response_content_type(n, reply.content_type)
            for name, value in reply.headers.items():
                context.set_response_header(n, name, value)
            if not headers[n]:
                # StreamPredictions kills the worker without this header; it hangs an HTTP client.
                context.set_response_header(n, "ts_stream_next", "false")
        self._emit_telemetry(scored.batch, perf_counter() - start, context.metrics)
        return [reply.body for reply in replies]

    def _emit_telemetry(self, batch: Batch, seconds: float, metrics: Any) -> None:
        """Write a batch's log lines and metrics."""
        model = self.pipeline.model
        for record in batch.records:
            logger.log(record.level, "%s", log_line(record, model, len(batch.requests), seconds))
        metrics.add_time("HandlerTime", seconds * 1000, None, "ms")
        for sample in metric_samples(batch.records, batch.timer.seconds):
            dimensions = self._dimensions(sample.labels)
            kind = MetricTypes.COUNTER if sample.is_counter else MetricTypes.HISTOGRAM
            metrics.add_metric(sample.name, sample.value, sample.unit, None, dimensions, kind)
        self.totals.add_batch(batch.records, batch.timer.seconds)
        self.emission.request()

    def _emit_totals(self, metrics: Any) -> None:
        """Write the metrics that are added up over batches."""
        for increase in self.totals.take():
            dimensions = self._dimensions(increase.labels)
            metrics.add_metric(
                increase.name, increase.value, "", None, dimensions, MetricTypes.COUNTER
            )

    def _dimensions(self, labels: Mapping[str, str]) -> list[Dimension]:
        """A metric's labels, between the two that TorchServe requires."""
        every = {"ModelName": self.pipeline.model["name"], **labels, "Level": "Model"}
        return [Dimension(name, value) for name, value in every.items()]

    @staticmethod
    def _http(headers: dict[str, Any]) -> dict[str, str]:
        """A request's HTTP headers, names in lower case; none for gRPC.

        Beside them stands each field's content type, which is a dict, whatever the transport.
        """
        return {name.lower(): sent for name, sent in headers.items() if isinstance(sent, str)}
