"""The option ``explain_when``."""

from __future__ import annotations

import re

import pytest
import torch

from camserve.errors import RequestError
from camserve.explain import DecisionRule, Verdict, parse_condition
from camserve.networks import Labels

LABELS = Labels(("cat", "dog", "tiger cat", "dog", 'say "and"'))
SURE = Verdict(0.9, 0.85, 0)
UNSURE = Verdict(0.4, 0.05, 2)


@pytest.mark.parametrize(
    ("text", "sure", "unsure"),
    [
        ("probability<0.8", False, True),
        ("probability < .8", False, True),
        ("probability>=0.9", True, False),
        ("probability>0.9", False, False),
        ("probability<=0.4", False, True),
        ("margin<0.1", False, True),
        ("margin > 0.1", True, False),
        ("class in [0, 1]", True, False),
        ("class in[2]", False, True),
        ('class in ["tiger cat", 0]', True, True),
        ("class in []", False, False),
        ("class not in [0]", False, True),
        ('class in ["say \\"and\\""]', False, False),
        ("probability<0.8 and class in [0]", False, False),
        ("probability<0.8 or class in [0]", True, True),
        # "and" binds more tightly.
        ("class in [0] or class in [2] and margin>0.5", True, False),
        ("margin>0.5 and class in [2] or class in [0]", True, False),
        ("  probability<1\tand\nmargin<1  ", True, True),
    ],
)
def test_a_condition_holds(text: str, sure: bool, unsure: bool) -> None:
    condition = parse_condition(text, LABELS)
    assert condition.holds(SURE) is sure
    assert condition.holds(UNSURE) is unsure
    assert condition.text == text


def test_the_values_are_those_of_the_comparisons_in_their_order() -> None:
    condition = parse_condition("margin<0.1 or probability<0.2 and class in [1]", LABELS)
    assert condition.values(SURE) == [0.85, 0.9, 0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "probability",
        "probability=0.8",
        "probability==0.8",
        "probability<",
        "probability<-1",
        "probability<80",
        "probability<0.8.1",
        "probability<nan",
        "Probability<0.8",
        "score<3",
        "0.8>probability",
        "probability<0.8 and",
        "and probability<0.8",
        "probability<0.8 margin<0.1",
        "probability<0.8 xor margin<0.1",
        "probability<0.8andmargin<0.1",
        "(probability<0.8)",
        "not probability<0.8",
        "class in 281",
        "class in [1",
        "class in {}",
        "class in [1.0]",
        "class in [true]",
        "class in [[1]]",
        "class in " + "[" * 5000,
        " and ".join(["margin<0.1"] * 33),
        "probability<0.8; import os",
    ],
)
def test_another_text_is_refused_and_what_is_accepted_is_named(text: str) -> None:
    with pytest.raises(RequestError, match=r"accepted: comparisons as 'probability<0.8'") as caught:
        parse_condition(text, LABELS)
    assert caught.value.code == "invalid_option"
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a comparison is missing"),
        ("probability=0.8", "'probability=0.8' is no comparison"),
        ("margin<0.1 and probability=0.8", "'probability=0.8' is no comparison"),
        ("margin<0.1 or margin<80", "'margin<80': a margin is at most 1"),
        ("margin<0.1 xor margin<0.2", "after a comparison stands 'xor margin<0.2'"),
        ("margin<0.1 and class in [1", "'[1' begins with no JSON list"),
        ("class in [1.5]", "1.5 is no class"),
        (" and ".join(["margin<0.1"] * 33), "it has more than 32 comparisons"),
    ],
)
def test_the_error_says_which_part_is_not_accepted(text: str, problem: str) -> None:
    with pytest.raises(RequestError, match=re.escape(f"is not accepted ({problem}); accepted: ")):
        parse_condition(text, LABELS)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ('"tiger"', "'tiger' is no label; did you mean 'tiger cat'?; accepted"),
        ('"dog"', "'dog' stands for the classes 1, 3; accepted"),
        ('"zzz"', "'zzz' is no label; accepted"),
        ("5", "5 is no class index; accepted"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_class(item: str, problem: str) -> None:
    with pytest.raises(RequestError, match=re.escape(problem)):
        parse_condition(f"margin<0.1 and class in [{item}]", LABELS)


@pytest.mark.parametrize("item", ["5", "-1", '"lion"', '"dog"', '""'])
def test_a_class_that_the_model_does_not_have_is_refused(item: str) -> None:
    with pytest.raises(RequestError, match=r"'explain_when'.*index from 0 to 4") as caught:
        parse_condition(f"class in [{item}]", LABELS)
    assert caught.value.code == "unknown_class"


def verdict(rule: DecisionRule, *logits: float) -> Verdict:
    row = torch.tensor([logits], dtype=torch.float)
    return rule.verdict(rule.probabilities(row)[0], row.argsort(dim=1, descending=True)[0])


def test_the_margin_of_each_task() -> None:
    sigmoid = torch.tensor([2.0, 0.5, -1.0]).sigmoid().tolist()
    softmax = torch.tensor([2.0, 0.5, -1.0]).softmax(0).tolist()
    several = verdict(DecisionRule(), -1, 2, 0.5)
    assert several.class_id == 1
    assert several.probability == pytest.approx(softmax[0])
    assert several.margin == pytest.approx(softmax[0] - softmax[1])
    any_number = verdict(DecisionRule("multilabel", threshold=0.6), -1, 2, 0.5)
    assert any_number.probability == pytest.approx(sigmoid[0])
    # The class nearest the threshold is the second.
    assert any_number.margin == pytest.approx(sigmoid[1] - 0.6, rel=1e-4)
    two = verdict(DecisionRule("binary"), -2, 2)
    assert two.margin == pytest.approx(sigmoid[0] - 0.5)
    assert verdict(DecisionRule(), 3).margin == 1
