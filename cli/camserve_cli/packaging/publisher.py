"""Compares an archive's scores with those of the network as its publisher builds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn

from camserve.networks import ScoreReader
from camserve.settings import Settings
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.presets import Transform

#: The largest difference of a photo's scores, as a share of the norm of their deviations from their
#: mean. In float32, where PyTorch's resize and Pillow's differ by a level in some pixels; and for a
#: trunk in bfloat16, see camserve.networks.verification.
_FLOAT32_TOLERANCE: Final = 0.03
_BFLOAT16_TOLERANCE: Final = 0.15


@dataclass(frozen=True)
class Publisher:
    """Network and preparation of photos as those who published the weights have them.

    Attributes:
        name: of the package that they are built with.
        network: with the weights, in eval mode; (N, 3, H, W) -> scores, or an output with them.
        transform: a photo -> its input.
    """

    name: str
    network: nn.Module
    transform: Transform

    def input_size(self, photo: Image.Image) -> tuple[int, int]:
        """Height and width of the network's input for a photo."""
        height, width = self.transform(photo).shape[1:]
        return height, width

    def scores(self, photos: Sequence[Image.Image], settings: Settings, classes: int) -> Tensor:
        """The logits (N, C) of RGB photos.

        Args:
            photos: RGB.
            settings: of the archive: its task, and what its network's scores are.
            classes: the number of its labels.
        """
        with torch.no_grad():
            outputs = [self.network(self.transform(photo)[None]) for photo in photos]
        reader = ScoreReader.find(settings.task, settings.output, classes, outputs[0])
        return torch.cat([reader.logits(reader.scores(output)) for output in outputs])


def compare(name: str, expected: Tensor, ours: Tensor, precision: str, own_preprocess: bool) -> str:
    """Hold an archive's scores to those of its publisher.

    Args:
        name: of the package that the publisher's network is built with.
        expected: its logits (N, C) of photos.
        ours: those of the archive.
        precision: that its trunk runs in.
        own_preprocess: the person changed ``handler.preprocess``; then a difference is told alone.

    Returns:
        What was found, for the person who packages.

    Raises:
        PackageError: they differ by more than rounding errors.
    """
    expected, ours = expected.double(), ours.double()
    whose = f"those of the publisher's own network and preparation of photos ({name})"
    if expected.shape != ours.shape:
        return (
            f"the archive's {ours.shape[1]} scores of a photo are not compared with {whose}, which "
            f"are {expected.shape[1]}"
        )
    difference = float(max(map(_relative_difference, ours, expected)))
    tolerance = _FLOAT32_TOLERANCE if precision == "float32" else _BFLOAT16_TOLERANCE
    found = f"on {len(ours)} photos the archive's scores differ by {difference:.1%} from {whose}"
    rounding = f"rounding errors in {precision} make up to {tolerance:.0%}"
    # Not "difference > tolerance", which is false for NaN.
    if difference <= tolerance:
        return f"{found}; {rounding}"
    if own_preprocess:
        return f"{found}, as handler.preprocess is not the publisher's"
    raise PackageError(
        f"{found}; {rounding}; accepted: weights, --arch-kwargs and settings as they were published"
    )


def _relative_difference(ours: Tensor, expected: Tensor) -> Any:
    """The norm of the difference of scores (C,), over that of their deviations from the mean."""
    return (ours - expected).norm() / (expected - expected.mean()).norm().clamp_min(1e-12)
