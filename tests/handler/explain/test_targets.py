"""The scores that a request's target names."""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from torchvision.models import ResNet50_Weights

from camserve.errors import RequestError
from camserve.explain.targets import Target, TopRank, resolve_targets
from camserve.networks.labels import Labels
from camserve.options import RawTarget

IMAGENET = Labels(tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"]))
MAX_TARGETS = 16
#: The class of highest score, and further ones that a multilabel network predicts.
PREDICTED = Target(TopRank(0), every_predicted=True)


def single(*classes: int) -> tuple[Target, ...]:
    return tuple(Target(index) for index in classes)


def top(count: int) -> tuple[Target, ...]:
    return tuple(Target(TopRank(rank)) for rank in range(count))


def resolve_error(
    labels: Labels, target: RawTarget, max_targets: int = MAX_TARGETS
) -> RequestError:
    with pytest.raises(RequestError) as error:
        resolve_targets(labels, target, max_targets)
    return error.value


# One target and several


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        ("predicted", (PREDICTED,)),
        (0, single(0)),
        (999, single(999)),
        ("0", single(0)),
        ("999", single(999)),
        ("007", single(7)),
        ("tench", single(0)),
        ("tabby", single(281)),
        ("crane bird", single(134)),
        ("crane", single(517)),
        ("toilet tissue", single(999)),
        ("jack-o'-lantern", single(607)),
        ("top:1", top(1)),
        ("top:3", top(3)),
        ("top:16", top(16)),
        ((281,), single(281)),
        ((281, "tench", "999"), single(281, 0, 999)),
        ((7, 3, 7, "7"), single(7, 3, 7, 7)),
        (("top:2", 5, "predicted", "top:1"), (*top(2), *single(5), PREDICTED, *top(1))),
        (("predicted",), (PREDICTED,)),
        (tuple(range(16)), single(*range(16))),
        ("281,285", single(281, 285)),
        ("tabby , tench,3", single(281, 0, 3)),
        ("3,1,3", single(3, 1, 3)),
        ("predicted, top:2,tabby", (PREDICTED, *top(2), *single(281))),
        ("jack-o'-lantern,hen-of-the-woods", single(607, 996)),
    ],
)
def test_a_target_is_one_score_or_several_in_their_order(
    target: RawTarget, targets: tuple[Target, ...]
) -> None:
    assert resolve_targets(IMAGENET, target, MAX_TARGETS) == targets


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        ("tabby-tench", [(281, 0)]),
        ("281-285", [(281, 285)]),
        ("0-1", [(0, 1)]),
        ("1-0", [(1, 0)]),
        ("281 - tench", [(281, 0)]),
        ("7-7", [(7, 7)]),
        ("predicted-285", [(TopRank(0), 285)]),
        ("tabby-predicted", [(281, TopRank(0))]),
        ("predicted-predicted", [(TopRank(0), TopRank(0))]),
        ("Shih-Tzu-go-kart", [(155, 573)]),
        ("go-kart-0", [(573, 0)]),
        ("0-go-kart", [(0, 573)]),
        ("hen-of-the-woods-bicycle-built-for-two", [(996, 444)]),
        ("wire-haired fox terrier - three-toed sloth", [(188, 364)]),
        (("tabby-tench", 5), [(281, 0), (5, None)]),
        ("tabby-tench, 5 - 6,tabby", [(281, 0), (5, 6), (281, None)]),
        ("Shih-Tzu", [(155, None)]),
    ],
)
def test_two_classes_with_a_hyphen_between_are_a_contrast(
    target: RawTarget, targets: list[tuple[Any, Any]]
) -> None:
    expected = tuple(Target(class_id, against) for class_id, against in targets)
    assert resolve_targets(IMAGENET, target, MAX_TARGETS) == expected


# What else they could be read as

WORDS = ("a", "b", "a, b", "a-b", "7", "predicted", "top:2", "1-0", "c,d", "[0]", " e ", "0,1", "")


@pytest.mark.parametrize("name", WORDS)
def test_a_label_comes_before_whatever_else_it_could_be_read_as(name: str) -> None:
    labels = Labels(WORDS)
    assert resolve_targets(labels, name, MAX_TARGETS) == single(WORDS.index(name))
    assert resolve_targets(labels, (name, 0), MAX_TARGETS) == single(WORDS.index(name), 0)


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        # A label of that name is class 4's; the class 7 has the index for it.
        ("7-0", [(4, 0)]),
        (7, [(7, None)]),
        # A label of that name is class 5's.
        ("predicted,a", [(5, None), (0, None)]),
        ("predicted-a", [(5, 0)]),
        ("top:2-a", [(6, 0)]),
        # A contrast comes before a list.
        ("a-a, b", [(0, 2)]),
        ("c,d-a, b", [(8, 2)]),
        (("c,d-a, b",), [(8, 2)]),
        ("a-b,b", [(3, None), (1, None)]),
        ("a - b", [(0, 1)]),
        ("a,b", [(0, None), (1, None)]),
    ],
)
def test_a_part_is_read_as_a_label_too_before_all_else(
    target: RawTarget, targets: list[tuple[int, int | None]]
) -> None:
    expected = tuple(Target(class_id, against) for class_id, against in targets)
    assert resolve_targets(Labels(WORDS), target, MAX_TARGETS) == expected


