"""What is said of weights that do not fit their network: the likeliest cause alone."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from camserve.settings import Task
from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import WeightsError
from camserve_cli.packaging.weights_fit import fit_weights

State = dict[str, Tensor]


def resnet(classes: int = 1000, name: str = "resnet18") -> State:
    with torch.device("meta"):
        state = models.get_model(name, num_classes=classes).state_dict()
    return {name: torch.zeros(value.shape) for name, value in state.items()}


BODY = {name: value for name, value in resnet().items() if not name.startswith("fc.")}


def described(
    state: State,
    arch: str = "resnet18",
    labels: int = 1000,
    given: bool = False,
    task: Task = "multiclass",
) -> str:
    with torch.device("meta"):
        network = models.get_model(arch, num_classes=1 if task == "binary" else labels)
    with pytest.raises(WeightsError) as error:
        fit_weights(network, Checkpoint.of(state, "pets.pth"), arch, labels, given, task)
    said = str(error.value)
    assert len(said) < 800
    return said


@pytest.mark.parametrize(
    ("state", "labels", "given", "message"),
    [
        (resnet(3), 1000, False, r"have 3 classes, the labels 1000 \(ImageNet's\): give --labels"),
        (resnet(3), 5, True, "have 3 classes, the labels 5: give --labels FILE with 3 names"),
        (
            {f"module.{name}": value for name, value in resnet(3).items()},
            1000,
            False,
            "have 3 classes, the labels 1000",
        ),
        (
            {**BODY, "fc.1.weight": torch.ones(3, 512), "fc.1.bias": torch.ones(3)},
            3,
            True,
            "the head was replaced: fc.1.weight, fc.1.bias instead of fc.weight, fc.bias",
        ),
        (
            {**BODY, "last.weight": torch.ones(3, 512), "last.bias": torch.ones(3)},
            3,
            True,
            "replaced or renamed: last.weight, last.bias instead of fc.weight",
        ),
        (BODY, 3, True, r"no head \(fc.weight, fc.bias\)"),
        (resnet(3, "resnet34"), 3, True, "torchvision's resnet34; accepted: --arch resnet34"),
        (
            {f"model.{name}": value for name, value in resnet(7, "mobilenet_v2").items()},
            3,
            True,
            "torchvision's mobilenet_v2; accepted: --arch mobilenet_v2",
        ),
        ({"a.weight": torch.ones(2)}, 3, True, "0 of the network's 102 tensors"),
        (
            {**BODY, "fc.parametrizations.weight.original0": torch.ones(3)},
            3,
            True,
            "remove_parametrizations",
        ),
        ({**BODY, "fc.weight_g": torch.ones(3)}, 3, True, "remove_weight_norm"),
        ({**BODY, "fc.weight_orig": torch.ones(3)}, 3, True, "remove_spectral_norm"),
        (
            {**resnet(3), "fc.lora_A.weight": torch.ones(3)},
            3,
            True,
            "an adapter .*merge_and_unload",
        ),
        ({**resnet(3), "fc.weight_fake_quant.scale": torch.ones(3)}, 3, True, "quantised network"),
    ],
)
def test_the_cause_is_said_and_what_is_accepted(
    state: State, labels: int, given: bool, message: str
) -> None:
    assert re.search(message, described(state, labels=labels, given=given))


def test_counts_of_training_are_no_tensors_that_fit() -> None:
    counts = {name: value for name, value in resnet().items() if "num_batches" in name}
    said = described({**counts, "other.weight": torch.ones(3)})
    assert "(0 of the network's 102 tensors are there)" in said


@pytest.mark.parametrize(
    ("classes", "labels", "task", "message"),
    [
        (1, 2, "multiclass", "have a single score.*accepted: --set handler.task=binary, and"),
        (1, 1000, "multiclass", "have a single score.*--labels FILE with two names"),
        (1, 3, "multilabel", "have a single score.*accepted: --set handler.task=binary"),
        (2, 2, "binary", "for each of 2 classes, .*binary has one score; .*FILE with 2 names"),
        (5, 2, "binary", "multiclass or multilabel, and --labels FILE with 5 names"),
        (5, 3, "multilabel", "have 5 classes, the labels 3: give --labels FILE with 5 names"),
    ],
)
def test_the_number_of_scores_is_that_of_the_task(
    classes: int, labels: int, task: Task, message: str
) -> None:
    assert re.search(message, described(resnet(classes), labels=labels, given=True, task=task))


@pytest.mark.parametrize(
    ("arch", "path", "head"),
    [
        ("resnet18", "fc", nn.Sequential(nn.Dropout(), nn.Linear(512, 3))),
        ("resnet18", "fc", nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 3))),
        ("mobilenet_v2", "classifier.1", nn.Sequential(nn.Linear(1280, 3, bias=False))),
    ],
)
def test_the_lines_build_the_network_with_its_head(arch: str, path: str, head: nn.Module) -> None:
    state = {n: v for n, v in resnet(3, arch).items() if not n.startswith(f"{path}.")}
    trained = {f"{path}.{name}": torch.zeros(v.shape) for name, v in head.state_dict().items()}
    said = described({**state, **trained}, arch, labels=3, given=True)
    lines = [line[4:] for line in said.splitlines()[1:]]
    scope: dict[str, object] = {}
    with torch.device("meta"):
        # The person fills in the layers that have no weights.
        code = "\n".join(lines).replace("..., ", "nn.ReLU(), ") + "\nbuilt = build()"
        exec(code, scope)  # noqa: S102
    built = scope["built"]
    assert isinstance(built, nn.Module)
    assert {*built.state_dict()} == {*state, *trained}
