"""Accuracy of the fast path: JPEGs decoded at reduced size and accelerated trunks.

The reference is the original network in float32, on photos decoded at full size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from camserve import photo_preparation
from camserve.images import downscale_factor, header
from camserve.networks.architectures import build
from camserve.pipeline import Pipeline
from camserve.settings import Limits
from camserve_cli.packaging import pretrained
from camserve_cli.sample_photos import sample_photo
from tests.support import color_resnet, request_builders

# Where the two best probabilities are that close, the best class may change.
CLOSE = 0.02
SAME_CLASS = 0.99
PROBABILITY = 0.02
CORRELATION = 0.99

# People, animals, things and places, as in ImageNet, some of them grey.
EVERYDAY = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
    "camera.png", "coins.png", "brick.png",
)  # fmt: skip
# From microscopes and telescopes, unlike ImageNet: the network can only guess.
STRANGE = ("retina.jpg", "hubble_deep_field.jpg", "ihc.png", "cell.png")
LARGE = 12  # every twelfth crop has megapixels


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3), BGR."""
    image = cv2.imread(str(path))
    assert image is not None
    return image.astype(np.uint8)


def crops(names: Sequence[str], count: int) -> Iterator[bytes]:
    """JPEGs of crops of the photos: mirrored, darker, lighter, small, large, fine, coarse."""
    rng = np.random.default_rng(0)
    photos = [read_image(sample_photo(name)) for name in names]
    grain = rng.normal(0, 5, (512, 512, 3))
    for n in range(count):
        # So that the large crops are of different photos.
        photo = photos[(n + n // len(photos)) % len(photos)]
        size = np.array(photo.shape[:2])
        height, width = (size * rng.uniform(0.35, 1, 2)).astype(int)
        y, x = rng.integers(0, size - (height, width) + 1)
        crop: NDArray[Any] = photo[y : y + height, x : x + width]
        flips = (slice(None, None, int(step)) for step in rng.choice([1, 1, 1, -1], 2))
        crop = np.ascontiguousarray(crop[tuple(flips)])
        crop = cv2.convertScaleAbs(crop, alpha=rng.uniform(0.6, 1.4), beta=rng.uniform(-20, 20))
        large = n % LARGE == LARGE - 1
        scale = (rng.uniform(1050, 2400) if large else rng.uniform(120, 600)) / min(height, width)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=interpolation)
        if large:
            # An enlarged crop has no fine detail; a camera's photo has.
            repeats = (crop.shape[0] // 512 + 1, crop.shape[1] // 512 + 1, 1)
            noise = np.tile(grain, repeats)[: crop.shape[0], : crop.shape[1]]
            crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 98))]
        yield cv2.imencode(".jpg", crop, quality)[1].tobytes()


@cache
def photos_of(subject: str) -> list[bytes]:
    """JPEGs of a subject; for a ResNet ``some`` of both are enough.

    ``a sample`` and ``a few`` are drawn quickly. All have large ones, which are decoded at a part
    of their size.
    """
    match subject:
        case "everyday":
            return list(crops(EVERYDAY, 204))
        case "strange":
            return list(crops(STRANGE, 60))
        case "a sample":
            drawn = list(crops(EVERYDAY, 4 * LARGE))
            return [*drawn[::4], *drawn[LARGE - 1 :: LARGE]]
        case "some":
            return photos_of("everyday")[11::24] + photos_of("strange")[::30]
        case _:
            sample = photos_of("a sample")
            return [*sample[:4], *sample[-4:], *crops(STRANGE, 2)]


@dataclass(frozen=True)
class PipelineOutput:
    """What a pipeline replies to N photos.

    Attributes:
        probabilities: (N, C).
        classes: the explained class of each photo.
        maps: (N, h * w), their maps.
        downscale_factors: that the photos were decoded with.
    """

    probabilities: NDArray[np.float64]
    classes: list[int]
    maps: NDArray[np.float64]
    downscale_factors: list[int]


