"""Names and folders that stand for no model here, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.model_names import check_arch_name, check_folder, check_no_hub_name

DOWNLOAD = r"hf download google/vit-base-patch16-224 --local-dir vit-base-patch16-224; then"


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("google/vit-base-patch16-224", DOWNLOAD),
        ("hf:google/vit-base-patch16-224", DOWNLOAD),
        ("https://huggingface.co/google/vit-base-patch16-224/", DOWNLOAD),
        ("hf.co/google/vit-base-patch16-224", DOWNLOAD),
        ("timm:hf_hub:timm/resnet18.a1_in1k", "or --arch timm:resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18.a1_in1k", "or --arch timm:resnet18.a1_in1k"),
    ],
)
def test_an_architecture_of_the_hub_is_downloaded_first(arch: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        check_no_hub_name(arch)


@pytest.mark.parametrize(
    "arch", ["resnet50", "nets:Net", "nets/net.py:build", "nets/net.py", "timm:resnet18.a1_in1k"]
)
def test_other_architectures_are_no_names_of_the_hub(arch: str) -> None:
    check_no_hub_name(arch)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("timm:", "has no model of that name; accepted: timm:NAME with a name of timm.list_models"),
        ("timm:no_such", "has no model of that name"),
        ("timm:ResNet18", "the nearest: resnet18,"),
        ("timm:vit_tiny_patch16_225", "the nearest: vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", "but timm has; accepted: --arch timm:vit_tiny_patch16_224"),
        ("convnext_tiny.fb_in1k", "accepted: --arch timm:convnext_tiny.fb_in1k"),
        ("hf:", "accepted: --from-hf FOLDER"),
        ("hf:vit", "accepted: --from-hf FOLDER"),
    ],
)
def test_names_of_timm_and_transformers_are_said_to_be_given_otherwise(
    arch: str, message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        check_arch_name(arch, {})


@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        ("resnet18", {}),
        ("fcn_resnet50", {}),
        ("no_such_network", {}),
        ("timm:resnet18", {}),
        ("timm:create_model", {"model_name": "resnet18"}),
        ("timm.models.resnet:resnet18", {}),
        ("hf:vit", {"model_type": "vit"}),
        ("hf.nets:build", {}),
    ],
)
def test_other_names_are_left_to_what_builds_them(arch: str, kwargs: dict[str, Any]) -> None:
    check_arch_name(arch, kwargs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("google/vit-base-patch16-224", DOWNLOAD),
        ("https://huggingface.co/google/vit-base-patch16-224", DOWNLOAD),
        ("no_such", "there is no such folder; accepted: a local folder"),
        ("w.pth", "is a file; accepted: the folder"),
    ],
)
def test_what_is_no_folder_is_said(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pth").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackageError, match=message):
        check_folder(Path(name))
