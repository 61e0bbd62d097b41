"""What fails in a batch fails alone; want of memory is met by halves, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from camserve import photo_preparation
from camserve.errors import RequestError
from camserve.explain import explanations
from camserve.pipeline import Pipeline
from camserve.runtime import failures
from tests.support.color_resnet import LABELS, photo, png
from tests.support.contract import assert_alike
from tests.support.request_builders import answer, codes, form, v1
from tests.support.small_networks import hooked

PHOTOS = {colour: png(photo((colour, (60, 50), 30), width=96, height=96)) for colour in LABELS}
COLOURS = list(PHOTOS)
#: 8 photos of 6 colours.
ROWS = [form(PHOTOS[COLOURS[n % 6]], outputs="map") for n in range(8)]


@pytest.fixture(scope="module")
def small(load: Callable[..., Pipeline]) -> Pipeline:
    return load(preprocess={"resize": 64, "crop": 64})


@pytest.fixture(scope="module")
def alone(small: Pipeline) -> list[dict[str, Any]]:
    """What each row is answered by itself."""
    return [answer(small, row)[0] for row in ROWS]


# One step


def failing(bad: Sequence[int], failure: Exception, seen: list[list[int]]) -> Callable[..., Any]:
    """A step over numbers that fails while one of these is among them."""

    def step(items: Sequence[int]) -> str:
        seen.append(list(items))
        if set(items) & set(bad):
            raise failure
        return "".join(map(str, items))

    return step


def test_a_step_that_succeeds_is_taken_once_with_the_items_themselves() -> None:
    items, seen = [1, 2, 3], list[Any]()
    ((part, result),) = failures.bisect_on_failure(lambda given: seen.append(given), items)
    assert part is items
    assert result is None
    assert seen[0] is items


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("bad", [[0], [1], [0, 2], [7], [8], list(range(9))])
def test_a_failure_is_followed_down_to_what_causes_it(count: int, bad: list[int]) -> None:
    step = failing(bad, ZeroDivisionError("nothing by nothing"), [])
    found = [
        (n, result) for part, result in failures.bisect_on_failure(step, range(count)) for n in part
    ]
    assert [n for n, _ in found] == list(range(count))
    failed = {n: result for n, result in found if isinstance(result, RequestError)}
    assert set(failed) == set(bad) & set(range(count))
    for error in failed.values():
        assert (error.code, error.status) == ("internal_error", 500)
        assert error.location.endswith("\nZeroDivisionError")
        assert "in step" in error.location
        # In the traceback, and not from what the exception says.
        assert "nothing by" not in error.location
        assert "nothing by" not in error.message


def test_an_error_of_the_request_keeps_its_code() -> None:
    step = failing([1], RequestError("non_finite_scores", "not finite"), [])
    (first, error, *rest) = [result for _, result in failures.bisect_on_failure(step, range(4))]
    assert isinstance(error, RequestError)
    assert (first, error.code, rest) == ("0", "non_finite_scores", ["23"])


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't "
                     "allocate memory: you tried to allocate 1 bytes."),
    ],
)  # fmt: skip
def test_want_of_memory_is_met_by_halves_once(failure: Exception) -> None:
    seen = list[list[int]]()
    step = failing([5], failure, seen)
    found = list(failures.bisect_on_failure(step, range(8)))
    assert seen == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7]]
    assert found[0] == (range(4), "0123")
    part, error = found[1]
    assert part == range(4, 8)
    assert isinstance(error, RequestError)
    assert (error.code, error.status) == ("out_of_memory", 507)


def test_one_item_has_no_halves() -> None:
    seen = list[list[int]]()
    ((_, error),) = failures.bisect_on_failure(failing([0], MemoryError(), seen), [0])
    assert isinstance(error, RequestError)
    assert (error.code, seen) == ("out_of_memory", [[0]])


def test_an_exceptions_values_and_frames_are_let_go() -> None:
    class Held:
        pass

    import gc
    import weakref

    held = [Held()]
    watch = weakref.ref(held[0])

    def step(item: list[Held]) -> None:
        local = item[0]
        raise ValueError(b"\xff\xd8\xff" * 10_000, local)

    error = failures.capture_error(step, held)
    held.clear()
    gc.collect()
    assert watch() is None
    assert isinstance(error, RequestError)
    assert error.location.splitlines()[-1] == "ValueError"


def test_a_place_is_short_however_deep_and_long_the_code() -> None:
    namespace: dict[str, Any] = {}
    name = "f" * 3000
    exec(f"def {name}(n):\n    return {name}(n - 1) if n else 1 / 0", namespace)  # noqa: S102
    error = failures.capture_error(namespace[name], 50)
    assert isinstance(error, RequestError)
    assert len(error.location) == 2000
    assert error.location.endswith("\nZeroDivisionError")


# A batch


@contextmanager
def faulty(
    pipeline: Pipeline, fails: Callable[[Tensor], bool], failure: Exception
) -> Iterator[None]:
    """A network whose forward pass fails for some inputs, (N, 3, H, W)."""

    def hook(module: Any, args: tuple[Tensor, ...], output: Any) -> None:
        if fails(args[0]):
            raise failure

    with hooked(pipeline, hook):
        yield


def red(inputs: Tensor) -> Tensor:
    """(N,), which of these show more red than green and blue."""
    means = inputs.mean(dim=(2, 3))
    return (means[:, 0] > means[:, 1] + 0.1) & (means[:, 0] > means[:, 2] + 0.1)


def test_a_forward_that_fails_for_a_photo_fails_that_one(
    small: Pipeline, alone: list[dict[str, Any]]
) -> None:
    bad = COLOURS.index("red")
    with faulty(small, lambda inputs: bool(red(inputs).any()), RuntimeError("CUDA, a secret")):
        found = answer(small, *ROWS)
    expected: list[str | None] = [
        "internal_error" if n % 6 == bad else None for n in range(len(ROWS))
    ]
    assert codes(found) == expected
    assert "secret" not in str(found)
    good = [n for n, code in enumerate(expected) if code is None]
    assert_alike([found[n] for n in good], [alone[n] for n in good])


def test_a_batch_too_large_for_memory_is_answered_in_halves(
    small: Pipeline, alone: list[dict[str, Any]]
) -> None:
    with faulty(small, lambda inputs: len(inputs) > 4, MemoryError()):
        assert_alike(answer(small, *ROWS), alone)


def test_half_a_batch_too_large_for_memory_is_507(
    small: Pipeline, alone: list[dict[str, Any]]
) -> None:
    bad = COLOURS.index("red")
    with faulty(small, lambda inputs: bool(red(inputs).any()), MemoryError()):
        found = answer(small, *ROWS[: bad + 5])
    halves = (len(found) + 1) // 2
    failed = range(halves) if bad < halves else range(halves, len(found))
    assert codes(found) == ["out_of_memory" if n in failed else None for n in range(len(found))]
    assert {one["error"]["status"] for one in found if "error" in one} == {507}
    good = [n for n in range(len(found)) if n not in failed]
    assert_alike([found[n] for n in good], [alone[n] for n in good])


@pytest.mark.parametrize(
    ("failure", "code"), [(RuntimeError("boom"), "internal_error"), (MemoryError(), None)]
)
def test_a_backward_that_fails_is_tried_again_for_fewer(
    failure: Exception,
    code: str | None,
    small: Pipeline,
    alone: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = explanations.explain_batch

    def fails(scores: Any, wishes: Sequence[explanations.ExplanationRequest]) -> Any:
        # The boom is at one photo; memory is wanting for more than four.
        boom = any(wish.method == "layercam" for wish in wishes)
        if boom if isinstance(failure, RuntimeError) else len(wishes) > 4:
            raise failure
        return plain(scores, wishes)

    monkeypatch.setattr(explanations, "explain_batch", fails)
    odd = form(PHOTOS["blue"], outputs="map", method="layercam")
    found = answer(small, *ROWS[:5], odd, *ROWS[6:])
    assert codes(found)[5] == code
    del found[5]
    assert_alike(found, alone[:5] + alone[6:])


def test_a_request_of_several_photos_keeps_those_that_live(small: Pipeline) -> None:
    from tests.support.request_builders import outcomes

    with faulty(small, lambda inputs: bool(red(inputs).any()), RuntimeError("boom")):
        (found,) = outcomes(small, v1(PHOTOS["green"], PHOTOS["red"], PHOTOS["blue"]))
    assert codes(found) == [None, "internal_error", None]
    assert [one["predictions"][0]["label"] for one in found[::2]] == ["green", "blue"]


def test_a_plan_that_fails_fails_its_own_photo(
    small: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = photo_preparation.plan_photo, iter(range(9))

    def fails(*args: Any) -> photo_preparation.DecodePlan:
        if next(calls) == 1:
            raise KeyError("a secret")
        return plain(*args)

    monkeypatch.setattr(photo_preparation, "plan_photo", fails)
    assert codes(answer(small, *ROWS[:3])) == [None, "internal_error", None]