def test_a_contrast_that_can_be_parted_in_two_ways_is_an_error() -> None:
    labels = Labels(("a", "b-c", "a-b", "c", "c-d"))
    assert resolve_targets(labels, "a-b-c-d", MAX_TARGETS) == (Target(2, 4),)
    error = resolve_error(labels, "a-b-c")
    assert error.code == "unknown_class"
    assert "'a-b-c' can be parted into two classes in 2 ways" in error.message
    assert "indices" in error.message
    assert resolve_targets(labels, "0-1,2-3", MAX_TARGETS) == (Target(0, 1), Target(2, 3))


# Beginnings of labels that are no class by themselves, or one of several.
BEGINNINGS = ("18-wheeler", "car", "crane", "crane", "crane-fly")


@pytest.mark.parametrize(
    ("target", "class_id", "against"),
    [("18-wheeler-car", 0, 1), ("crane-fly-car", 4, 1), ("crane-fly - 18-wheeler", 4, 0)],
)
def test_a_label_may_begin_as_an_index_or_as_a_label_that_is_not_unique(
    target: str, class_id: int, against: int
) -> None:
    assert resolve_targets(Labels(BEGINNINGS), target, MAX_TARGETS) == (Target(class_id, against),)


@pytest.mark.parametrize(("target", "class_id", "against"), [("car-18-wheeler", 1, 0)])
def test_a_label_may_end_so(target: str, class_id: int, against: int) -> None:
    assert resolve_targets(Labels(BEGINNINGS), target, MAX_TARGETS) == (Target(class_id, against),)


@pytest.mark.parametrize(
    ("target", "near"), [("18-wheelr", "18-wheeler"), ("crane-flie", "crane-fly")]
)
def test_a_near_label_is_named_however_it_begins(target: str, near: str) -> None:
    assert f"did you mean {near!r}" in resolve_error(Labels(BEGINNINGS), target).message


# Torchvision's labels are distinct; in other lists, as that of TorchServe's example, the bird and
# the machine are both a crane.
CRANES = Labels((*IMAGENET.names[:134], "crane", *IMAGENET.names[135:]))


@pytest.mark.parametrize(
    "target", ["crane", ("tabby", "crane"), "crane,tabby", "crane-tabby", "tabby-crane"]
)
def test_a_label_of_two_classes_is_answered_with_both(target: RawTarget) -> None:
    error = resolve_error(CRANES, target)
    assert error.code == "unknown_class"
    assert "'crane' stands for the classes 134, 517" in error.message


def test_a_class_of_a_label_that_it_shares_has_its_index() -> None:
    assert resolve_targets(CRANES, (134, 517), MAX_TARGETS) == single(134, 517)
    assert resolve_targets(CRANES, "134-517", MAX_TARGETS) == (Target(134, 517),)


