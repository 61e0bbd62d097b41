"""Quantus in an environment of its own, and the process that runs it there."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import camserve
from devtools.errors import SetupError

#: NumPy has had no trapz, which Quantus calls, since 2.4.
REQUIREMENTS: Final = ("quantus==0.6.0", "numpy==2.3.5")
AGENT: Final = Path(__file__).with_name("quantus_agent.py")


def build_environment(folder: Path) -> Path:
    """A virtual environment with Quantus and what it asks for, which borrows PyTorch from this one.

    Args:
        folder: where to make it.

    Returns:
        Its Python.

    Raises:
        SetupError: pip fails.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    done = subprocess.run([*pip, *REQUIREMENTS], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{' '.join(REQUIREMENTS)} cannot be installed: {done.stderr[-500:]}")
    (packages,) = folder.glob("lib/python*/site-packages")
    # Behind its own packages, so that its own NumPy and OpenCV come first. A pickled network may be
    # one of ours.
    borrowed = (sysconfig.get_path("purelib"), Path(camserve.__file__).parents[1])
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return python


@dataclass(frozen=True)
class PixelFlipping:
    """Photos and maps that Quantus measures.

    Attributes:
        network: to measure with.
        photos: (n, C, H, W) normalised inputs.
        maps: (n, H, W).
        class_id: whose probability is measured.
        substrate: (n, C, H, W), which takes the place of what is hidden.
        insertion: hide the coldest pixels first.
    """

    network: nn.Module
    photos: Tensor
    maps: Tensor
    class_id: int
    substrate: Tensor
    insertion: bool = False


@dataclass(frozen=True)
class QuantusProcess:
    """A running agent.

    Attributes:
        questions, answers: its standard input and output.
        scratch: a folder for what it reads.
    """

    questions: IO[str]
    answers: IO[str]
    scratch: Path

    def measure(
        self, flipping: PixelFlipping, features_in_step: int
    ) -> tuple[NDArray[np.float64], float]:
        """The probabilities (n, steps) after each step, and the seconds that it took.

        Args:
            flipping: what to measure.
            features_in_step: how many values of all channels are hidden in a step.

        Raises:
            SetupError: the process has ended.
        """
        network, inputs = self.scratch / "network.pt", self.scratch / "inputs.npz"
        torch.save(flipping.network, network)
        np.savez(
            inputs,
            photos=flipping.photos.numpy(),
            maps=flipping.maps.unsqueeze(1).numpy(),
            classes=np.full(len(flipping.photos), flipping.class_id),
            substrate=flipping.substrate.numpy(),
        )
        asked: dict[str, Any] = {
            "network": str(network),
            "inputs": str(inputs),
            "features_in_step": features_in_step,
            "insertion": flipping.insertion,
        }
        try:
            self.questions.write(f"{json.dumps(asked)}\n")
            self.questions.flush()
            answer = json.loads(self.answers.readline())
        except (OSError, ValueError):
            raise SetupError("the process of Quantus has ended; see what it printed") from None
        return np.array(answer["curves"]), float(answer["seconds"])


@contextmanager
def running_quantus(python: Path, scratch: Path) -> Iterator[QuantusProcess]:
    """The process of Quantus, for as long as a ``with`` block.

    Args:
        python: of its environment.
        scratch: a folder for what it reads.
    """
    # With as many threads as this process.
    variables = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    process = subprocess.Popen(
        [python, "-P", AGENT],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    questions, answers = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    try:
        yield QuantusProcess(questions, answers, scratch)
    finally:
        questions.close()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()
            answers.close()
