"""Files of seeded image classifiers, as people have them: weights, and Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision import models

LABELS = ("ant", "bee", "cat", "dog", "eel")
#: What small configurations of transformers' vision transformers have in common.
_TOKENS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 64}  # fmt: skip
_STAGES = {"depths": [1, 1, 1, 1]}
#: Each type of transformers' image classifiers: its image processor with settings, and its
#: configuration, small and for inputs that are small.
HF_MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("ViT", {"size": {"height": 64, "width": 64}},
            {**_TOKENS, "image_size": 64, "patch_size": 16}),
    "deit": ("DeiT",
             {"size": {"height": 72, "width": 72}, "crop_size": {"height": 64, "width": 64}},
             {**_TOKENS, "image_size": 64, "patch_size": 16,
              "architectures": ["DeiTForImageClassificationWithTeacher"]}),
    "swin": ("ViT", {"size": {"height": 64, "width": 64}},
             {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "image_size": 64,
              "window_size": 4}),
    "swinv2": ("ViT", {"size": {"height": 64, "width": 64}},
               {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "image_size": 64,
                "window_size": 4}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}},
               {**_TOKENS, "image_size": 56, "patch_size": 14}),
    "dinov2_with_registers": (
        "Bit", {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}},
        {**_TOKENS, "image_size": 56, "patch_size": 14, "num_register_tokens": 4}),
    "beit": ("Beit", {"size": {"height": 64, "width": 64}, "do_center_crop": False},
             {**_TOKENS, "image_size": 64, "patch_size": 16}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": 64}},
                 {**_STAGES, "hidden_sizes": [8, 16, 16, 32]}),
    "resnet": ("ConvNext", {"size": {"shortest_edge": 64}},
               {**_STAGES, "embedding_size": 8, "hidden_sizes": [16, 16, 32, 32]}),
    "efficientnet": ("EfficientNet", {"size": {"height": 64, "width": 64}},
                     {"width_coefficient": 0.35, "depth_coefficient": 0.35, "hidden_dim": 448,
                      "image_size": 64}),
    "mobilenet_v2": ("MobileNetV2",
                     {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}},
                     {"depth_multiplier": 0.35, "image_size": 64}),
    "mobilevit": ("MobileViT",
                  {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64},
                   "do_flip_channel_order": False, "do_normalize": False},
                  {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 64],
                   "num_attention_heads": 2, "image_size": 64}),
    "levit": ("Levit", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
              {"image_size": 64, "hidden_sizes": [16, 32, 32], "num_attention_heads": [2, 2, 2],
               "depths": [1, 1, 1], "key_dim": [8, 8, 8],
               "architectures": ["LevitForImageClassificationWithTeacher"]}),
    "pvt": ("Pvt", {"size": {"height": 64, "width": 64}},
            {**_STAGES, "hidden_sizes": [8, 16, 16, 32], "image_size": 64,
             "num_attention_heads": [1, 2, 2, 2], "num_labels": len(LABELS)}),
    "segformer": ("Segformer", {"size": {"height": 64, "width": 64}},
                  {**_STAGES, "hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 2, 2, 2],
                   "image_size": 64}),
}  # fmt: skip


class Logits(nn.Module):
    """A Hugging Face classifier that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> Any:
        return self.network(photos).logits


def fill_zeros(network: Any, seed: int = 0) -> Any:
    """Give all weights that are zero, as untrained heads have, seeded values; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if not parameter.any():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return network.eval()


def torchvision_weights(file: Path, name: str, classes: int = len(LABELS), **kwargs: Any) -> Path:
    """A state dict of a seeded torchvision classifier."""
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, num_classes=classes, **kwargs)
    torch.save(fill_zeros(network).state_dict(), file)
    return file


def timm_weights(file: Path, name: str, classes: int = len(LABELS), **kwargs: Any) -> Path:
    """A state dict of a seeded model of timm's."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=classes, **kwargs)
    torch.save(fill_zeros(network).state_dict(), file)
    return file


def hf_network(model_type: str, labels: tuple[str, ...] = LABELS, **config: Any) -> Any:
    """A seeded classifier of transformers', in eval mode."""
    torch.manual_seed(0)
    names = {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }
    content = {**HF_MODELS[model_type][2], **names, **config}
    content["architectures"] = content.get("architectures") or []
    hf_config = transformers.CONFIG_MAPPING[model_type](**content)
    return fill_zeros(transformers.AutoModelForImageClassification.from_config(hf_config))


def hf_folder(
    folder: Path, model_type: str, labels: tuple[str, ...] = LABELS, **config: Any
) -> Path:
    """A folder with a seeded classifier of transformers', its configuration and processor."""
    transformers.utils.logging.disable_progress_bar()
    kind, processor, _ = HF_MODELS[model_type]
    hf_network(model_type, labels, **config).save_pretrained(folder)
    getattr(transformers, f"{kind}ImageProcessor")(**processor).save_pretrained(folder)
    return folder
