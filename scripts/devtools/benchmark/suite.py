"""The measurements of scripts/bench.py, in their order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devtools.benchmark import faithfulness_cost, in_process, served, worker_scaling
from devtools.benchmark.archives import (
    SeededWeights,
    camserve_archive,
    seeded_weights,
    stock_archive,
    unpack,
    with_batch_delay,
)
from devtools.benchmark.cpu_meter import CpuMeter
from devtools.benchmark.front_cost import measure_front_cost
from devtools.benchmark.goals import GoalResult
from devtools.benchmark.load_rig import LoadRig
from devtools.benchmark.plan import MeasurementPlan
from devtools.benchmark.report import BenchReport
from devtools.benchmark.request_profile import profile_request
from devtools.benchmark.sample_photos import GRAINS, large_photo, small_photo
from devtools.benchmark.stock_server import stock_server
from devtools.servers import ServerUnderTest, camserve_server

IN_PROCESS = ("T5", "T6", "T8", "batches")
THROUGH_SERVERS = ("T1", "T2", "T3", "T4", "T7", "profile", "connections")
WORKERS = ("workers",)
FRONT = ("open_inference",)
PARTS = (*THROUGH_SERVERS, *IN_PROCESS, *WORKERS, *FRONT)
#: A window in process is shorter by this factor than one through a server: there are no queues.
IN_PROCESS_FACTOR = 5


@dataclass(frozen=True)
class Suite:
    """The measurements of one archive, whose results go into a report.

    Attributes:
        archive: ours; what else is needed goes into its folder.
        weights: of the network in the archive.
        settings: of the archive, as ``camserve package --set`` takes them.
        workers: of our server, as ``serve.sh start --workers`` takes it.
        log: called with a line on each measurement.
    """

    report: BenchReport
    archive: Path
    weights: SeededWeights
    settings: Sequence[str]
    plan: MeasurementPlan
    workers: str
    log: Callable[[str], None]

    def run(self, parts: set[str]) -> None:
        """Measure some of ``PARTS``.

        Raises:
            SetupError: a peer cannot be set up.
            LoadError: the load generator failed.
        """
        if parts & {*IN_PROCESS}:
            self._measure_in_process(parts)
        if parts & {*THROUGH_SERVERS}:
            self._measure_through_servers(parts)
        if parts & {*WORKERS}:
            notes = self.report.notes
            self.report.results += worker_scaling.compare(self.archive, self.plan, notes, self.log)
        if parts & {*FRONT}:
            self._measure_front()

    def _measure_front(self) -> None:
        """What the Open Inference front costs a request."""
        self.log("open_inference: one connection, with the front and without")
        scratch = self.archive.parent
        photo, folder = small_photo(scratch), scratch / "front"
        meter = CpuMeter()
        with camserve_server(
            self.archive, photo, folder, workers=self.workers, open_inference=True
        ) as server:
            noted = json.loads((folder / "run" / "server.json").read_text())
            front = noted["front"]["http"], noted["front"]["grpc"]
            self.report.front = measure_front_cost(
                server, noted["grpc"], front, photo, self.plan.front_rounds
            )
        self.report.notes.other_cores.append(meter.cores()["others"])

    def _measure_in_process(self, parts: set[str]) -> None:
        """T5, T6 and the curve over the batch size."""
        report, plan, scratch = self.report, self.plan, self.archive.parent
        meter, seconds = CpuMeter(), plan.seconds / IN_PROCESS_FACTOR
        photo = small_photo(scratch).read_bytes()
        contestants = in_process.Contestants(
            unpack(self.archive, scratch / "unpacked"), self.weights.build(), photo
        )
        if "T5" in parts:
            self.log("T5: predictions and maps of a batch, in process")
            report.results += in_process.compare_explanations(contestants, plan.repeat, seconds)
            for arch in plan.transformers:
                self.log(f"T5: the same of {arch}")
                report.results += self._measure_transformer(arch, photo, seconds)
        if "T6" in parts:
            self.log("T6: a photo of 12 megapixels, in process")
            for label, grain in GRAINS.items():
                large, ours = large_photo(scratch, grain).read_bytes(), contestants.ours
                report.results.append(
                    in_process.compare_decoding(ours, label, large, plan.repeat, seconds)
                )
        if "T8" in parts:
            self.log("T8: figures of faithfulness and of maps, in process")
            report.results += faithfulness_cost.compare_figures(contestants, plan.repeat, seconds)
            if plan.quantus_rounds:
                report.results += faithfulness_cost.compare_quantus(
                    contestants, scratch, plan.quantus_rounds, self.log
                )
        if "batches" in parts:
            self.log("time against batch size, in process")
            report.batches += in_process.batch_curve(contestants, plan.sizes, plan.repeat, seconds)
        report.notes.other_cores.append(meter.cores()["others"])

    def _measure_transformer(self, arch: str, photo: bytes, seconds: float) -> list[GoalResult]:
        folder = self.archive.parent / arch
        weights = seeded_weights(arch, folder)
        unpacked = unpack(camserve_archive(weights, self.settings, folder), folder / "unpacked")
        contestants = in_process.Contestants(unpacked, weights.build(), photo)
        return in_process.compare_transformer(contestants, arch, self.plan.repeat, seconds)

    def _measure_through_servers(self, parts: set[str]) -> None:
        """T1 to T4, T7, the profile of a request and the curve over the connections."""
        report, plan, scratch = self.report, self.plan, self.archive.parent
        photo = small_photo(scratch)
        stock = stock_archive(self.weights, scratch / "stock", scratch)
        start_ours = partial(camserve_server, workers=self.workers)

        def make_rig(*servers: ServerUnderTest) -> LoadRig:
            return LoadRig(servers, photo, plan, report.notes, self.log)

        candidates: tuple[tuple[str, served.Starter, Path, Sequence[int]], ...] = (
            ("ours", start_ours, self.archive, plan.our_delays),
            ("stock", stock_server, stock, plan.delays),
        )
        for name, start, archive, delays in candidates:
            report.delays[name] = served.choose_delay(
                start, archive, delays, make_rig, scratch / "trials", photo
            )
        best_ours, best_stock = report.delays["ours"].archive, report.delays["stock"].archive
        logs = scratch / "servers"
        if "T3" in parts:
            # A request that comes alone is answered fastest by a server that waits least for more.
            quick = with_batch_delay(stock, min(plan.delays))
            with (
                start_ours(best_ours, photo, logs / "ours" / "alone") as ours,
                stock_server(quick, photo, logs / "stock" / "alone") as other,
            ):
                report.results += served.compare(make_rig(ours, other), {"T3"})
        self.log("starting our server")
        with start_ours(best_ours, photo, logs / "ours" / "loaded") as ours:
            self.log("starting the stock server")
            with stock_server(best_stock, photo, logs / "stock" / "loaded") as other:
                self._measure_loaded(make_rig(ours, other), parts)

    def _measure_loaded(self, rig: LoadRig, parts: set[str]) -> None:
        """What is measured with both servers at their best maxBatchDelay: all but T3."""
        report = self.report
        report.served = rig.servers["ours"].description
        report.results += served.compare(rig, parts - {"T3"})
        if "connections" in parts:
            report.points += served.load_curve(rig)
        if "profile" in parts:
            report.profile = profile_request(rig)
        if "T7" in parts:
            report.growth = served.measure_memory_growth(rig)
            report.results.append(served.memory_growth_result(report.growth))
        if "T2" in parts:
            report.results.append(served.compare_gradients(rig))
