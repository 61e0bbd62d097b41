"""How much is measured: the full plan, and a quick one for a smoke run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class MeasurementPlan:
    """How long each part is measured.

    Attributes:
        repeat: repetitions; each has one window of every peer.
        seconds: length of a window.
        warmup: seconds of load before each window.
        gradients: replies of stock /explanations in a repetition.
        soak: replies over which memory is sampled.
        connections: of the curve over the load.
        sizes: batch sizes of the curve in process.
        front_rounds: requests in each of the ways that the Open Inference front is measured by.
        quantus_rounds: repetitions of T8's peer, which takes minutes for one; 0 leaves it out.
        transformers: torchvision's names of the further networks of T5.
        delays, our_delays: maxBatchDelay in ms to choose from, of the stock server and of ours; the
            archive's own where there are none.
    """

    repeat: int
    seconds: float
    warmup: float
    gradients: int
    soak: int
    connections: Sequence[int]
    sizes: Sequence[int]
    delays: Sequence[int]
    our_delays: Sequence[int] = ()
    transformers: Sequence[str] = ()
    front_rounds: int = 300
    quantus_rounds: int = 3


QUICK: Final = MeasurementPlan(
    repeat=2, seconds=0.6, warmup=0.2, gradients=1, soak=30,
    connections=(1, 4), sizes=(1, 4), delays=(10,), front_rounds=10, quantus_rounds=0,
)  # fmt: skip
FULL: Final = MeasurementPlan(
    repeat=5, seconds=10, warmup=2, gradients=4, soak=10_000,
    connections=(1, 2, 4, 8, 16, 32), sizes=tuple(range(1, 9)), delays=(1, 10, 20, 50),
    transformers=("vit_b_16", "swin_t"),
)  # fmt: skip
