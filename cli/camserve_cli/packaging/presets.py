"""The ``preprocess`` section that prepares a photo as a publisher's own transform does.

A transform is not read but measured. Pictures of one colour show how it scales values, as they stay
the same whatever a resize and a crop do. What it does to the geometry is found among candidates, by
comparing photos. So a section that is returned gives the publisher's input, whatever class or
version prepares it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from camserve.images import DecodedPhoto, resize_and_crop
from camserve.settings import Preprocess
from camserve_cli.packaging.check_photos import check_photos
from camserve_cli.packaging.errors import PresetError, first_line

#: A photo -> the network's input (3, height, width), as the publisher's code makes it.
Transform = Callable[[Image.Image], Tensor]

#: The largest mean absolute difference from the publisher's input, in levels of 0 to 255. PyTorch's
#: resize and Pillow's differ by 0.03 on average; a crop that lies one pixel off, by more than 1.
_TOLERANCE: Final = 0.25
#: Rounding errors of float32 alone.
_EXACT: Final = 1e-3


def find_preset(
    transform: Transform,
    candidates: Iterable[Mapping[str, Any]],
    described: str,
    stated: tuple[Sequence[float], Sequence[float]] | None = None,
) -> dict[str, Any]:
    """The candidate that makes the same input of photos as a transform, but for rounding.

    Args:
        transform: the publisher's.
        candidates: keys of the section that concern geometry; ``mean`` and ``std`` are measured.
        described: the transform in words, for the message.
        stated: mean and standard deviation as the publisher states them. They are taken, with all
            their digits, where they are those that were measured.

    Raises:
        PresetError: none does.
    """
    photos = check_photos()
    try:
        expected = [transform(photo) for photo in photos]
    except Exception as failure:
        # Code of another package may raise any exception.
        raise PresetError(f"{described} cannot be run: {first_line(failure)}") from None
    shapes = {tuple(values.shape) for values in expected}
    if len(shapes) > 1:
        raise PresetError(f"{described} makes inputs of several sizes, as of no fixed resize")
    if len(shape := shapes.pop()) != 3 or shape[0] != 3:
        raise PresetError(f"{described} makes inputs of shape {shape}, not (3, height, width)")
    mean, std = _measure_scale(transform, described)
    if stated is not None and np.allclose([mean, std], stated, rtol=0, atol=2e-6):
        mean, std = (list(map(float, values)) for values in stated)
    found = dict[float, dict[str, Any]]()
    for candidate in candidates:
        section = {**candidate, "mean": mean, "std": std}
        # As of a mean outside the accepted range.
        with suppress(ValidationError):
            distance = difference(Preprocess(**section), photos, expected)
            found.setdefault(distance, section)
            if distance < _EXACT:
                break
    if not found or (least := min(found)) > _TOLERANCE:
        raise PresetError(f"{described} cannot be expressed by handler.preprocess")
    return found[least]


def difference(
    preprocess: Preprocess, photos: Sequence[Image.Image], expected: Sequence[Tensor]
) -> float:
    """How far an archive's inputs are from a publisher's.

    Args:
        preprocess: the archive's settings.
        photos: RGB.
        expected: the publisher's input (3, h, w) for each.

    Returns:
        The largest mean absolute difference of a photo, in levels of 0 to 255; infinity where the
        sizes differ.
    """
    std = torch.tensor(preprocess.std).view(3, 1, 1)
    largest = 0.0
    for photo, values in zip(photos, expected, strict=True):
        ours = prepare(photo, preprocess)
        if ours.shape != values.shape:
            return math.inf
        largest = max(largest, float(((ours - values).abs() * std * 255).mean()))
    return largest


def prepare(photo: Image.Image, preprocess: Preprocess) -> Tensor:
    """The network's input (3, h, w) that an archive makes of an RGB photo."""
    pixels, _ = resize_and_crop(DecodedPhoto(np.asarray(photo), 1), preprocess)
    values = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (preprocess.mean, preprocess.std))
    return (values - mean) / std


def _measure_scale(transform: Transform, described: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that a transform normalises with, for values from 0 to 1.

    Raises:
        PresetError: the channels of its input are not the photo's red, green and blue.
    """
    black, white, red = (
        _centre(transform(Image.new("RGB", (300, 300), color)))
        for color in ((0, 0, 0), (255, 255, 255), (255, 0, 0))
    )
    scale = white - black
    if bool((scale == 0).any()) or not torch.allclose(
        red, torch.stack([white[0], black[1], black[2]]), atol=1e-4
    ):
        raise PresetError(
            f"{described} exchanges or mixes the colour channels; handler.preprocess keeps R, G, B"
        )
    std, mean = 1 / scale, -black / scale
    # Measured in float32; published means and deviations have few digits. "+ 0.0" clears -0.0.
    return [round(float(m), 6) + 0.0 for m in mean], [round(float(s), 6) for s in std]


def _centre(values: Tensor) -> Tensor:
    """The pixel (3,) in the middle of an input, which no bars cover."""
    return values[:, values.shape[1] // 2, values.shape[2] // 2].double()
