"""What networks return -> logits (N, C): found in any form, brought there from probabilities."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.models import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from camserve.errors import SettingsError
from camserve.networks.outputs import ScoreReader, describe_output
from tests.support.task_network import Plain, ScoresAndFeatures

LOGITS = torch.tensor([[3.0, 3.0, -4.0], [1.0, 0.0, 2.0]])
FEATURES = torch.zeros(2, 7)
GRID = torch.zeros(2, 3, 4, 4)


class HfOutput(dict[str, Any]):
    """As transformers' ModelOutput: a mapping whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def first(returned: Any) -> Any:
    """What a network that returns this for two photos returns for the first."""
    if isinstance(returned, Tensor):
        return returned[:1] if returned.ndim else returned
    if isinstance(returned, HfOutput | dict):
        return type(returned)({key: first(value) for key, value in returned.items()})
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return type(returned)(*map(first, returned))
    if isinstance(returned, list | tuple):
        return type(returned)(map(first, returned))
    if isinstance(returned, Plain):
        return Plain(first(returned.scores))
    if isinstance(returned, ScoresAndFeatures):
        return ScoresAndFeatures(first(returned.features), first(returned.scores))
    return returned


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param(LOGITS, id="tensor"),
        pytest.param(LOGITS.half(), id="float16"),
        pytest.param(LOGITS[:, :, None, None], id="four-axes"),
        pytest.param((LOGITS, FEATURES), id="tuple"),
        pytest.param((FEATURES, LOGITS), id="tuple-features-first"),
        pytest.param((LOGITS, None, torch.tensor(0.5)), id="tuple-with-a-loss"),
        pytest.param([LOGITS], id="list"),
        pytest.param((LOGITS[:, :, None, None], GRID), id="tuple-of-grids"),
        pytest.param({"logits": LOGITS}, id="logits"),
        pytest.param({"logits": LOGITS, "probabilities": LOGITS.softmax(1)}, id="logits-of-two"),
        pytest.param({"out": LOGITS, "aux": None}, id="out"),
        pytest.param({0: LOGITS}, id="numbered-key"),
        pytest.param({"a b": {("x",): LOGITS}}, id="keys-that-are-no-names"),
        pytest.param(HfOutput(loss=None, logits=LOGITS), id="hf"),
        pytest.param(
            HfOutput(logits=LOGITS, hidden_states=(GRID, GRID), attentions=(GRID,)),
            id="hf-hidden-states",
        ),
        pytest.param(
            HfOutput(logits=LOGITS, cls_logits=LOGITS, distillation_logits=LOGITS), id="hf-teacher"
        ),
        pytest.param(GoogLeNetOutputs(LOGITS, LOGITS, LOGITS), id="googlenet"),
        pytest.param(GoogLeNetOutputs(LOGITS, None, None), id="googlenet-no-aux"),
        pytest.param(InceptionOutputs(LOGITS, LOGITS), id="inception"),
        pytest.param(ScoresAndFeatures(FEATURES, LOGITS), id="dataclass"),
        pytest.param(Plain(LOGITS), id="object"),
        pytest.param(({"out": {"logits": LOGITS, "x": LOGITS}}, [FEATURES]), id="nested"),
        pytest.param({"logits": LOGITS, "aux": {"logits": LOGITS + 1}}, id="outermost-logits"),
    ],
)
def test_scores_are_found_in_what_networks_return(returned: Any) -> None:
    reader = ScoreReader.find("multiclass", "logits", 3, first(returned))
    assert torch.equal(reader.logits(reader.scores(returned)).float(), LOGITS)


@pytest.mark.parametrize(
    "returned",
    [LOGITS[:, 0], LOGITS[:, :1], LOGITS[:, :1, None, None], (LOGITS[:, 0], FEATURES)],
    ids=["one-axis", "two-axes", "four-axes", "tuple"],
)
def test_a_binary_score_is_that_of_the_second_class(returned: Any) -> None:
    reader = ScoreReader.find("binary", "logits", 2, first(returned))
    assert torch.equal(reader.logits(reader.scores(returned)), Tensor([[-3, 3], [-1, 1]]))


