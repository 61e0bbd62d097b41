"""T8: what the figures of an explanation cost, and how Quantus computes the same, in process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from camserve.batch import IndexedPhotos, ScoredBatch
from camserve.explain import explain_batch, faithfulness, masking
from camserve.images import Heatmap, InputFrame, MapStatistics
from camserve.pipeline import Pipeline
from devtools.benchmark.archives import BATCH_SIZE
from devtools.benchmark.goals import Goal, GoalResult, goal_result
from devtools.benchmark.in_process import Contestants, prepare_batch
from devtools.benchmark.quantus import PixelFlipping, build_environment, running_quantus
from devtools.benchmark.timing import Step, time_interleaved

#: Of its tutorials, and of the paper of RISE: as many values a step as the photo is wide.
USUAL_STEP: Final = 224
QUANTUS = Goal("T8", "insertion and deletion of a photo, Quantus / ours", ">=", 20)
QUANTUS_SAME = Goal("T8", "the same, Quantus in as few steps as ours / ours")
DROP = Goal("T8", "drop and increase, extra time of 8 / forward passes of 8", "<=", 3.3)
STATISTICS = Goal("T8", "map_statistics / a request for an overlay", "<=", 0.01)

OURS, OURS_PLAIN, FORWARD = "ours", "ours, no figure", "ours, forward alone"


def compare_quantus(
    contestants: Contestants, scratch: Path, repeat: int, log: Callable[[str], None]
) -> list[GoalResult]:
    """Insertion and deletion of one photo's map and its two references, by Quantus and by ours.

    Args:
        contestants: the networks and the photo.
        scratch: a folder for Quantus' environment and what it reads.
        repeat: repetitions; each runs both.
        log: called with a line on what is done.

    Raises:
        SetupError: Quantus cannot be installed.
    """
    pipeline = contestants.ours
    ours = _faithfulness_step(pipeline, contestants, ["insertion", "deletion"], size=1)
    inputs = contestants.inputs(3)
    maps, class_id = _photo_maps(pipeline, contestants)
    few = inputs[0].numel() // faithfulness.CURVE_STEPS
    times: dict[str, list[float]] = {"ours": [], "usual": [], "few": []}
    log("T8: an environment for Quantus")
    python = build_environment(scratch / "quantus")
    with running_quantus(python, scratch) as quantus:

        def theirs(step: int) -> float:
            seconds = 0.0
            for insertion in (False, True):
                substrate = (
                    masking.blur(inputs[0]).expand_as(inputs)
                    if insertion
                    else torch.zeros_like(inputs)
                )
                seconds += quantus.measure(
                    PixelFlipping(
                        contestants.libraries.network, inputs, maps, class_id, substrate, insertion
                    ),
                    step,
                )[1]
            return seconds * 1000

        log("T8: insertion and deletion, Quantus and ours in turn")
        ours()
        for _ in range(repeat):
            times["few"].append(theirs(few))
            times["ours"].append(_milliseconds(ours))
            times["usual"].append(theirs(USUAL_STEP))
    steps = inputs[0].numel() // USUAL_STEP
    return [
        goal_result(
            goal, "ms", (f"Quantus, {count} steps", times[name]), ("ours, 6 steps", times["ours"])
        )
        for goal, name, count in (
            (QUANTUS, "usual", steps),
            (QUANTUS_SAME, "few", faithfulness.CURVE_STEPS),
        )
    ]


def compare_figures(contestants: Contestants, repeat: int, seconds: float) -> list[GoalResult]:
    """What drop and increase cost in forward passes, and what the map's statistics do."""
    pipeline = contestants.ours
    steps: dict[str, Step] = {
        OURS: _faithfulness_step(pipeline, contestants, ["drop", "increase"], BATCH_SIZE),
        OURS_PLAIN: _faithfulness_step(pipeline, contestants, [], BATCH_SIZE),
        FORWARD: contestants.maps(pipeline, BATCH_SIZE, explain=False),
    }
    times = time_interleaved(steps, repeat, seconds)
    extra = [
        measured - plain for measured, plain in zip(times[OURS], times[OURS_PLAIN], strict=True)
    ]
    photo, heatmap = _heatmap(pipeline, contestants)
    request = prepare_batch(pipeline, contestants.photo, 1, outputs=["overlay"])
    small = {
        "map_statistics": lambda: MapStatistics.of(heatmap, photo[0][1].frame),
        "request": lambda: pipeline.postprocess(pipeline.inference(request)),
    }
    figures = time_interleaved(small, repeat, seconds)
    return [
        goal_result(DROP, "ms", ("drop and increase", extra), (FORWARD, times[FORWARD])),
        goal_result(
            STATISTICS,
            "ms",
            ("map_statistics", figures["map_statistics"]),
            ("request", figures["request"]),
        ),
    ]


def _faithfulness_step(
    pipeline: Pipeline, contestants: Contestants, metrics: Sequence[str], size: int
) -> Step:
    """A batch from the network's input to its replies, with these figures."""
    batch = prepare_batch(
        pipeline, contestants.photo, size, outputs=["boxes"], faithfulness=list(metrics)
    )
    return lambda: pipeline.postprocess(pipeline.inference(batch))


def _photo_maps(pipeline: Pipeline, contestants: Contestants) -> tuple[Tensor, int]:
    """(3, H, W): the photo's map, a random and a centre one; and the class that is explained."""
    _, heatmap = _heatmap(pipeline, contestants)
    frame = InputFrame.full(*pipeline.settings.preprocess.input_size)
    size = pipeline.settings.preprocess.input_size
    random = Heatmap([faithfulness.random_map((7, 7), 0).numpy()], size)
    maps = [torch.from_numpy(one.resample(frame)) for one in (heatmap, random)]
    maps.append(faithfulness.centre_map((size.height, size.width)))
    predicted = contestants.libraries.forward(contestants.inputs(1)).argmax()
    return torch.stack(maps), int(predicted)


def _heatmap(pipeline: Pipeline, contestants: Contestants) -> tuple[IndexedPhotos, Heatmap]:
    """The photo, and the heatmap of its predicted class."""
    scored: ScoredBatch = pipeline.inference(prepare_batch(pipeline, contestants.photo, 1))
    (one,) = scored.passes
    explained = explain_batch(one.output, [photo.explanation_request for _, photo in one.photos])
    maps = [map.values for map in explained.explained[0][0].maps]
    return one.photos, Heatmap(maps, pipeline.settings.preprocess.input_size)


def _milliseconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1000
