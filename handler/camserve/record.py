"""The provenance record of an explanation: what it was made of, so that it can be made anew.

It holds digests of the photo and of the weights, and no pixel and no metadata of the photo.
"""

from __future__ import annotations

import platform
from functools import cached_property
from importlib.metadata import version
from typing import Final

from camserve import __version__
from camserve.explain import TargetKind
from camserve.model import LoadedModel
from camserve.networks import openvino_unavailable_reason
from camserve.photo_preparation import PreparedPhoto
from camserve.protocols import ExplanationBody, ImageBody, MapBody, ModelBody, RecordBody
from camserve.settings import Settings

RECORD_VERSION: Final = 1
#: The largest difference of a map's value, in [0, 1], that the same network may make of a photo on
#: another machine: what rounding adds up to, in the number format of its trunk.
MAP_TOLERANCE: Final = {"float32": 0.01, "bfloat16": 0.15}

#: The packages whose versions a reply depends on.
_PACKAGES: Final = (
    "torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "simplejpeg",
)  # fmt: skip


def package_versions(settings: Settings) -> dict[str, str]:
    """The versions of Python, of this package and of those that a reply depends on."""
    compiler = () if openvino_unavailable_reason() else ("openvino",)
    return {
        "camserve": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in (*_PACKAGES, *compiler, *settings.requires)},
    }


class RecordBuilder:
    """Builds the records of one loaded model's explanations.

    Args:
        model: the name and version that replies carry.
        loaded: the loaded archive.
    """

    def __init__(self, model: ModelBody, loaded: LoadedModel) -> None:
        self._model = model
        self._loaded = loaded

    def build(
        self,
        photo: PreparedPhoto,
        image: ImageBody,
        explanation: ExplanationBody,
        map: MapBody,
        target_kind: TargetKind,
    ) -> RecordBody:
        """The record of one explanation.

        Args:
            photo: whose digest is known.
            image: the photo in the reply.
            explanation: its entry in the reply.
            map: the map, whether the reply has it or not.
            target_kind: how the request names the class.
        """
        settings, options = self._loaded.settings, photo.options
        record: RecordBody = {
            "record_version": RECORD_VERSION,
            "model": {
                **self._model,
                "arch": settings.arch,
                "weights_sha256": self._loaded.network.sha256,
                "task": settings.task,
                "output": settings.output,
            },
            "photo": {
                "sha256": photo.sha256,
                "width": image["width"],
                "height": image["height"],
                "seen": image["seen"],
            },
            "prediction": {
                "class_id": explanation["class_id"],
                "label": explanation["label"],
                "probability": explanation["probability"],
                "score": explanation["score"],
            },
            "target_kind": target_kind,
            "method": explanation["method"],
            "layers": [
                {
                    "name": name,
                    "layout": self._loaded.layouts[name].kind,
                    "shape": [*self._loaded.layouts[name].shape],
                }
                for name in photo.explanation_request.layers
            ],
            "evidence": explanation["evidence"],
            "peak": explanation["peak"],
            "map": map,
            "map_statistics": explanation["map_statistics"],
            # The target is the class: its text depends on the transport, as 0 and [0] do.
            "options": options.model_dump(mode="json", exclude={"target"}),
            "preprocess": settings.preprocess.model_dump(mode="json"),
            "precision": {
                "trunk": self._loaded.acceleration.precision,
                "compiled": self._loaded.acceleration.compiled,
                "tolerance": MAP_TOLERANCE[self._loaded.acceleration.precision],
            },
            "versions": self._versions,
        }
        if "against" in explanation:
            record["against"] = explanation["against"]
        return record

    @cached_property
    def _versions(self) -> dict[str, str]:
        return package_versions(self._loaded.settings)
