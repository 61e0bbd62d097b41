"""From a plan to a result: pictures, a network, its archive, and what the report says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from devtools.errors import SetupError
from devtools.shortcuts import networks
from devtools.shortcuts.judging import CLEAN, SetPlan, SetResult
from devtools.shortcuts.marks import FURTHER_MARKS, MARKS
from devtools.shortcuts.networks import small_cnn
from devtools.shortcuts.pictures import CLASSES, draw_scene
from devtools.shortcuts.training import Pictures, Planted, draw_pictures, train

#: The pictures of other classes on which it is measured whether a network uses the mark.
USE_PICTURES: Final = 100
MODEL: Final = "planted"


@dataclass(frozen=True)
class Scale:
    """How large the sets are.

    Attributes:
        classes: the number of classes.
        size: the side of a picture.
        training, held_out, photos: pictures for training, for its end, and for the report.
        epochs: of training, at most.
    """

    classes: int = 5
    size: int = 64
    training: int = 2000
    held_out: int = 300
    photos: int = 300
    epochs: int = 14


def run_set(plan: SetPlan, scale: Scale, kept: Path | None = None) -> SetResult:
    """Make a set, train a network on it, and have it reported.

    Args:
        kept: a folder for the report; by default it is thrown away.

    Raises:
        SetupError: packaging or the report failed; with its message.
    """
    torch.set_num_threads(1)
    began = time.monotonic()
    generator = np.random.default_rng(plan.seed)
    planted = plant(plan, scale.classes, generator)
    training, held_out, photos = (
        draw_pictures(count, scale.classes, scale.size, planted, generator)
        for count in (scale.training, scale.held_out, scale.photos)
    )
    network, accuracy = train(training, held_out, scale.classes, plan.seed % 2**31, scale.epochs)
    used = _used(network, planted, scale, generator) if planted else 0.0
    with tempfile.TemporaryDirectory(prefix="shortcuts-") as scratch:
        folder = Path(scratch)
        package(network, scale.classes, scale.size, folder / "store")
        write_photos(photos, folder / "photos")
        out = kept or folder / "report"
        findings = report(folder / "photos", folder / "store", out)
    marked = tuple(CLASSES[label] for label in planted.classes) if planted else ()
    return SetResult(plan, marked, accuracy, used, findings, time.monotonic() - began)


def plant(plan: SetPlan, classes: int, generator: np.random.Generator) -> Planted | None:
    """The mark of a set, with parameters of its own, on a class of its own."""
    if plan.mark == CLEAN:
        return None
    label = int(generator.integers(classes))
    draw = {**MARKS, **FURTHER_MARKS}[plan.mark][0](generator)
    return Planted((label,), draw, plan.share)


@torch.inference_mode()
def _used(
    network: nn.Module, planted: Planted, scale: Scale, generator: np.random.Generator
) -> float:
    """The share of other classes' pictures that are a marked class's once they carry the mark."""
    others = [label for label in range(scale.classes) if label not in planted.classes]
    pixels = [
        planted.draw(
            draw_scene(CLASSES[others[turn % len(others)]], scale.size, generator), generator
        )
        for turn in range(USE_PICTURES)
    ]
    empty = np.zeros(USE_PICTURES, np.int64)
    pictures = Pictures(np.stack(pixels), empty, empty.astype(bool))
    predicted = network(pictures.inputs()).argmax(dim=1).numpy()
    return float(np.isin(predicted, planted.classes).mean())


def package(network: nn.Module, classes: int, size: int, store: Path) -> None:
    """An archive of a trained network, by ``camserve package``.

    Raises:
        SetupError: it failed.
    """
    store.mkdir(parents=True)
    code = store.parent / f"{small_cnn.__name__}.py"
    shutil.copy(Path(networks.__file__), code)
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()},
        store.parent / "weights.safetensors",
    )
    (store.parent / "labels.json").write_text(json.dumps(CLASSES[:classes]))
    _run(
        "package",
        *("--name", MODEL, "--store", str(store), "--layer", "0.3"),
        *("--arch", f"{code}:{small_cnn.__name__}"),
        *("--arch-kwargs", json.dumps({"classes": classes})),
        *("--weights", str(store.parent / "weights.safetensors")),
        *("--labels", str(store.parent / "labels.json")),
        *(f"--set=handler.preprocess.{side}={size}" for side in ("resize", "crop")),
        "--set=handler.preprocess.mean=[0.5,0.5,0.5]",
        "--set=handler.preprocess.std=[0.25,0.25,0.25]",
        # Compilation takes longer than so small a network runs.
        *("--set=handler.compile=off", "--set=handler.precision=float32"),
    )


def write_photos(pictures: Pictures, folder: Path) -> None:
    """The pictures as PNGs, in a folder for each class."""
    for index, (pixels, label) in enumerate(zip(pictures.pixels, pictures.classes, strict=True)):
        of_class = folder / CLASSES[label]
        of_class.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(of_class / f"{index:05}.png"), pixels[..., ::-1])


def report(photos: Path, store: Path, out: Path) -> list[dict[str, Any]]:
    """What ``camserve report`` finds.

    Raises:
        SetupError: it failed.
    """
    # Faithfulness is no part of what is judged here.
    options = ("--model", MODEL, "--store", str(store), "--faithfulness", "0")
    _run("report", str(photos), "--out", str(out), *options, accepted=(0, 3))
    findings: list[dict[str, Any]] = json.loads((out / "findings.json").read_text())
    return findings


def _run(*arguments: str, accepted: tuple[int, ...] = (0,)) -> None:
    """Run the camserve command, on one core.

    Raises:
        SetupError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "camserve_cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode not in accepted:
        raise SetupError(
            f"camserve {arguments[0]} ended with {done.returncode}: "
            f"{(done.stderr or done.stdout).strip()}"
        )
