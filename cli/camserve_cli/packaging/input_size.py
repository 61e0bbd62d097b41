"""What a network's constructor must be told of the size of its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from camserve.networks import is_timm_model
from camserve.settings import Preprocess
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.pretrained import torchvision_name

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
