"""``--from-hf``: folders as save_pretrained writes them, and what can be wrong with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from camserve.networks import build
from camserve.settings import Settings
from camserve_cli.errors import CommandError
from camserve_cli.packaging.check_photos import check_photos
from camserve_cli.packaging.errors import PackageError
from camserve_cli.packaging.find_weights import folder_weights
from camserve_cli.packaging.preset_notes import check_preset
from tests.support.model_files import hf_folder

LABELS = ("cat", "dog", "bird")
CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1],
        id2label=dict(enumerate(LABELS)), label2id={name: n for n, name in enumerate(LABELS)},
    )  # fmt: skip
    return transformers.ResNetForImageClassification(config).eval()


@pytest.fixture(scope="module")
def saved(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    transformers.utils.logging.disable_progress_bar()
    network.save_pretrained(folder)
    size = {"shortest_edge": 64}
    transformers.ConvNextImageProcessor(size=size).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to change."""
    return Path(shutil.copytree(saved, tmp_path / "folder"))


def change(file: Path, **keys: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | keys
    kept = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(kept))


def test_a_folder_is_a_configuration_weights_labels_and_a_preset(folder: Path) -> None:
    source = folder_weights(folder)
    assert source.section["arch"] == "hf:resnet"
    assert source.section["requires"] == {"transformers": transformers.__version__}
    assert source.categories == LABELS
    assert source.preprocess is not None
    assert source.preprocess["crop"] == 64
    # The labels are the archive's own, and where the folder was is nobody's business.
    assert not {"id2label", "label2id", "_name_or_path"} & source.section["arch_kwargs"].keys()
    json.dumps(source.section)


