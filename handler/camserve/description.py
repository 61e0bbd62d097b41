"""What a loaded archive can do, for callers who ask before they call."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any, get_args

import torch

from camserve import __version__
from camserve.explain.methods import METHODS
from camserve.images.header import FORMATS
from camserve.model import LoadedModel
from camserve.networks import openvino_backend
from camserve.options import Options, Output
from camserve.protocols.schema import ModelBody

#: The packages whose versions an answer depends on.
_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow")
_COMPILER = () if openvino_backend.unavailable_reason() else ("openvino",)


def describe(model: ModelBody, loaded: LoadedModel) -> dict[str, Any]:
    """The self-description, as it stands in JSON.

    ``precision`` and ``compiled`` say how the trunk runs, ``not_faster_because`` what kept it from
    running faster. ``options`` is a JSON Schema of a request's options, with the defaults of the
    operator in it.
    """
    settings, network, fast, shapes = loaded.settings, loaded.network, loaded.fast, loaded.shapes
    schema = Options.model_json_schema()
    properties = schema["properties"]
    for name, default in settings.options({}).model_dump(mode="json").items():
        properties[name]["default"] = default
    served = {"enum": list(settings.served)}
    properties["layer"]["anyOf"] = [served, {"type": "array", "items": served, "minItems": 1}]
    properties["top_k"]["maximum"] = len(network.labels)
    return {
        "model": {
            **model,
            "arch": settings.arch,
            "weights_sha256": network.sha256,
            "device": str(network.device),
            "precision": fast.precision,
            "compiled": fast.compiled,
            "not_faster_because": fast.reason,
            "threads": torch.get_num_threads(),
        },
        "classes": list(network.labels.names),
        "layers": [{"name": name, "shape": list(shapes[name])} for name in settings.served],
        "methods": list(METHODS),
        "outputs": list(get_args(Output)),
        "options": schema,
        "preprocess": settings.preprocess.model_dump(mode="json"),
        "limits": settings.limits.model_dump(mode="json"),
        "formats": list(FORMATS),
        "versions": {
            "camserve": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES + _COMPILER},
        },
    }
