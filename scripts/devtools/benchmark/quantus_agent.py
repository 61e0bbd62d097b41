"""Quantus, which brings another OpenCV and so runs in an environment of its own.

    python quantus_agent.py

:mod:`devtools.benchmark.quantus` runs this file by itself. Each line of standard input is a JSON
object:

    {"network": FILE, "inputs": FILE, "features_in_step": N, "insertion": BOOL}

``network`` is a pickled module; ``inputs`` has the arrays ``photos`` (n, C, H, W), ``maps``
(n, 1, H, W), ``classes`` (n,) and ``substrate`` (n, C, H, W), which takes the place of what is
hidden. The line of standard output that follows has the curves (n, steps) and the seconds of the
call.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import quantus
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


def curves(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to a line."""
    network = torch.load(asked["network"], weights_only=False)
    arrays = np.load(asked["inputs"])
    substrate = arrays["substrate"].reshape(len(arrays["photos"]), -1)

    def replace(arr: Array, indices: Array, **_: Any) -> Array:
        replaced = arr.copy()
        rows = np.arange(len(arr))[:, None]
        replaced[rows, indices] = substrate[rows, indices]
        return replaced

    metric = quantus.PixelFlipping(
        features_in_step=asked["features_in_step"],
        perturb_func=replace,
        abs=False,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    # What insertion shows last, this hides first.
    maps = 1 - arrays["maps"] if asked["insertion"] else arrays["maps"]
    start = time.perf_counter()
    found = metric(
        model=network,
        x_batch=arrays["photos"],
        y_batch=arrays["classes"],
        a_batch=maps,
        softmax=True,
        channel_first=True,
        batch_size=len(maps),
    )
    seconds = time.perf_counter() - start
    return {"curves": np.array(found).tolist(), "seconds": seconds}


if __name__ == "__main__":
    # Of hiding what is equal to what takes its place.
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(curves(json.loads(line))), flush=True)
