"""Networks that would be served without an error and explained wrongly are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks import CheckedNetwork, ScoreReader, check_network, run_network
from camserve.settings import OutputKind, Task
from tests.support.small_networks import pictures


class Small(nn.Module):
    """A seeded CNN of three classes; ``end`` changes its scores."""

    def __init__(self, end: Callable[[Tensor], Any] = lambda scores: scores) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU()
        )
        self.fc: nn.Module = nn.Linear(8, 3)
        self.end = end
        self.eval()

    def forward(self, photos: Tensor) -> Any:
        return self.end(self.fc(self.body(photos).mean((2, 3))))


def check(
    network: nn.Module,
    batch_size: int = 8,
    task: Task = "multiclass",
    output: OutputKind = "logits",
    classes: int = 3,
) -> CheckedNetwork:
    photo, other = pictures(64)
    reader = ScoreReader.find(task, output, classes, run_network(network, photo))
    return check_network(network, reader, {"body": "auto"}, photo, other, batch_size)


def cosine(network: Small) -> Small:
    """Replace the scores by values from -1 to 1, however strong the activations are."""
    network.fc = nn.Sequential()
    direction = torch.randn(8, 3)
    network.end = lambda scores: F.normalize(scores) @ F.normalize(direction, dim=0)
    return network


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Small(), id="logits"),
        pytest.param(Small(lambda scores: scores[:, :2]), id="two-classes"),
        pytest.param(Small(F.relu), id="never-negative"),
        pytest.param(Small(lambda scores: -F.relu(scores)), id="never-positive"),
        # As of an untrained network: only strong noise shows that they are logits.
        pytest.param(Small(lambda scores: 0.01 * scores + 0.4), id="between-0-and-1"),
        pytest.param(Small(lambda scores: 1000 * scores), id="large"),
        pytest.param(Small(lambda scores: 0 * scores), id="always-0"),
        pytest.param(Small(lambda scores: (0 * scores).softmax(1)), id="always-a-third"),
        # A root or logarithm of strong noise is NaN.
        pytest.param(Small(lambda scores: 0.1 * (scores + 2).sqrt()), id="a-root"),
        pytest.param(cosine(Small()), id="cosines"),
        pytest.param(Small(lambda scores: scores.double()), id="float64"),
        pytest.param(Small(lambda scores: scores.half()), id="float16"),
        pytest.param(Small(lambda scores: scores[:, :, None, None]), id="four-axes"),
        pytest.param(Small(lambda scores: (scores, scores[:, :2])), id="tuple"),
    ],
)
def test_logits_of_any_size_are_accepted(network: nn.Module) -> None:
    check(network)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        pytest.param(lambda scores: scores.softmax(1), "ends in a softmax", id="softmax"),
        pytest.param(
            lambda scores: scores.exp() / scores.exp().sum(1, keepdim=True),
            "ends in a softmax", id="softmax-by-hand",
        ),
        pytest.param(
            lambda scores: scores.softmax(0), "softmax over the batch", id="softmax-dim-0"
        ),
        pytest.param(torch.sigmoid, "ends in a sigmoid", id="sigmoid"),
        pytest.param(
            lambda scores: 1 / (1 + (-scores).exp()), "ends in a sigmoid", id="sigmoid-by-hand"
        ),
        pytest.param(F.hardsigmoid, "ends in a sigmoid or the like", id="hardsigmoid"),
        pytest.param(lambda scores: scores.clamp(0, 1), "a sigmoid or the like", id="clamp"),
        pytest.param(
            lambda scores: scores.log_softmax(1), "ends in a log-softmax", id="log-softmax"
        ),
        pytest.param(lambda scores: scores[:, :1], "a single class is always 1", id="one-logit"),
        pytest.param(
            lambda scores: F.dropout(scores.repeat(1, 9)), "otherwise when it is asked again",
            id="dropout",
        ),
        pytest.param(
            lambda scores: scores + 0.1 * torch.randn_like(scores),
            "otherwise when it is asked again", id="noise",
        ),
        pytest.param(
            lambda scores: scores - scores.mean(0), "otherwise in a batch: .*batching=alone",
            id="mean-of-the-batch",
        ),
        pytest.param(
            lambda scores: scores - scores.cumsum(0) + scores, "otherwise in a batch", id="one-way"
        ),
        pytest.param(lambda scores: scores * float("nan"), "no finite numbers", id="nan"),
        pytest.param(lambda scores: scores / 0, "no finite numbers", id="infinity"),
        pytest.param(lambda scores: None, "gives: NoneType", id="nothing"),
        pytest.param(lambda scores: scores.argmax(1), r"gives: int64 tensor \(1,\)", id="a-class"),
        pytest.param(
            lambda scores: scores.mean(0), r"\(N, 3\).* gives: float32 tensor \(3,\)", id="no-axis"
        ),
        pytest.param(
            lambda scores: (scores, scores * 2),
            r"gives: tuple of 2 \(float32 tensor \(1, 3\), float32 tensor \(1, 3\)\)", id="tuple",
        ),
        pytest.param(
            lambda scores: {"out": scores, "aux": [scores]},
            r"gives: dict of 2 \(out: float32 tensor \(1, 3\), aux: list of 1", id="dict",
        ),
        pytest.param(lambda scores: scores.no_such, "AttributeError: .*'no_such'", id="raises"),
        pytest.param(lambda scores: sys.exit(0), "SystemExit: 0", id="exits"),
        pytest.param(
            lambda scores: scores.view(1, 3),
            r"batch of shape \(8, 3, 64, 64\).*takes one photo at a time.*handler.batching=alone",
            id="one-photo-at-a-time",
        ),
    ],
)  # fmt: skip
def test_a_network_that_would_be_explained_wrongly_is_refused(
    end: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"(?s){message}"):
        check(Small(end))


def one(end: Callable[[Tensor], Any] = lambda scores: scores) -> Callable[[Tensor], Any]:
    """The end of a network of one score."""
    return lambda scores: end(scores[:, :1])


@pytest.mark.parametrize(
    ("end", "task", "output"),
    [
        (lambda scores: scores.softmax(1), "multiclass", "probabilities"),
        (lambda scores: (100 * scores).softmax(1), "multiclass", "probabilities"),
        (lambda scores: scores.bfloat16().softmax(1), "multiclass", "probabilities"),
        (lambda scores: scores.log_softmax(1), "multiclass", "log_probabilities"),
        (lambda scores: (scores + 10).sigmoid(), "multilabel", "probabilities"),
        (torch.sigmoid, "multilabel", "probabilities"),
        (F.hardsigmoid, "multilabel", "probabilities"),
        (F.logsigmoid, "multilabel", "log_probabilities"),
        (lambda scores: scores, "multilabel", "logits"),
        (one(), "binary", "logits"),
        # The difference of two calls is large beside a score near 0, and changes no probability.
        (one(lambda scores: 1e-6 * scores), "binary", "logits"),
        (one(torch.sigmoid), "binary", "probabilities"),
        (one(lambda scores: (scores + 30).sigmoid()), "binary", "probabilities"),
        (one(lambda scores: (scores - 15).sigmoid()), "binary", "probabilities"),
        (one(F.logsigmoid), "binary", "log_probabilities"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_scores_of_every_task_and_kind_are_accepted(
    end: Callable[[Tensor], Tensor], task: Task, output: OutputKind, batch_size: int
) -> None:
    classes = 2 if task == "binary" else 3
    assert check(Small(end), batch_size, task, output, classes).classes == classes


@pytest.mark.parametrize(
    ("end", "task", "output", "message"),
    [
        (
            lambda scores: scores.softmax(1), "multiclass", "logits",
            "ends in a softmax, .* or handler.output=probabilities",
        ),
        (
            lambda scores: scores.softmax(1), "multilabel", "logits",
            "softmax, .* or handler.task=multiclass with handler.output=probabilities",
        ),
        (
            lambda scores: scores.log_softmax(1), "multilabel", "logits",
            "handler.task=multiclass with handler.output=log_probabilities",
        ),
        (
            F.logsigmoid, "multilabel", "logits",
            "a log-sigmoid.* or handler.output=log_probabilities",
        ),
        (
            F.logsigmoid, "multiclass", "logits",
            "a log-sigmoid.* handler.task=multilabel with handler.output=log_probabilities",
        ),
        (
            lambda scores: 100 * scores.softmax(1), "multiclass", "logits",
            "add up to 100 whatever it is shown: it ends in a softmax, which is scaled",
        ),
        (
            torch.sigmoid, "multiclass", "logits",
            "a sigmoid .* handler.task=multilabel with handler.output=probabilities",
        ),
        (torch.sigmoid, "multilabel", "logits", "a sigmoid .* or handler.output=probabilities"),
        (one(torch.sigmoid), "binary", "logits", "a sigmoid .* or handler.output=probabilities"),
        (lambda scores: scores, "multiclass", "probabilities", "accepted: handler.output=logits"),
        (lambda scores: scores, "multilabel", "probabilities", "values from -.* says probabiliti"),
        # As of an untrained network: only strong noise shows that they are logits.
        (lambda scores: 0.01 * scores + 0.4, "multilabel", "probabilities", "says probabilities"),
        (one(lambda scores: 0.01 * scores + 0.4), "binary", "probabilities", "says probabilities"),
        (one(), "binary", "log_probabilities", "says log_probabilities; accepted: handler.output"),
        (lambda scores: scores - 9, "multilabel", "log_probabilities", "says log_probabilities"),
        (lambda scores: scores - 9, "multiclass", "log_probabilities", "says log_probabilities"),
        (
            lambda scores: scores.softmax(1), "multiclass", "log_probabilities",
            "values from 0.* says log_probabilities; .*, probabilities for",
        ),
        (
            lambda scores: scores.log_softmax(1), "multiclass", "probabilities",
            "says probabilities; .* log_probabilities for",
        ),
        (torch.sigmoid, "multiclass", "probabilities", "not add up to 1 .*handler.task=multilabel"),
        (
            lambda scores: -F.relu(scores), "multiclass", "log_probabilities",
            "do not add up to 1 .*handler.output=logits",
        ),
        (
            lambda scores: scores.softmax(1), "multilabel", "probabilities",
            "ends in a softmax, and handler.task says multilabel; accepted: handler.task=multiclas",
        ),
        (
            lambda scores: scores.log_softmax(1), "multilabel", "log_probabilities",
            "ends in a softmax, and handler.task says multilabel",
        ),
        (lambda scores: scores, "binary", "logits", "this one gives 3 .*handler.task=multiclass"),
        (lambda scores: scores[:, :2], "binary", "logits", "this one gives 2 .* multilabel where"),
        (one(), "multiclass", "logits", "gives 1 score .*handler.task=binary"),
        (lambda scores: scores[:, 0], "multiclass", "logits", "gives 1 score .*task=binary"),
        (one(lambda scores: scores.softmax(0)), "binary", "probabilities", "over the batch"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch_size", [1, 8])
def test_scores_that_are_not_what_the_settings_say_are_refused(
    end: Callable[[Tensor], Tensor],
    task: Task,
    output: OutputKind,
    message: str,
    batch_size: int,
) -> None:
    with pytest.raises(SettingsError, match=message):
        check(Small(end), batch_size, task, output, 2 if task == "binary" else 3)


def test_batch_statistics_are_refused() -> None:
    network = Small()
    network.body[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()
    with pytest.raises(SettingsError, match=r"otherwise in a batch: .* running statistics"):
        check(network)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda scores: scores - scores.mean(0) + scores[:1], id="mixes"),
        pytest.param(lambda scores: scores.view(1, 3), id="one-photo-at-a-time"),
    ],
)
def test_a_network_that_fails_in_batches_is_accepted_with_batch_size_1(
    end: Callable[[Tensor], Tensor],
) -> None:
    check(Small(end), batch_size=1)


def test_a_softmax_over_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="softmax over the batch"):
        check(Small(lambda scores: scores.softmax(0)), batch_size=1)


class OneChannel(Small):
    def __init__(self) -> None:
        super().__init__()
        self.body[0] = nn.Conv2d(1, 8, 3, 2)


class TwoInputs(Small):
    def forward(self, photos: Tensor, more: Tensor) -> Any:  # type: ignore[override]
        return super().forward(photos + more)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (OneChannel(), r"shape \(1, 3, 64, 64\): RuntimeError: .*1 channels.*but got 3"),
        (TwoInputs(), r"TypeError: .*missing 1 required positional argument: 'more'"),
    ],
)
def test_a_network_with_another_input_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check(network)


class Twins(Small):
    """It runs the body on each photo and its mirror image, as test-time augmentation does."""

    def forward(self, photos: Tensor) -> Any:
        both = self.body(torch.cat([photos, photos.flip(3)])).mean((2, 3))
        return self.fc(both[: len(photos)] + both[len(photos) :])


def test_a_layer_with_more_rows_than_photos_is_refused() -> None:
    with pytest.raises(SettingsError, match="'body' gives 16 rows for 8 photos"):
        check(Twins())


def test_the_message_names_the_line_where_a_forward_fails() -> None:
    with pytest.raises(SettingsError, match=r"\(test_checks\.py, line \d+\)"):
        check(Small(lambda scores: getattr(scores, "no_such")))  # noqa: B009


@pytest.mark.parametrize("inplace", ["input", "activations"])
def test_a_network_that_changes_values_in_place_is_accepted(inplace: str) -> None:
    network = Small()
    if inplace == "input":
        network.body = nn.Sequential(nn.ReLU(inplace=True), *network.body)
    else:
        network.body[2] = nn.ReLU(inplace=True)
    check(network)


def test_no_hook_is_left() -> None:
    network = Small(torch.sigmoid)
    with pytest.raises(SettingsError, match="sigmoid"):
        check(network)
    assert sum(len(module._forward_hooks) for module in network.modules()) == 0