# Refused


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (1000, ["1000", "0 to 999"]),
        ("1000", ["1000", "0 to 999"]),
        ("3,1000", ["1000", "0 to 999"]),
        ((3, 1000), ["1000", "0 to 999"]),
        ("1000-3", ["1000", "0 to 999"]),
        ("3-1000", ["1000", "0 to 999"]),
        ("tabbi", ["'tabbi'", "did you mean 'tabby'", "0 to 999", "'predicted'"]),
        ("Tabby", ["'Tabby'", "'tabby'"]),
        ("tabby ", ["'tabby '", "'tabby'"]),
        (("tench", " tabby"), ["' tabby'", "'tabby'"]),
        ("tench,tabbi", ["'tabbi'", "'tabby'"]),
        ("go-cart", ["'go-cart'", "'go-kart'"]),
        ("zzzzzz", ["'zzzzzz' is no label; accepted", "an exact label", "'top:k'", "'A-B'"]),
        ("Predicted", ["'Predicted'", "'predicted'"]),
        ("top:", ["'top:'", "'top:k'"]),
        ("top:-1", ["'top:-1'", "'top:k'"]),
        ("top: 3", ["'top: 3'", "'top:k'"]),
        ("Top:3", ["'Top:3'", "'top:k'"]),
        ("top:2-3", ["'top:2-3'", "'A-B'"]),
        ("-5", ["'-5'", "0 to 999"]),
        ("+5", ["'+5'", "0 to 999"]),
        ("5.0", ["'5.0'", "0 to 999"]),
        ("²", ["'²'", "0 to 999"]),
        ("٣", ["'٣'", "0 to 999"]),
        ("tabby-", ["'tabby-'", "'tabby'"]),
        ("-tabby", ["'-tabby'", "'tabby'"]),
        ("1-2-3", ["'1-2-3'", "'A-B'"]),
        ("", ["''", "an exact label"]),
        (",", ["''", "an exact label"]),
        ("tabby,", ["''", "an exact label"]),
        ("-", ["'-'", "an exact label"]),
        ("x" * 5000, ["x" * 20, "an exact label"]),
        (10**4000, ["1" + "0" * 20, "0 to 999"]),
        ("1" * 1000, ["1" * 20, "an exact label"]),
        ("-" * 1000, ["-" * 20, "an exact label"]),
        ("tabby-" * 160, ["tabby-tabby", "an exact label"]),
        ("top:" + "9" * 500, ["top:999", "'top:k'"]),
        ("tabby\ud800", ["'tabby\\ud800'", "'tabby'"]),
    ],
)
def test_another_target_is_an_unknown_class(target: RawTarget, parts: list[str]) -> None:
    error = resolve_error(IMAGENET, target)
    assert (error.code, error.status) == ("unknown_class", 400)
    assert [part for part in parts if part not in error.message] == []
    assert len(error.message) < 350


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("top:0", "'top:0' is not accepted; accepted: top:1 to top:16"),
        ("top:999999999", "'top:999999999' is not accepted; accepted: top:1 to top:16"),
        (("tabby", "top:0"), "'top:0' is not accepted; accepted: top:1 to top:16"),
    ],
)
def test_a_rank_that_there_is_not_is_an_error(target: RawTarget, message: str) -> None:
    error = resolve_error(IMAGENET, target)
    assert (error.code, error.status) == ("invalid_option", 400)
    assert message in error.message


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (tuple(range(17)), "names 17 scores; accepted: 1 to 16"),
        (",".join(map(str, range(17))), "names 17 scores; accepted: 1 to 16"),
        ("," * 999, "names 1000 scores; accepted: 1 to 16"),
        (("nothing",) * 100, "names 100 scores; accepted: 1 to 16"),
        (("top:10", "top:7"), "names 17 scores; accepted: 1 to 16"),
        ("top:16,predicted", "names 17 scores; accepted: 1 to 16"),
        ("top:17", "'top:17' is not accepted; accepted: top:1 to top:16"),
    ],
)
def test_too_many_scores_are_resolve_error(target: RawTarget, message: str) -> None:
    error = resolve_error(IMAGENET, target)
    assert (error.code, error.status) == ("too_many_targets", 413)
    assert error.message.startswith("option 'target'")
    assert message in error.message


@pytest.mark.parametrize(
    ("classes", "max_targets", "max_rank"), [(3, 16, 3), (20, 4, 4), (4, 4, 4)]
)
def test_no_more_classes_are_ranked_than_there_are(
    classes: int, max_targets: int, max_rank: int
) -> None:
    labels = Labels(tuple(f"class {n}" for n in range(classes)))
    assert resolve_targets(labels, f"top:{max_rank}", max_targets) == top(max_rank)
    error = resolve_error(labels, f"top:{max_rank + 1}", max_targets)
    assert error.code == ("too_many_targets" if max_rank < classes else "invalid_option")
    assert f"accepted: top:1 to top:{max_rank}" in error.message


def test_near_labels_are_compared_for_no_more_than_a_label_can_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[str] = []
    original = difflib.get_close_matches

    def record(word: str, *args: Any, **kwargs: Any) -> list[str]:
        compared.append(word)
        return original(word, *args, **kwargs)

    monkeypatch.setattr(difflib, "get_close_matches", record)
    resolve_error(IMAGENET, ("tabby " * 160,) * 16)
    # The first error is raised, and a long text is truncated.
    assert len(compared) == 1
    assert len(compared[0]) == 100


# WordNet IDs

WITH_IDS = Labels(("cat", "n02", "dog", "kite", "hen"), ("n01", "n03", "n02", "7", "n05"))


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        ("n01", single(0)),
        ("n03", single(1)),
        (("n05", "cat", 2), single(4, 0, 2)),
        ("n01,n05", single(0, 4)),
        ("n01-n05", (Target(0, 4),)),
        ("cat-n05", (Target(0, 4),)),
        # A label first, and an index before an ID.
        ("n02", single(1)),
        ("3", single(3)),
    ],
)
def test_a_wordnet_id_is_a_target(target: RawTarget, targets: tuple[Target, ...]) -> None:
    assert resolve_targets(WITH_IDS, target, MAX_TARGETS) == targets


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        (WITH_IDS, "n011", "did you mean 'n01'"),
        (WITH_IDS, "n09", "an exact label, a wnid, 'predicted'"),
        (WITH_IDS, "7", "7 is no class index"),
        (Labels(("a", "b"), ("n1", "n1")), "n1", "wnid 'n1' stands for the classes 0, 1"),
    ],
)
def test_a_wordnet_id_that_names_no_class(labels: Labels, target: str, message: str) -> None:
    error = resolve_error(labels, target)
    assert error.code == "unknown_class"
    assert message in error.message