@dataclass(frozen=True)
class NetworkUnderTest:
    """An archive of a network: its files and its ``handler:`` section."""

    directory: Path
    section: dict[str, Any]
    classes: int
    batch_size: int

    @classmethod
    def of(
        cls, network: nn.Module, directory: Path, classes: int, batch_size: int, **section: Any
    ) -> NetworkUnderTest:
        save_file(network.state_dict(), directory / "weights.safetensors")
        (directory / "labels.json").write_text(json.dumps([f"class {n}" for n in range(classes)]))
        return cls(directory, section, classes, batch_size)

    def load(self, **settings: str) -> Pipeline:
        config = {"batchSize": self.batch_size, "handler": {**self.section, **settings}}
        device = torch.device("cpu")
        return Pipeline.load(config, self.directory, {"name": "x", "version": "1"}, device)

    def ask(
        self, pipeline: Pipeline, photos: Sequence[bytes], targets: Sequence[Any], exact: bool
    ) -> PipelineOutput:
        """Explain each photo's target; ``exact`` decodes all photos at full size."""
        factors: list[int] = []

        def record_factor(*arguments: Any) -> int:
            factors.append(1 if exact else downscale_factor(*arguments))
            return factors[-1]

        probabilities = np.zeros((len(photos), self.classes))
        classes, maps = [], []
        requests = [
            request_builders.form(photo, target=str(target), top_k=str(self.classes), outputs="map")
            for photo, target in zip(photos, targets, strict=True)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(photo_preparation, "downscale_factor", record_factor)
            batch = pipeline.preprocess(requests)
        for n, reply in enumerate(pipeline.postprocess(pipeline.inference(batch))):
            content = json.loads(reply.body)
            assert reply.status == 200, content
            for prediction in content["predictions"]:
                probabilities[n, prediction["class_id"]] = prediction["probability"]
            (explanation,) = content["explanations"]
            classes.append(explanation["class_id"])
            maps.append(explanation["map"]["values"])
        return PipelineOutput(probabilities, classes, np.array(maps), factors)


@pytest.fixture(scope="module")
def networks_under_test(
    tmp_path_factory: pytest.TempPathFactory, efficientnet_lite0: nn.Module
) -> dict[str, NetworkUnderTest]:
    def directory() -> Path:
        return tmp_path_factory.mktemp("archive")

    torch.manual_seed(0)
    seeded = build("resnet50", {}, 1000)
    color = color_resnet.colour_resnet50(**color_resnet.NARROW)
    return {
        "ImageNet": NetworkUnderTest.of(
            efficientnet_lite0, directory(), 1000, 8, **pretrained.FALLBACK_MODEL
        ),
        "constructed": NetworkUnderTest.of(
            color, directory(), len(color_resnet.COLOR_VALUES), 2, arch_kwargs=color_resnet.NARROW
        ),
        "seeded": NetworkUnderTest.of(seeded, directory(), 1000, 2),
    }  # fmt: skip


SETTINGS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32": {"precision": "float32"},
    "reference": {"precision": "float32", "compile": "off"},
}


@pytest.fixture(scope="module")
def pipelines(networks_under_test: dict[str, NetworkUnderTest]) -> Callable[[str, str], Pipeline]:
    """The pipeline of a network with some settings, by both names.

    As it comes, a pipeline runs in one of the two precisions; it is not loaded again for that one.
    """

    @cache
    def load(name: str, settings: str) -> Pipeline:
        if settings in ("bfloat16", "float32"):
            usual = load(name, "as it comes")
            if (usual.loaded.acceleration.precision, usual.loaded.acceleration.compiled) == (
                settings,
                True,
            ):
                return usual
        return networks_under_test[name].load(**SETTINGS[settings])

    return load


