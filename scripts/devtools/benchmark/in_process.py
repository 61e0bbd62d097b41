"""T5 and T6: our pipeline and the libraries that explain and decode, in this process."""

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

from camserve.batch import Batch
from camserve.errors import RequestError
from camserve.explain import explain_batch
from camserve.images import Heatmap, InputFrame
from camserve.networks import GridLayout, get_layer
from camserve.pipeline import Pipeline
from camserve.protocols import IncomingRequest
from devtools.benchmark.archives import BATCH_SIZE
from devtools.benchmark.goals import Goal, GoalResult, goal_result
from devtools.benchmark.timing import Step, time_interleaved
from devtools.measurements import Summary

T5 = Goal("T5", "predictions and maps of 8, pytorch-grad-cam / ours", ">=", 15)
T5_FLOAT32 = Goal("T5", "the same, ours in float32 eager", ">=", 3)
T5_EXTRA = Goal("T5", "ours, forward and maps / forward alone", "<=", 1.05)
T5_CAPTUM = Goal("T5", "predictions and maps of 8, Captum LayerGradCam / ours")
T5_TARGETS = Goal("T5", "ours, 5 targets for each / 1 target")
T5_TRANSFORMER = Goal("T5", "{arch}: predictions and maps of 8, pytorch-grad-cam / ours", ">=", 8)
T5_TRANSFORMER_EXTRA = Goal("T5", "{arch}: ours, forward and maps / forward alone", "<=", 1.1)
T6 = Goal("T6", "12-megapixel JPEG to tensor, ours / Pillow", "<=", 0.3)

EAGER = {"precision": "float32", "compile": "off"}
OURS, FLOAT32, FORWARD, PEER = (
    "ours", "ours, float32 eager", "forward alone, float32 eager", "pytorch-grad-cam",
)  # fmt: skip
OURS_FORWARD, OURS_GRIDS = "ours, forward alone", "ours, maps as grids"


@dataclass(frozen=True)
class BatchPoint:
    """A point of the curve over the batch size; ``time`` is in ms a batch."""

    peer: str
    size: int
    time: Summary


def load_pipeline(archive: Path, settings: Mapping[str, Any] | None = None) -> Pipeline:
    """A pipeline from an unpacked archive, on the CPU.

    Args:
        settings: override those of the archive's ``handler:`` section.
    """
    config = yaml.safe_load((archive / "model-config.yaml").read_text())
    config["handler"].update(settings or {})
    model = {"name": "ours", "version": "1.0"}
    return Pipeline.load(config, archive, model, torch.device("cpu"))  # type: ignore[arg-type]


def prepare_batch(pipeline: Pipeline, photo: bytes, size: int, **options: Any) -> Batch:
    """A batch of ``size`` times the same photo, decoded and cropped."""
    headers = {"x-explain": json.dumps(options)}
    batch = pipeline.preprocess([IncomingRequest({"body": photo}, headers)] * size)
    for prepared in batch.photos:
        if isinstance(prepared, RequestError):
            raise prepared
    return batch


def predict_and_explain(pipeline: Pipeline, batch: Batch, *, enlarge: bool = False) -> list[Any]:
    """The predictions for a batch and the maps that it asks for, on the host.

    Args:
        enlarge: resize each map to the network's input, as pytorch-grad-cam does.
    """
    input_size = pipeline.settings.preprocess.input_size
    frame = InputFrame.full(input_size.width, input_size.height)
    computed: list[Any] = []
    for forward in pipeline.inference(batch).passes:
        results = explain_batch(
            forward.output, [photo.explanation_request for _, photo in forward.photos]
        )
        computed.append(results)
        if enlarge:
            scores = (score for of_photo in results.explained for score in of_photo)
            computed += [
                Heatmap([map.values for map in score.maps], input_size).resample(frame)
                for score in scores
            ]
    return computed


def decode_to_tensor(pipeline: Pipeline, photo: bytes) -> Tensor:
    """An encoded photo -> the network's input, (1, channels, H, W) normalized."""
    (prepared,) = pipeline.preprocess([IncomingRequest({"body": photo}, {})]).photos
    if isinstance(prepared, RequestError):
        raise prepared
    return pipeline.network.normalise(np.stack([prepared.network_input]))