def to_bin(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def to_parts(folder: Path) -> None:
    network = transformers.AutoModelForImageClassification.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    network.save_pretrained(folder, max_shard_size=5000)
    assert (folder / f"{WEIGHTS}.index.json").is_file()


def with_code_of_its_own(folder: Path) -> None:
    change(folder / CONFIG, auto_map={"AutoModelForImageClassification": "evil.Net"})
    (folder / "evil.py").write_text("raise SystemExit('code of the folder ran')")


@pytest.mark.parametrize(
    "rewrite", [lambda folder: None, to_bin, to_parts, with_code_of_its_own],
    ids=["safetensors", "bin", "parts", "code"],
)  # fmt: skip
def test_the_archive_scores_as_the_network_that_was_saved(
    rewrite: Callable[[Path], None], folder: Path, network: Any
) -> None:
    rewrite(folder)
    source = folder_weights(folder)
    shutil.rmtree(folder)
    built = build(source.section["arch"], source.section["arch_kwargs"], len(LABELS)).eval()
    built.load_state_dict(source.checkpoint.largest.tensors)
    photo = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(built(photo).logits, network(photo).logits)


def test_the_publisher_is_the_folders_own_network_and_image_processor(
    folder: Path, network: Any
) -> None:
    source = folder_weights(folder)
    assert source.publisher is not None
    publisher = source.publisher(nn.Identity())
    photos = check_photos()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        expected = [network(**processor(one, return_tensors="pt")).logits for one in photos]
    assert_close(publisher.scores(photos, Settings(), len(LABELS)), torch.cat(expected))


def test_multilabel_classifiers_have_that_task(folder: Path) -> None:
    change(folder / CONFIG, problem_type="multi_label_classification")
    assert folder_weights(folder).section["task"] == "multilabel"


def without_head(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    kept = {name: value for name, value in state.items() if not name.startswith("classifier")}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a pickle ran",)


def harmful(folder: Path) -> None:
    torch.save({"a": _Harm()}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / CONFIG).unlink(), "config.json: No such file.*accepted: a local folder"),
        (lambda f: (f / CONFIG).write_text("{"), "config.json is no JSON"),
        (lambda f: (f / CONFIG).write_text("[]"), "config.json holds no JSON object; accepted: "),
        (
            lambda f: change(f / CONFIG, quantization_config={"quant_method": "bitsandbytes"}),
            "the network is quantised .quantization_config, bitsandbytes.; accepted: the folder of",
        ),
        (
            lambda f: (f / PROCESSOR).write_text('{"size": 64,}'),
            "preprocessor_config.json is no JSON: .*double quotes.*; accepted: what the network",
        ),
        (
            lambda f: change(f / CONFIG, id2label={"0": "cat", "1": "\ud800", "2": "bird"}),
            r"id2label has '\\ud800', a half of a character .*; accepted: ",
        ),
        (lambda f: change(f / CONFIG, model_type=None), "names no model_type"),
        (lambda f: change(f / CONFIG, model_type="bert"), "no image classifier of the type 'bert'"),
        (
            lambda f: change(f / CONFIG, model_type="new", auto_map={"AutoConfig": "evil.C"}),
            "no models of the type 'new'.*code of its own .auto_map., which is never run",
        ),
        (lambda f: change(f / CONFIG, problem_type="regression"), "regression, which has no cl"),
        (
            lambda f: change(f / CONFIG, id2label={"1": "a", "2": "b", "3": "c"}),
            "id2label is not numbered from 0 on",
        ),
        (
            lambda f: change(f / CONFIG, id2label={f"LABEL_{n}": "a" for n in range(3)}),
            "id2label is not numbered from 0 on",
        ),
        (
            lambda f: change(f / CONFIG, layer_type="odd"),
            "is no configuration of transformers' for resnet: .*layer_type=odd",
        ),
        (
            lambda f: change(f / CONFIG, num_channels=1),
            r"with 3 labels: .*weight is \(8, 3, 7, 7\) instead of \(8, 1, 7, 7\)",
        ),
        (lambda f: (f / WEIGHTS).unlink(), "has no weights; accepted: model.safetensors"),
        (without_head, "classifier.1.bias, classifier.1.weight would stay untrained"),
        (
            lambda f: change(f / CONFIG, id2label={str(n): str(n) for n in range(4)}),
            "with 4 labels: classifier.1.bias is .3,. instead of .4,.",
        ),
        (harmful, "hold more than a state dict of tensors, and code in them is never run"),
        (
            lambda f: (f / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "is a pointer of Git LFS",
        ),
        (lambda f: (f / WEIGHTS).write_bytes(b"<html>"), "cannot load the weights"),
        (
            lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]),
            "cannot load the weights",
        ),
        (lambda f: (f / PROCESSOR).unlink(), "has no preprocessor_config.json.*accepted: what the"),
        (lambda f: change(f / PROCESSOR, resample=0), "resizes with resample 0"),
    ],
)
def test_what_a_folder_lacks_is_said(
    spoil: Callable[[Path], None],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(folder)
    with pytest.raises(CommandError, match=message) as refusal:
        check_preset(folder_weights(folder), [])
    assert "weights_only" not in str(refusal.value)
    assert capsys.readouterr().out == ""


def test_labels_that_a_person_gives_replace_the_folders(folder: Path) -> None:
    change(folder / CONFIG, id2label={"1": "a", "2": "b", "3": "c"})
    assert folder_weights(folder, own_labels=True).categories == ()


@pytest.mark.parametrize("model_type", ["deit", "levit"])
def test_of_several_classifiers_of_a_type_one_needs_no_name(
    model_type: str, tmp_path: Path
) -> None:
    folder = hf_folder(tmp_path, model_type, architectures=None)
    change(folder / CONFIG, architectures=None)
    source = folder_weights(folder)
    built = build(source.section["arch"], source.section["arch_kwargs"], len(source.categories))
    built.load_state_dict(source.checkpoint.largest.tensors)


def test_settings_say_how_photos_are_prepared_where_the_folder_does_not(folder: Path) -> None:
    (folder / PROCESSOR).unlink()
    weights = folder_weights(folder)
    values = {"crop": "64", "resize": "72", "mean": "[0,0,0]", "std": "[1,1,1]"}
    every = [f"handler.preprocess.{key}={value}" for key, value in values.items()]
    check_preset(weights, every)
    check_preset(weights, [every[0], *every[2:], "handler.preprocess.fit=stretch"])
    check_preset(weights, ["handler.preprocess={crop: 64}"])
    for n, key in enumerate(values):
        with pytest.raises(PackageError, match=f"; missing: {key}$"):
            check_preset(weights, every[:n] + every[n + 1 :])


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"auto_map": {"AutoModelForImageClassification": "evil.Net"}}, "which is never run: the "),
        ({"label2id": {"ant": 2, "bee": 1}}, "id2label, which is taken, and label2id differ, in"),
        ({"problem_type": "multi_label_classification"}, "handler.task is multilabel, as "),
    ],
)
def test_what_is_left_out_or_taken_for_granted_is_noted(
    changes: dict[str, Any], note: str, folder: Path
) -> None:
    assert folder_weights(folder).notes == ()
    change(folder / CONFIG, **changes)
    (said,) = folder_weights(folder).notes
    assert note in said