@pytest.fixture(scope="module")
def references(
    networks_under_test: dict[str, NetworkUnderTest],
    pipelines: Callable[[str, str], Pipeline],
) -> Callable[[str, str], PipelineOutput]:
    """The output of an original network for photos decoded at full size."""

    @cache
    def reference(name: str, subject: str) -> PipelineOutput:
        pipeline, some = pipelines(name, "reference"), photos_of(subject)
        assert pipeline.loaded.acceleration.network is None
        return networks_under_test[name].ask(pipeline, some, ["predicted"] * len(some), exact=True)

    return reference


@pytest.fixture(scope="module")
def answers(
    networks_under_test: dict[str, NetworkUnderTest],
    references: Callable[[str, str], PipelineOutput],
) -> Callable[[str, str, Pipeline], PipelineOutput]:
    """The output for the reference's classes; computed once for settings with one result."""
    outputs: dict[tuple[str, str, str, bool], PipelineOutput] = {}

    def answers(name: str, subject: str, pipeline: Pipeline) -> PipelineOutput:
        key = (
            name,
            subject,
            pipeline.loaded.acceleration.precision,
            pipeline.loaded.acceleration.compiled,
        )
        if key not in outputs:
            classes = references(name, subject).classes
            outputs[key] = networks_under_test[name].ask(
                pipeline, photos_of(subject), classes, exact=False
            )
        return outputs[key]

    return answers


@pytest.mark.parametrize("settings", ["as it comes", "bfloat16", "float32"])
@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("ImageNet", "a sample"),
        pytest.param("ImageNet", "everyday", marks=pytest.mark.slow),
        pytest.param("ImageNet", "strange", marks=pytest.mark.slow),
        ("constructed", "a few"),
        pytest.param("seeded", "some", marks=pytest.mark.slow),
    ],
)
def test_the_fast_path_keeps_classes_probabilities_and_maps(
    name: str,
    subject: str,
    settings: str,
    pipelines: Callable[[str, str], Pipeline],
    references: Callable[[str, str], PipelineOutput],
    answers: Callable[[str, str, Pipeline], PipelineOutput],
) -> None:
    pipeline, exact = pipelines(name, settings), references(name, subject)
    assert pipeline.loaded.acceleration.network is not None
    fast = answers(name, subject, pipeline)
    assert fast.classes == exact.classes
    assert set(exact.downscale_factors) == {1}
    assert {2, 4} & set(fast.downscale_factors)

    best = np.sort(exact.probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] > CLOSE
    same = exact.probabilities.argmax(axis=1) == fast.probabilities.argmax(axis=1)
    evident = exact.maps.any(axis=1)
    assert np.array_equal(fast.maps.any(axis=1), evident)
    figures = {
        "photos": len(exact.classes),
        "same class": float(same[clear].mean()) if clear.any() else 1.0,
        "max probability difference": float(np.abs(exact.probabilities - fast.probabilities).max()),
        "min correlation": min(
            float(np.corrcoef(expected, fast_map)[0, 1])
            for expected, fast_map in zip(exact.maps[evident], fast.maps[evident], strict=True)
        ),
    }
    assert figures["same class"] >= SAME_CLASS, figures
    assert figures["max probability difference"] <= PROBABILITY, figures
    assert figures["min correlation"] >= CORRELATION, figures


@pytest.mark.slow
def test_the_photos_are_many_and_of_every_kind(
    references: Callable[[str, str], PipelineOutput],
) -> None:
    assert len(photos_of("everyday")) >= 200
    sizes = [header.read_header(photo, Limits(), 10**8) for photo in photos_of("everyday")]
    megapixels = np.array([header.width * header.height / 1e6 for header in sizes])
    assert (megapixels > 2).sum() >= 10
    assert megapixels.max() > 5
    assert megapixels.min() < 0.05
    output = references("ImageNet", "everyday")
    best = np.sort(output.probabilities, axis=1)
    # Most have a clear best class; they are of many classes, with high and low probabilities.
    assert (best[:, -1] - best[:, -2] > CLOSE).mean() > 0.8
    assert len(set(output.classes)) > 40
    assert best[:, -1].max() > 0.9
    assert best[:, -1].min() < 0.2
    assert output.maps.any(axis=1).mean() > 0.95