@pytest.mark.parametrize(
    ("returned", "described", "line"),
    [
        (None, "NoneType", "...  # (N, 3), made of output"),
        (torch.zeros(1, 3, 4, 4), r"tensor \(1, 3, 4, 4\)", "...  # (N, 3), made of output"),
        (torch.zeros(1, dtype=torch.int64), r"int64 tensor \(1,\)", "...  # (N, 3), made of"),
        (LOGITS[0], r"float32 tensor \(3,\)", "output.reshape(-1, 3)"),
        (LOGITS[:1, None], r"float32 tensor \(1, 1, 3\)", "output.reshape(-1, 3)"),
        (LOGITS[:1].T, r"float32 tensor \(3, 1\)", "output.T"),
        ({"x": LOGITS[:1].T, "y": FEATURES}, "x: float32 tensor", "output['x'].T"),
        ((LOGITS[:1], LOGITS[:1]), "tuple of 2", "output[0]"),
        ([FEATURES[:1], LOGITS[:1], LOGITS[:1]], "list of 3", "output[1]"),
        (
            {"x": LOGITS[:1], "y": LOGITS[:1]},
            r"dict of 2 \(x: float32 tensor", "output['x']",
        ),
        ({1: {"a": LOGITS[:1], "b": LOGITS[:1]}}, "1: dict of 2", "output[1]['a']"),
        (
            ScoresAndFeatures(LOGITS[:1], LOGITS[:1]),
            "features: float32", "output.features",
        ),
        (
            GoogLeNetOutputs(None, LOGITS[:1], LOGITS[:1]),
            "aux_logits2: float32", "output.aux_logits2",
        ),
        (
            [Plain(LOGITS[0])],
            r"Plain of 1 \(scores", "output[0].scores.reshape(-1, 3)",
        ),
    ],
)  # fmt: skip
def test_others_are_refused_with_their_shapes_and_the_line_that_picks_the_scores(
    returned: Any, described: str, line: str
) -> None:
    with pytest.raises(SettingsError, match=described) as error:
        ScoreReader.find("multiclass", "logits", 3, returned)
    assert f"            return {line}" in str(error.value)


class Returns(nn.Module):
    """A network that returns the same whatever it is shown, and has a parameter."""

    def __init__(self, returned: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 1)
        self.returned = returned

    def forward(self, photos: Tensor) -> Any:
        return self.returned


@pytest.mark.parametrize(
    "returned",
    [
        (LOGITS[:1], LOGITS[:1]),
        {"x": LOGITS[:1], "y": LOGITS[:1]},
        [{"a b": Plain(LOGITS[0])}],
        GoogLeNetOutputs(None, LOGITS[:1], LOGITS[:1]),
        LOGITS[0],
    ],
    ids=["tuple", "dict", "nested", "named-tuple", "one-axis"],
)
def test_the_lines_of_the_message_make_a_network_of_the_same_weights(returned: Any) -> None:
    with pytest.raises(SettingsError) as error:
        ScoreReader.find("multiclass", "logits", 3, returned)
    names: dict[str, Any] = {"build": lambda: Returns(returned)}
    exec(textwrap.dedent(str(error.value).partition("\n")[2]), names)  # noqa: S102
    network = names["build_scores"]()
    assert network.state_dict().keys() == {"fc.weight", "fc.bias"}
    assert torch.equal(network(LOGITS), LOGITS[:1])


def test_the_lines_turn_scores_whose_photos_are_columns() -> None:
    with pytest.raises(SettingsError) as error:
        ScoreReader.find("multiclass", "logits", 3, LOGITS[:1].T)
    names: dict[str, Any] = {"build": lambda: Returns(LOGITS.T)}
    exec(textwrap.dedent(str(error.value).partition("\n")[2]), names)  # noqa: S102
    assert torch.equal(names["build_scores"]()(LOGITS), LOGITS)


def test_an_object_that_holds_itself_is_refused() -> None:
    returned: dict[str, Any] = {"x": torch.zeros(3)}
    returned["self"] = returned
    with pytest.raises(SettingsError, match="dict of 2"):
        ScoreReader.find("multiclass", "logits", 3, returned)


def test_the_description_of_an_output_is_short() -> None:
    assert describe_output(dict.fromkeys(range(9), LOGITS)).count("tensor") == 5


# From probabilities and their logarithms


