"""How publishers prepare photos, as settings: equal to timm's and transformers' own transforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from camserve.settings import Preprocess
from camserve_cli.packaging import presets, timm_models
from camserve_cli.packaging.check_photos import check_photos
from camserve_cli.packaging.errors import PresetError
from camserve_cli.packaging.hf_processor import PREPROCESSOR, HfProcessor
from camserve_cli.sample_photos import sample_photo

CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def photos() -> list[Image.Image]:
    """Photos of all shapes: what packaging compares on, and real ones."""
    real = [Image.open(sample_photo(name)).convert("RGB") for name in ("coffee.png", "chelsea.png")]
    return [*check_photos(), *real, real[0].resize((427, 640)), real[1].resize((901, 299))]


def assert_same_input(preset: dict[str, Any], transform: presets.Transform) -> None:
    """The archive's input of each photo differs from a publisher's by rounding alone."""
    every = photos()
    assert presets.difference(Preprocess(**preset), every, [transform(one) for one in every]) < 0.25


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("resnet18", {"resize": 235, "interpolation": "bicubic"}, id="center"),
        pytest.param("resnet18.tv_in1k", {"resize": 256, "interpolation": "bilinear"}, id="tag"),
        pytest.param("vit_tiny_patch16_224", {"resize": 248, "mean": [0.5, 0.5, 0.5]}, id="vit"),
        pytest.param(
            "deepseek_vit_412m.deepseek_v4_flash_vision_exp",
            {"fit": "pad", "crop": 392},
            id="border",
        ),
    ],
)
def test_timms_configuration_of_a_model_is_its_preset(name: str, expected: dict[str, Any]) -> None:
    data = timm_models.data_config(name, timm_models.pretrained_config(name))
    preset = data.preset()
    assert preset | expected == preset
    assert_same_input(preset, data.transform)


def test_what_settings_cannot_express_of_timms_is_said() -> None:
    name = "volo_d4_448"
    data = timm_models.data_config(name, timm_models.pretrained_config(name))
    with pytest.raises(PresetError, match=r"crop_pct 1\.15, crop_mode center.* cannot be"):
        data.preset()


def processor(folder: Path, kind: str, **settings: Any) -> HfProcessor:
    """The image processor of a folder whose preprocessor_config.json has these settings."""
    content = {"image_processor_type": f"{kind}ImageProcessor", **settings}
    (folder / PREPROCESSOR).write_text(json.dumps(content))
    return HfProcessor.open(folder)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("ViT", {}, {"fit": "stretch", "crop": 224, "interpolation": "bilinear"}),
        ("ViT", {"resample": 3, "size": {"height": 384, "width": 384}}, {"crop": 384}),
        ("ViT", {"do_normalize": False}, {"mean": [0, 0, 0], "std": [1, 1, 1]}),
        ("ViT", {"rescale_factor": 1 / 127.5}, {"mean": [0.25] * 3, "std": [0.25] * 3}),
        ("ViT", {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3},
         {"mean": [0.5] * 3, "std": [0.2] * 3}),
        ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.95},
         {"fit": "crop", "resize": 235, "crop": 224}),
        ("ConvNext", {"size": {"shortest_edge": 384}}, {"fit": "stretch", "crop": 384}),
        ("Bit", {"size": {"shortest_edge": 256}, **CLIP},
         {"resize": 256, "crop_rounding": "down", "mean": CLIP["image_mean"]}),
        ("CLIP", {}, {"resize": 224, "std": CLIP["image_std"]}),
        ("Levit", {}, {"resize": 256, "crop": 224}),
        ("PoolFormer", {}, {"resize": 248, "crop": 224}),
        ("MobileNetV2", {}, {"resize": 256, "crop": 224, "interpolation": "bilinear"}),
        ("EfficientNet", {"size": {"height": 260, "width": 260}}, {"std": [0.25] * 3}),
        ("Beit", {}, {"fit": "stretch"}),
        ("Siglip", {}, {"fit": "stretch"}),
    ],
)  # fmt: skip
def test_an_image_processor_of_transformers_is_a_preset(
    kind: str, settings: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    found = processor(tmp_path, kind, **settings)
    preset = found.preset()
    assert preset | expected == preset
    assert_same_input(preset, found.transform)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("MobileViT", {}, "exchanges or mixes the colour channels"),
        ("ViT", {"resample": 1}, "resizes with resample 1; an archive resizes with 2"),
        ("ViT", {"do_resize": False}, "makes inputs of several sizes"),
        ("Perceiver", {}, "cannot be expressed by handler.preprocess"),
        ("Bit", {"size": {"shortest_edge": 180}}, "cannot be expressed by handler.preprocess"),
        ("Siglip2", {}, r"makes inputs of shape \(256, 768\)"),
        ("ViT", {"image_mean": [1.5, 1.5, 1.5]}, "cannot be expressed"),
        ("NoSuch", {}, "has no image processor for"),
    ],
)
def test_what_settings_cannot_express_of_transformers_is_said(
    kind: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PresetError, match=message):
        processor(tmp_path, kind, **settings).preset()


def test_a_folder_without_preprocessor_config_does_not_say_how_photos_are_prepared(
    tmp_path: Path,
) -> None:
    with pytest.raises(PresetError, match=r"has no preprocessor_config\.json"):
        HfProcessor.open(tmp_path)
