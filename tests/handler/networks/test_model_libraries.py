"""Networks of timm and transformers, and the packages that an archive requires."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from camserve.errors import SettingsError
from camserve.networks import build, check_requirements, is_hf_model, is_timm_model
from camserve.pipeline import Pipeline
from camserve.protocols import ModelBody

TINY_HF: dict[str, Any] = {
    "model_type": "resnet",
    "architectures": ["ResNetForImageClassification"],
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    # As trained; a network is built in float32 nevertheless.
    "dtype": "float16",
}


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
def test_a_model_of_timm_has_the_classes_that_there_are_labels_for(name: str) -> None:
    assert is_timm_model(f"timm:{name}")
    network = build(f"timm:{name}", {"block_args": {}}, 3).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_name_that_timm_does_not_list_is_an_import_path() -> None:
    network = build("timm:create_model", {"model_name": "resnet18", "num_classes": 5}, 3)
    assert network.get_parameter("fc.weight").shape[0] == 5


def test_a_configuration_of_transformers_is_built_in_float32_with_the_labels_classes() -> None:
    assert is_hf_model("hf:resnet", TINY_HF)
    network = build("hf:resnet", TINY_HF, 4).eval()
    logits = network(torch.zeros(1, 3, 64, 64)).logits
    assert (logits.shape, logits.dtype) == ((1, 4), torch.float32)


@pytest.mark.parametrize(
    ("arch", "kwargs", "message"),
    [
        ("timm:resnet5", {}, "module 'timm' has no attribute 'resnet5'"),
        ("timm:resnet18.no_tag", {}, "Invalid pretrained tag"),
        ("hf:resnett", {"model_type": "resnett"}, "no models of the type 'resnett'.*resnet"),
        ("hf:build", {}, "No module named 'hf'"),
        ("hf:bert", {"model_type": "bert"}, "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_said(arch: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(arch, kwargs, 2)


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        (
            {"no-such-package": "1.2"},
            "packed with no-such-package 1.2, and no-such-package is not installed here; "
            "accepted: pip install no-such-package==1.2",
        ),
        (
            {"timm": "0.9.16"},
            f"packed with timm 0.9.16, and timm {version('timm')} is installed here; accepted: "
            "version 0.x (pip install camserve[timm] timm==0.9.16)",
        ),
        (
            {"transformers": "4.40.0"},
            "accepted: version 4.x (pip install camserve[hf] transformers==4.40.0)",
        ),
    ],
)
def test_a_missing_package_or_another_major_version_is_refused(
    requires: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        check_requirements(requires)


def test_another_minor_version_is_accepted() -> None:
    check_requirements({"timm": f"{version('timm').partition('.')[0]}.0.0"})


def test_an_archive_that_requires_a_missing_package_does_not_load(
    make_archive: Callable[..., tuple[dict[str, Any], Path]],
) -> None:
    config, directory = make_archive(requires={"no-such-package": "1.2"})
    model = ModelBody(name="n", version="1.0")
    with pytest.raises(SettingsError, match="no-such-package is not installed here"):
        Pipeline.load(config, directory, model, torch.device("cpu"))
