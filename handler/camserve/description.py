"""The self-description of a loaded model: what it is and what a request may ask for."""

from __future__ import annotations

from typing import Any, get_args

import torch

from camserve.explain import METHODS
from camserve.model import LoadedModel
from camserve.networks import GridLayout
from camserve.options import FaithfulnessMetric, Options, Output
from camserve.protocols import ModelBody
from camserve.record import package_versions


def describe(model: ModelBody, loaded: LoadedModel) -> dict[str, Any]:
    """The model's self-description, as JSON.

    ``task``, ``decision_threshold`` and ``output`` say what the network's scores mean, ``batching``
    whether photos share a forward pass. ``precision`` and ``compiled`` say how the trunk runs,
    ``acceleration_notes`` why it does not run faster. ``options`` is a JSON Schema of a request's
    options, with the operator's defaults.
    """
    settings, network = loaded.settings, loaded.network
    acceleration = loaded.acceleration
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
            "requires": settings.requires,
            "task": settings.task,
            "decision_threshold": settings.decision_threshold,
            "output": settings.output,
            "batching": settings.batching,
            "weights_sha256": network.sha256,
            "device": str(network.device),
            "precision": acceleration.precision,
            "compiled": acceleration.compiled,
            "acceleration_notes": acceleration.fallback_reason,
            # The old name of acceleration_notes, for one release.
            "not_faster_because": acceleration.fallback_reason,
            "threads": torch.get_num_threads(),
        },
        "classes": list(network.labels.names),
        **({"wnids": list(network.labels.wnids)} if network.labels.wnid_indices else {}),
        "layers": [_layer(name, loaded.layouts[name]) for name in settings.served],
        "methods": list(METHODS),
        "outputs": list(get_args(Output)),
        "faithfulness": list(get_args(FaithfulnessMetric)),
        "options": schema,
        "preprocess": {
            **settings.preprocess.model_dump(mode="json"),
            "input_size": list(settings.preprocess.input_size),
        },
        "limits": settings.limits.model_dump(mode="json"),
        "formats": [format.upper() for format in settings.formats],
        "damaged": settings.damaged,
        "versions": package_versions(settings),
    }


def _layer(name: str, layout: GridLayout) -> dict[str, Any]:
    """A layer's entry: ``shape`` is (K, h, w) of the grid that its output holds as ``layout``."""
    return {
        "name": name,
        "shape": [*layout.shape],
        "layout": layout.kind,
        "prefix_tokens": layout.prefix,
    }