class PeerLibraries:
    """torchvision's network, and the libraries that explain it.

    Args:
        network: in eval mode; its parameters require grad, as after loading.
        layer: the dotted name of the target layer.
        layout: of its output.
    """

    def __init__(self, network: nn.Module, layer: str, layout: GridLayout) -> None:
        self.network = network
        target_layer = get_layer(network, layer)
        self._gradcam = GradCAM(network, [target_layer], reshape_transform=layout.to_grid)
        self._captum = LayerGradCam(network, target_layer)

    @torch.inference_mode()
    def forward(self, inputs: Tensor) -> Tensor:
        """Probabilities (N, classes), without maps."""
        logits: Tensor = self.network(inputs)
        return logits.softmax(dim=1)

    def gradcam(self, inputs: Tensor) -> tuple[Any, Any]:
        """Probabilities, and the predicted classes' maps at the size of the input."""
        maps = self._gradcam(input_tensor=inputs, targets=None)
        return self._gradcam.outputs.detach().softmax(dim=1), maps

    def captum(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities, and the predicted classes' maps; Captum takes the classes as indices."""
        predicted = self.forward(inputs)
        maps = self._captum.attribute(
            inputs, target=predicted.argmax(dim=1), relu_attributions=True
        )
        return predicted, maps.detach()


class Contestants:
    """What is compared on one photo: our pipeline in two precisions, and the peer libraries.

    Args:
        archive: ours, unpacked.
        network: the same network, for the peer libraries.
        photo: encoded.

    Attributes:
        ours, float32: our pipelines.
        libraries: the peers.
        photo: as given.
    """

    def __init__(self, archive: Path, network: nn.Module, photo: bytes) -> None:
        threads = torch.get_num_threads()
        self.ours = load_pipeline(archive)
        self.float32 = load_pipeline(archive, EAGER)
        layer = self.ours.settings.layer
        self.libraries = PeerLibraries(network, layer, self.ours.forward_paths[0].layouts[layer])
        self.photo = photo
        # Loading may set the number of threads; here all contestants use the same number.
        torch.set_num_threads(threads)

    def inputs(self, size: int) -> Tensor:
        """(size, 3, H, W) of the photo, for the peer libraries."""
        return decode_to_tensor(self.ours, self.photo).contiguous().repeat(size, 1, 1, 1)

    def steps(self, size: int) -> dict[str, Step]:
        """What is timed at each batch size."""
        inputs = self.inputs(size)
        return {
            OURS: self.maps(self.ours, size),
            FLOAT32: self.maps(self.float32, size),
            FORWARD: lambda: self.libraries.forward(inputs),
            PEER: lambda: self.libraries.gradcam(inputs),
        }

    def cost_of_maps(self, size: int) -> dict[str, Step]:
        """Our forward pass with maps, which are not enlarged, and without."""
        return {
            OURS_FORWARD: self.maps(self.ours, size, explain=False),
            OURS_GRIDS: self.maps(self.ours, size, enlarge=False),
        }

    def maps(self, pipeline: Pipeline, size: int, *, enlarge: bool = True, **options: Any) -> Step:
        """The step of our predictions and maps for a batch."""
        batch = prepare_batch(pipeline, self.photo, size, **options)
        return lambda: predict_and_explain(pipeline, batch, enlarge=enlarge)


def compare_explanations(contestants: Contestants, repeat: int, seconds: float) -> list[GoalResult]:
    """T5: a batch of 8, and for information Captum and five targets a photo."""
    five, captum = "ours, 5 targets", "Captum LayerGradCam"
    size, inputs, ours = BATCH_SIZE, contestants.inputs(BATCH_SIZE), contestants.ours
    steps = {
        **contestants.steps(size),
        **contestants.cost_of_maps(size),
        five: contestants.maps(ours, size, target="top:5"),
        captum: lambda: contestants.libraries.captum(inputs),
    }
    return _time_ratios(
        (T5, PEER, OURS),
        (T5_FLOAT32, PEER, FLOAT32),
        (T5_EXTRA, OURS_GRIDS, OURS_FORWARD),
        (T5_CAPTUM, captum, OURS),
        (T5_TARGETS, five, OURS),
        steps=steps,
        repeat=repeat,
        seconds=seconds,
    )


def compare_transformer(
    contestants: Contestants, arch: str, repeat: int, seconds: float
) -> list[GoalResult]:
    """T5 of a network whose target layer has tokens, or channels last: a batch of 8."""
    steps = contestants.steps(BATCH_SIZE)
    return _time_ratios(
        (_of_arch(T5_TRANSFORMER, arch), PEER, OURS),
        (_of_arch(T5_TRANSFORMER_EXTRA, arch), OURS_GRIDS, OURS_FORWARD),
        steps={name: steps[name] for name in (OURS, PEER)} | contestants.cost_of_maps(BATCH_SIZE),
        repeat=repeat,
        seconds=seconds,
    )


def _of_arch(goal: Goal, arch: str) -> Goal:
    return replace(goal, description=goal.description.format(arch=arch))


def _time_ratios(
    *ratios: tuple[Goal, str, str], steps: Mapping[str, Step], repeat: int, seconds: float
) -> list[GoalResult]:
    """The results of goals, each with the names of the step above and the step below."""
    times = time_interleaved(steps, repeat, seconds)
    return [
        goal_result(goal, "ms", (above, times[above]), (below, times[below]))
        for goal, above, below in ratios
    ]


def compare_decoding(
    pipeline: Pipeline, label: str, photo: bytes, repeat: int, seconds: float
) -> GoalResult:
    """T6: from the file of a large photo to the network's input; ``label`` describes the photo."""
    description = f"{T6.description}, {label}, {len(photo) / 1e6:.1f} MB"
    goal = replace(T6, description=description)
    ours, peer = "ours", "Pillow, torchvision preset"
    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()

    def torchvision() -> object:
        return preset(Image.open(BytesIO(photo)).convert("RGB")).unsqueeze(0)

    steps: dict[str, Step] = {ours: lambda: decode_to_tensor(pipeline, photo), peer: torchvision}
    times = time_interleaved(steps, repeat, seconds)
    return goal_result(goal, "ms", (ours, times[ours]), (peer, times[peer]))


def batch_curve(
    contestants: Contestants, sizes: Sequence[int], repeat: int, seconds: float
) -> list[BatchPoint]:
    """The time of a batch against its size."""
    points = []
    for size in sizes:
        for peer, times in time_interleaved(contestants.steps(size), repeat, seconds).items():
            points.append(BatchPoint(peer, size, Summary.of(times)))
    return points