PROBABILITIES = [0.0, 1e-30, 1e-6, 0.3, 0.5, 0.9, 1 - 2**-20, 1 - 2**-24, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("task", ["multilabel", "binary"])
@pytest.mark.parametrize("output", ["probabilities", "log_probabilities"])
def test_a_sigmoid_of_the_logits_is_the_networks_probability(
    task: Any, output: Any, dtype: torch.dtype
) -> None:
    expected = torch.tensor(PROBABILITIES, dtype=torch.float64).view(-1, 1).to(dtype)
    given = expected.log() if output == "log_probabilities" else expected
    reader = ScoreReader.find(task, output, 1, given[4:5])
    # A logarithm in float16 has rounded the probability.
    tolerance = 1e-3 if dtype == torch.float16 and output == "log_probabilities" else 1e-6
    logits = reader.logits(given.clamp_min(-1e4) if given.min() < -1e4 else given)
    assert bool(logits.isfinite().all())
    found = logits.float().sigmoid()[:, -1:]
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("output", ["probabilities", "log_probabilities"])
def test_a_softmax_of_the_logits_is_the_networks_probability(output: Any) -> None:
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [1e-30, 1 - 1e-6, 1e-6]])
    given = expected.clamp_min(1e-38).log() if output == "log_probabilities" else expected
    logits = ScoreReader("multiclass", output).logits(given)
    assert bool(logits.isfinite().all())
    torch.testing.assert_close(logits.float().softmax(1), expected, rtol=0, atol=1e-6)


def gradient(
    end: Callable[[Tensor], Tensor], task: Any, output: Any, score: float
) -> tuple[Tensor, Tensor]:
    """The logits (1, C) of scores that end so, and the gradient of the first with respect to them.

    The other two scores are 0; a binary network has one alone, whose second logit is taken.
    """
    scores = torch.tensor([[float(score)]] if task == "binary" else [[score, 0.0, 0.0]])
    scores.requires_grad_()
    logits = ScoreReader.find(task, output, 3, end(scores)).logits(end(scores))
    (found,) = torch.autograd.grad(logits[0, -1 if task == "binary" else 0], scores)
    return logits.detach(), found[0]


@pytest.mark.parametrize("task", ["multilabel", "binary"])
@pytest.mark.parametrize(
    ("end", "output", "score"),
    [
        *((torch.sigmoid, "probabilities", score) for score in (-80.0, -20, -3, 0, 3, 10, 15)),
        *((F.logsigmoid, "log_probabilities", score) for score in (-80.0, -3, 0, 3, 15, 25, 80)),
    ],
)
def test_the_gradient_behind_a_sigmoid_is_that_of_the_score(
    end: Callable[[Tensor], Tensor], output: Any, score: float, task: Any
) -> None:
    logits, found = gradient(end, task, output, score)
    rounding = (
        2**-23 / (1 - torch.tensor(score).double().sigmoid().item()) if end is torch.sigmoid else 0
    )
    assert math.isclose(
        float(logits[0, -1 if task == "binary" else 0]), score, abs_tol=1e-4 + rounding
    )
    expected = torch.zeros_like(found)
    expected[0] = 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("end", "output"),
    [(torch.sigmoid, "probabilities"), (F.logsigmoid, "log_probabilities")],
)
@pytest.mark.parametrize("score", [-1e4, -120.0, 17.0, 120.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gradient_is_finite_and_not_reversed_where_the_probability_is_0_or_1(
    end: Callable[[Tensor], Tensor], output: Any, score: float, dtype: torch.dtype
) -> None:
    logits, found = gradient(lambda scores: end(scores.to(dtype)), "multilabel", output, score)
    assert bool(logits.isfinite().all())
    assert bool(found.isfinite().all())
    assert float(found[0]) >= 0
    assert math.copysign(1, float(logits[0, 0])) == math.copysign(1, score)


@pytest.mark.parametrize("score", [-60.0, -3, 0, 3, 10])
@pytest.mark.parametrize(
    ("end", "output"),
    [
        (lambda scores: scores.softmax(1), "probabilities"),
        (lambda scores: scores.log_softmax(1), "log_probabilities"),
    ],
    ids=["softmax", "log_softmax"],
)
def test_the_gradient_behind_a_softmax_is_that_of_the_logarithm(
    end: Callable[[Tensor], Tensor], output: Any, score: float
) -> None:
    logits, found = gradient(end, "multiclass", output, score)
    p = torch.tensor([score, 0.0, 0.0]).softmax(0)
    torch.testing.assert_close(logits.float().softmax(1)[0], p, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, torch.tensor([1.0, 0, 0]) - p, rtol=0, atol=1e-5)
