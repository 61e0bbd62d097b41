"""What a network's constructor must be told of the size of its input."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

from torch import Tensor, nn

from camserve.networks import is_timm_model
from camserve.settings import Preprocess
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.pretrained import torchvision_name

#: Position embeddings (1, prefix + patches, K) of torchvision's, timm's and transformers' networks,
#: and the numbers of tokens that may stand before the patches.
_POSITIONS: Final = re.compile(r"(^|\.)(pos_embed|pos_embedding|position_embeddings)$")
_PREFIXES: Final = (0, 1, 2, 5)
#: The side that torchvision's transformers are built for, where nothing else is said.
_TORCHVISION_SIDE: Final = 224


def input_size_arguments(
    arch: str, kwargs: Mapping[str, Any], preprocess: Preprocess
) -> dict[str, Any]:
    """The constructor's arguments for inputs of the size that photos are cropped to.

    Networks that take inputs of any size need none, and an argument that is given stays.

    Raises:
        PackageError: the network cannot be built for such inputs.
    """
    crop: Any = preprocess.crop
    height, width = (crop, crop) if isinstance(crop, int) else crop
    name = torchvision_name(arch)
    if ":" in name:
        name = ""
    if name.startswith("vit_") and (height, width) != (_TORCHVISION_SIDE, _TORCHVISION_SIDE):
        if height != width:
            raise PackageError(
                f"--arch {arch} takes square inputs alone, and handler.preprocess.crop is "
                f"[{height}, {width}]; accepted: one number"
            )
        needed: dict[str, Any] = {"image_size": height}
    elif name.startswith("maxvit_") and (height, width) != (_TORCHVISION_SIDE, _TORCHVISION_SIDE):
        needed = {"input_size": [height, width]}
    elif is_timm_model(arch):
        from camserve_cli.packaging.timm_models import pretrained_config

        config = pretrained_config(arch.partition(":")[2])
        is_fixed = config.get("fixed_input_size")
        built_for = tuple(config.get("input_size", (3, height, width)))[1:]
        size = height if height == width else [height, width]
        needed = {"img_size": size} if is_fixed and built_for != (height, width) else {}
    else:
        needed = {}
    return {key: value for key, value in needed.items() if key not in kwargs}


def check_trained_size(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    preprocess: Preprocess,
    settings: Sequence[str],
) -> None:
    """Refuse weights that were trained on inputs of another size, which nobody said.

    timm would resample their position embeddings without a word; others would not load them.

    Args:
        network: as it was built for inputs of the size of ``preprocess``.
        tensors: the state dict as the file has it; its names may have prefixes.
        preprocess: of the archive.
        settings: values of ``--set``; where they choose the crop, the weights are to be resampled.

    Raises:
        PackageError: with the settings that fit the weights.
    """
    if any(one.startswith("handler.preprocess.crop") for one in settings):
        return
    side = preprocess.input_size.height
    if side != preprocess.input_size.width:
        return
    built, given = (
        [
            (value.shape[1], value.shape[2])
            for name, value in named
            if _POSITIONS.search(name) and value.ndim == 3
        ]
        for named in (network.named_parameters(), tensors.items())
    )
    for (ours, width), (theirs, other_width) in product(built, given):
        trained = _trained_side(side, ours, theirs) if width == other_width else None
        if trained not in (None, side):
            raise PackageError(
                f"the weights were trained on inputs of {trained} x {trained}: their position "
                f"embeddings are of {theirs} tokens, those of an input of {side} x {side} of "
                f"{ours}; accepted: --set handler.preprocess.crop={trained} --set "
                f"handler.preprocess.resize={trained}, or of a larger resize"
            )


def _trained_side(side: int, built: int, given: int) -> int | None:
    """The side of the inputs that position embeddings of so many tokens are for.

    Args:
        side: of the network's input.
        built: the network's own tokens.
        given: those of the weights.

    Returns:
        None where they are of no square.
    """
    for prefix in _PREFIXES:
        if prefix < min(built, given):
            patches, others = math.isqrt(built - prefix), math.isqrt(given - prefix)
            squares = (patches**2 + prefix, others**2 + prefix) == (built, given)
            if squares and side % patches == 0:
                return side // patches * others
    return None
