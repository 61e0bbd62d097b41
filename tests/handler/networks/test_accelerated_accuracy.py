"""Speed changes no answer: photos decoded in part and a fast trunk, against all of it done exactly.

The reference is the network as it came, in float32, on photos decoded as large as they are.
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

from camserve.images import header, preprocess
from camserve.networks.classifier import build
from camserve.pipeline import Pipeline
from camserve.settings import Limits
from camserve_cli.packaging import pretrained
from camserve_cli.sample_photos import sample_photo
from tests.support import color_resnet, request_builders

# A photo is named the same class unless the best two are so close that either will do.
CLOSE = 0.02
SAME_CLASS = 0.99
PROBABILITY = 0.02
CORRELATION = 0.99

# People, animals, things and places, some of them grey: what ImageNet shows.
EVERYDAY = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
    "camera.png", "coins.png", "brick.png",
)  # fmt: skip
# Through microscopes and telescopes: what it does not, so that whatever it says is a guess.
STRANGE = ("retina.jpg", "hubble_deep_field.jpg", "ihc.png", "cell.png")
LARGE = 12  # every twelfth has megapixels


def crops(names: Sequence[str], count: int) -> Iterator[bytes]:
    """JPEGs of parts of the photos: mirrored, darker, lighter, small, large, fine, coarse."""
    rng = np.random.default_rng(0)
    photos = [cv2.imread(str(sample_photo(name))) for name in names]
    grain = rng.normal(0, 5, (512, 512, 3))
    for n in range(count):
        # Not in step with the large ones.
        photo = photos[(n + n // len(photos)) % len(photos)]
        whole = np.array(photo.shape[:2])
        height, width = (whole * rng.uniform(0.35, 1, 2)).astype(int)
        y, x = rng.integers(0, whole - (height, width) + 1)
        part = photo[y : y + height, x : x + width]
        flips = (slice(None, None, int(step)) for step in rng.choice([1, 1, 1, -1], 2))
        part = np.ascontiguousarray(part[tuple(flips)])
        part = cv2.convertScaleAbs(part, alpha=rng.uniform(0.6, 1.4), beta=rng.uniform(-20, 20))
        large = n % LARGE == LARGE - 1
        scale = (rng.uniform(1050, 2400) if large else rng.uniform(120, 600)) / min(height, width)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=how)
        if large:
            # Enlarged, it has no detail of its own; a camera's has.
            repeats = (part.shape[0] // 512 + 1, part.shape[1] // 512 + 1, 1)
            noise = np.tile(grain, repeats)[: part.shape[0], : part.shape[1]]
            part = np.clip(part + noise, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 98))]
        yield cv2.imencode(".jpg", part, quality)[1].tobytes()


@pytest.fixture(scope="module")
def photos() -> dict[str, list[bytes]]:
    """By what they show. For a ResNet, some of each are enough."""
    found = {"everyday": list(crops(EVERYDAY, 204)), "strange": list(crops(STRANGE, 60))}
    return found | {"some": found["everyday"][11::24] + found["strange"][::30]}


@dataclass(frozen=True)
class Said:
    """What a pipeline says of N photos.

    Attributes:
        probabilities: (N, C).
        classes: that were explained.
        maps: (N, h * w) of them.
        reduced: by how much each photo was decoded smaller.
    """

    probabilities: NDArray[np.float64]
    classes: list[int]
    maps: NDArray[np.float64]
    reduced: list[int]


@dataclass(frozen=True)
class Subject:
    """A network to serve, by its weights, labels and section of settings."""

    directory: Path
    section: dict[str, Any]
    classes: int
    batch_size: int

    @classmethod
    def of(
        cls, network: nn.Module, directory: Path, classes: int, batch_size: int, **section: Any
    ) -> Subject:
        save_file(network.state_dict(), directory / "weights.safetensors")
        (directory / "labels.json").write_text(json.dumps([f"class {n}" for n in range(classes)]))
        return cls(directory, section, classes, batch_size)

    def load(self, **settings: str) -> Pipeline:
        config = {"batchSize": self.batch_size, "handler": {**self.section, **settings}}
        device = torch.device("cpu")
        return Pipeline.load(config, self.directory, {"name": "x", "version": "1"}, device)

    def ask(
        self, pipeline: Pipeline, photos: Sequence[bytes], targets: Sequence[Any], exact: bool
    ) -> Said:
        """What is said of each photo, its target explained."""
        reduced: list[int] = []
        reduction = preprocess.downscale_factor

        def decide(*arguments: Any) -> int:
            reduced.append(1 if exact else reduction(*arguments))
            return reduced[-1]

        probabilities = np.zeros((len(photos), self.classes))
        classes, maps = [], []
        asked = [
            request_builders.form(photo, target=str(target), top_k=str(self.classes), outputs="map")
            for photo, target in zip(photos, targets, strict=True)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(preprocess, "downscale_factor", decide)
            batch = pipeline.preprocess(asked)
        for n, reply in enumerate(pipeline.postprocess(pipeline.inference(batch))):
            content = json.loads(reply.body)
            assert reply.status == 200, content
            for one in content["predictions"]:
                probabilities[n, one["class_id"]] = one["probability"]
            (explanation,) = content["explanations"]
            classes.append(explanation["class_id"])
            maps.append(explanation["map"]["values"])
        return Said(probabilities, classes, np.array(maps), reduced)


@pytest.fixture(scope="module")
def subjects(
    tmp_path_factory: pytest.TempPathFactory, efficientnet_lite0: nn.Module
) -> dict[str, Subject]:
    def directory() -> Path:
        return tmp_path_factory.mktemp("archive")

    torch.manual_seed(0)
    seeded = build("resnet50", {}, 1000)
    colours = color_resnet.colour_resnet50()
    return {
        "ImageNet": Subject.of(
            efficientnet_lite0, directory(), 1000, 8, **pretrained.FALLBACK_MODEL
        ),
        "constructed": Subject.of(colours, directory(), len(color_resnet.COLOURS), 2),
        "seeded": Subject.of(seeded, directory(), 1000, 2),
    }  # fmt: skip


SETTINGS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32": {"precision": "float32"},
    "reference": {"precision": "float32", "compile": "off"},
}


@pytest.fixture(scope="module")
def pipelines(subjects: dict[str, Subject]) -> Callable[[str, str], Pipeline]:
    return cache(lambda name, how: subjects[name].load(**SETTINGS[how]))


@pytest.fixture(scope="module")
def references(
    subjects: dict[str, Subject],
    pipelines: Callable[[str, str], Pipeline],
    photos: dict[str, list[bytes]],
) -> Callable[[str, str], Said]:
    """What a network says of photos where all is done exactly."""

    @cache
    def reference(name: str, shown: str) -> Said:
        pipeline, some = pipelines(name, "reference"), photos[shown]
        assert pipeline.loaded.fast.cut is None
        return subjects[name].ask(pipeline, some, ["predicted"] * len(some), exact=True)

    return reference


@pytest.fixture(scope="module")
def answers(
    subjects: dict[str, Subject],
    photos: dict[str, list[bytes]],
    references: Callable[[str, str], Said],
) -> Callable[[str, str, Pipeline], Said]:
    """What is said of the same classes; asked once where two settings come to the same."""
    known: dict[tuple[str, str, str, bool], Said] = {}

    def answers(name: str, shown: str, pipeline: Pipeline) -> Said:
        key = name, shown, pipeline.loaded.fast.precision, pipeline.loaded.fast.compiled
        if key not in known:
            classes = references(name, shown).classes
            known[key] = subjects[name].ask(pipeline, photos[shown], classes, exact=False)
        return known[key]

    return answers


@pytest.mark.parametrize("how", ["as it comes", "bfloat16", "float32"])
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ImageNet", "everyday"),
        ("ImageNet", "strange"),
        ("constructed", "some"),
        ("seeded", "some"),
    ],
)
def test_speed_changes_no_answer(
    name: str,
    shown: str,
    how: str,
    pipelines: Callable[[str, str], Pipeline],
    references: Callable[[str, str], Said],
    answers: Callable[[str, str, Pipeline], Said],
) -> None:
    pipeline, exact = pipelines(name, how), references(name, shown)
    assert pipeline.loaded.fast.cut is not None
    fast = answers(name, shown, pipeline)
    assert fast.classes == exact.classes
    assert set(exact.reduced) == {1}
    assert {2, 4} & set(fast.reduced)

    best = np.sort(exact.probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] > CLOSE
    same = exact.probabilities.argmax(axis=1) == fast.probabilities.argmax(axis=1)
    evident = exact.maps.any(axis=1)
    assert np.array_equal(fast.maps.any(axis=1), evident)
    found = {
        "photos": len(exact.classes),
        "of the same class": float(same[clear].mean()) if clear.any() else 1.0,
        "probabilities differ by": float(np.abs(exact.probabilities - fast.probabilities).max()),
        "least correlation": min(
            float(np.corrcoef(one, other)[0, 1])
            for one, other in zip(exact.maps[evident], fast.maps[evident], strict=True)
        ),
    }
    assert found["of the same class"] >= SAME_CLASS, found
    assert found["probabilities differ by"] <= PROBABILITY, found
    assert found["least correlation"] >= CORRELATION, found


def test_the_photos_are_many_and_of_every_kind(
    photos: dict[str, list[bytes]], references: Callable[[str, str], Said]
) -> None:
    assert len(photos["everyday"]) >= 200
    sizes = [header.read_header(photo, Limits(), 10**8) for photo in photos["everyday"]]
    megapixels = np.array([header.width * header.height / 1e6 for header in sizes])
    assert (megapixels > 2).sum() >= 10
    assert megapixels.max() > 5
    assert megapixels.min() < 0.05
    said = references("ImageNet", "everyday")
    best = np.sort(said.probabilities, axis=1)
    # Most are told apart, of many classes, surely and less surely.
    assert (best[:, -1] - best[:, -2] > CLOSE).mean() > 0.8
    assert len(set(said.classes)) > 40
    assert best[:, -1].max() > 0.9
    assert best[:, -1].min() < 0.2
    assert said.maps.any(axis=1).mean() > 0.95
