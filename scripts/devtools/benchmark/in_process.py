"""T5 and T6: our pipeline beside the libraries that explain and decode, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from captum.attr import LayerGradCam  # type: ignore[import-untyped]
from PIL import Image
from pytorch_grad_cam import GradCAM  # type: ignore[import-untyped]
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from benchmark.figures import Result, Summary, Target, compared
from benchmark.networks import BATCH_SIZE
from benchmark.timing import Step, alternate
from camserve.errors import RequestError
from camserve.explain import explanations as explain_module
from camserve.images import render
from camserve.images.geometry import InputFrame
from camserve.networks.layers import get_layer
from camserve.pipeline import Batch, Pipeline
from camserve.protocols.parsing import IncomingRequest

T5 = Target("T5", "predictions and maps of 8, pytorch-grad-cam / ours", ">=", 15)
T5_FLOAT32 = Target("T5", "the same, ours in float32 eager", ">=", 3)
T5_EXTRA = Target("T5", "ours, forward and maps / forward alone", "<=", 1.05)
T5_CAPTUM = Target("T5", "predictions and maps of 8, Captum LayerGradCam / ours")
T5_TARGETS = Target("T5", "ours, 5 targets for each / 1 target")
T6 = Target("T6", "12-megapixel JPEG to tensor, ours / Pillow", "<=", 0.3)

EAGER = {"precision": "float32", "compile": "off"}
OURS, FLOAT32, FORWARD, PEER = (
    "ours", "ours, float32 eager", "forward alone, float32 eager", "pytorch-grad-cam",
)  # fmt: skip


@dataclass(frozen=True)
class BatchPoint:
    """A point of the curve over the batch size: ms a batch."""

    peer: str
    size: int
    time: Summary


def load(archive: Path, settings: Mapping[str, Any] | None = None) -> Pipeline:
    """A pipeline from an unpacked archive, on the CPU.

    Args:
        settings: of the ``handler:`` section, other than the archive's.
    """
    config = yaml.safe_load((archive / "model-config.yaml").read_text())
    config["handler"].update(settings or {})
    model = {"name": "ours", "version": "1.0"}
    return Pipeline.load(config, archive, model, torch.device("cpu"))  # type: ignore[arg-type]


def prepared(pipeline: Pipeline, photo: bytes, size: int, **options: Any) -> Batch:
    """A batch of the same photo, decoded and cropped."""
    headers = {"x-explain": json.dumps(options)}
    batch = pipeline.preprocess([IncomingRequest({"body": photo}, headers)] * size)
    for job in batch.photos:
        if isinstance(job, RequestError):
            raise job
    return batch


def scored(pipeline: Pipeline, batch: Batch, *, enlarge: bool = False) -> list[Any]:
    """The predictions of a batch's photos and the maps that they ask for, on the host.

    Args:
        enlarge: bring each map to the size of the network's input, as pytorch-grad-cam does.
    """
    side = pipeline.settings.preprocess.crop
    frame = InputFrame.whole(side, side)
    found: list[Any] = []
    for one in pipeline.inference(batch).passes:
        results = explain_module.explain_batch(
            one.output, [job.explanation_request for _, job in one.photos]
        )
        found.append(results)
        if enlarge:
            scores = (score for of_photo in results.explained for score in of_photo)
            found += [
                render.Heatmap([map.values for map in score.maps], side).over(frame)
                for score in scores
            ]
    return found


def tensor(pipeline: Pipeline, photo: bytes) -> Tensor:
    """An encoded photo -> (1, 3, H, W), what the network sees."""
    (job,) = pipeline.preprocess([IncomingRequest({"body": photo}, {})]).photos
    if isinstance(job, RequestError):
        raise job
    return pipeline.network.normalise(np.stack([job.network_input]))


class Peers:
    """The network as torchvision lays it out, and the libraries that explain it.

    Args:
        network: in eval mode; its parameters require grad, as those of a loaded network do.
        layer: the dotted name of the module that is explained.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.network = network
        target = get_layer(network, layer)
        self._gradcam = GradCAM(model=network, target_layers=[target])
        self._captum = LayerGradCam(network, target)

    @torch.inference_mode()
    def forward(self, inputs: Tensor) -> Tensor:
        """The logits alone."""
        logits: Tensor = self.network(inputs)
        return logits.softmax(dim=1)

    def gradcam(self, inputs: Tensor) -> tuple[Any, Any]:
        """Predictions, and the predicted classes' maps at the size of the input."""
        maps = self._gradcam(input_tensor=inputs, targets=None)
        return self._gradcam.outputs.detach().softmax(dim=1), maps

    def captum(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions, and the predicted classes' maps; Captum wants them by number."""
        predicted = self.forward(inputs)
        maps = self._captum.attribute(
            inputs, target=predicted.argmax(dim=1), relu_attributions=True
        )
        return predicted, maps.detach()


class Compared:
    """Our pipeline at its two precisions and the peers, ready for the same photo.

    Args:
        archive: ours, unpacked.
        network: the same one for the peers.
        photo: encoded.
    """

    def __init__(self, archive: Path, network: nn.Module, photo: bytes) -> None:
        threads = torch.get_num_threads()
        self.ours = load(archive)
        self.float32 = load(archive, EAGER)
        self.peers = Peers(network, self.ours.settings.layer)
        self._photo = photo
        # A worker may set how many threads it runs on; here everyone has the same.
        torch.set_num_threads(threads)

    def inputs(self, size: int) -> Tensor:
        """(size, 3, H, W) of the photo, for the peers."""
        return tensor(self.ours, self._photo).contiguous().repeat(size, 1, 1, 1)

    def steps(self, size: int) -> dict[str, Step]:
        """What is timed for each batch size."""
        inputs = self.inputs(size)
        return {
            OURS: self.maps(self.ours, size),
            FLOAT32: self.maps(self.float32, size),
            FORWARD: lambda: self.peers.forward(inputs),
            PEER: lambda: self.peers.gradcam(inputs),
        }

    def maps(self, pipeline: Pipeline, size: int, *, enlarge: bool = True, **options: Any) -> Step:
        """Predictions and maps of a batch of ours."""
        batch = prepared(pipeline, self._photo, size, **options)
        return lambda: scored(pipeline, batch, enlarge=enlarge)


def explanations(peers: Compared, repeat: int, seconds: float) -> list[Result]:
    """T5: a batch of 8, and for information Captum and five targets a photo."""
    alone, grids, five = "ours, forward alone", "ours, maps as grids", "ours, 5 targets"
    captum = "Captum LayerGradCam"
    size, inputs, ours = BATCH_SIZE, peers.inputs(BATCH_SIZE), peers.ours
    steps = {
        **peers.steps(size),
        alone: peers.maps(ours, size, explain=False),
        grids: peers.maps(ours, size, enlarge=False),
        five: peers.maps(ours, size, target="top:5"),
        captum: lambda: peers.peers.captum(inputs),
    }
    found = alternate(steps, repeat, seconds)
    pairs: Sequence[tuple[Target, str, str]] = (
        (T5, PEER, OURS),
        (T5_FLOAT32, PEER, FLOAT32),
        (T5_EXTRA, grids, alone),
        (T5_CAPTUM, captum, OURS),
        (T5_TARGETS, five, OURS),
    )
    return [
        compared(target, "ms", (above, found[above]), (below, found[below]))
        for target, above, below in pairs
    ]


def decoding(pipeline: Pipeline, kind: str, photo: bytes, repeat: int, seconds: float) -> Result:
    """T6: a large photo's file to what the network takes; ``kind`` is the photo's."""
    target = replace(T6, says=f"{T6.says}, {kind}, {len(photo) / 1e6:.1f} MB")
    ours, peer = "ours", "Pillow, torchvision preset"
    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()

    def torchvision() -> object:
        return preset(Image.open(BytesIO(photo)).convert("RGB")).unsqueeze(0)

    steps: dict[str, Step] = {ours: lambda: tensor(pipeline, photo), peer: torchvision}
    found = alternate(steps, repeat, seconds)
    return compared(target, "ms", (ours, found[ours]), (peer, found[peer]))


def batches(peers: Compared, sizes: Sequence[int], repeat: int, seconds: float) -> list[BatchPoint]:
    """The time of a batch against its size."""
    points = []
    for size in sizes:
        for peer, times in alternate(peers.steps(size), repeat, seconds).items():
            points.append(BatchPoint(peer, size, Summary.of(times)))
    return points
