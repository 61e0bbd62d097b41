"""A failure in a batch affects one photo; out of memory, the batch is halved once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from camserve.errors import RequestError
from camserve.explain import (
    BatchExplanations,
    DecisionRule,
    ExplanationRequest,
    ForwardOutput,
    explain_batch,
)
from camserve.photo_preparation import DecodePlan, plan_photo
from camserve.pipeline import Pipeline
from camserve.runtime import failures
from tests.support.color_resnet import LABELS, photo, png
from tests.support.contract import assert_replies_close
from tests.support.request_builders import error_codes, form, photo_outcomes, single_reply, v1
from tests.support.small_networks import forward_hook

PHOTOS = {colour: png(photo((colour, (60, 50), 30), width=96, height=96)) for colour in LABELS}
COLOURS = list(PHOTOS)
#: Requests of 8 photos with 6 colours.
REQUESTS = [form(PHOTOS[COLOURS[n % 6]], outputs="map") for n in range(8)]


@pytest.fixture(scope="module")
def small_pipeline(load: Callable[..., Pipeline]) -> Pipeline:
    return load(preprocess={"resize": 64, "crop": 64})


@pytest.fixture(scope="module")
def single_replies(small_pipeline: Pipeline) -> list[dict[str, Any]]:
    """The reply to each request in a batch of its own."""
    return [single_reply(small_pipeline, request)[0] for request in REQUESTS]


# One function


def failing_on(
    bad: Sequence[int], failure: Exception, calls: list[list[int]]
) -> Callable[..., Any]:
    """A function of numbers that fails if one of ``bad`` is among them; it records its calls."""

    def run(items: Sequence[int]) -> str:
        calls.append(list(items))
        if set(items) & set(bad):
            raise failure
        return "".join(map(str, items))

    return run


def test_a_function_that_succeeds_is_called_once_with_the_items_themselves() -> None:
    items, calls = [1, 2, 3], list[Any]()
    ((part, result),) = failures.bisect_on_failure(calls.append, items)
    assert part is items
    assert result is None
    (argument,) = calls
    assert argument is items


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("bad", [[0], [1], [0, 2], [7], [8], list(range(9))])
def test_a_failure_is_bisected_down_to_the_items_that_cause_it(length: int, bad: list[int]) -> None:
    run = failing_on(bad, ZeroDivisionError("nothing by nothing"), [])
    results = [
        (n, result) for part, result in failures.bisect_on_failure(run, range(length)) for n in part
    ]
    assert [n for n, _ in results] == list(range(length))
    failed = {n: result for n, result in results if isinstance(result, RequestError)}
    assert set(failed) == set(bad) & set(range(length))
    for error in failed.values():
        assert (error.code, error.status) == ("internal_error", 500)
        assert error.location.endswith("\nZeroDivisionError")
        assert "in run" in error.location
        # The message of the exception is left out.
        assert "nothing by" not in error.location
        assert "nothing by" not in error.message


def test_after_a_failure_the_parts_are_run_by_retry() -> None:
    first_calls, retry_calls = list[list[int]](), list[list[int]]()
    run = failing_on([2], ValueError(), first_calls)
    retry = failing_on([2], ValueError(), retry_calls)
    (*_, (part, error), _) = failures.bisect_on_failure(run, range(4), retry)
    assert part == range(2, 3)
    assert isinstance(error, RequestError)
    assert first_calls == [[0, 1, 2, 3]]
    assert retry_calls == [[0, 1], [2, 3], [2], [3]]


def test_a_request_error_keeps_its_code() -> None:
    run = failing_on([1], RequestError("non_finite_scores", "not finite"), [])
    (first, error, *rest) = [result for _, result in failures.bisect_on_failure(run, range(4))]
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
def test_out_of_memory_halves_the_items_once(failure: Exception) -> None:
    calls = list[list[int]]()
    run = failing_on([5], failure, calls)
    results = list(failures.bisect_on_failure(run, range(8)))
    assert calls == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7]]
    assert results[0] == (range(4), "0123")
    part, error = results[1]
    assert part == range(4, 8)
    assert isinstance(error, RequestError)
    assert (error.code, error.status) == ("out_of_memory", 507)


def test_a_single_item_is_not_halved() -> None:
    calls = list[list[int]]()
    ((_, error),) = failures.bisect_on_failure(failing_on([0], MemoryError(), calls), [0])
    assert isinstance(error, RequestError)
    assert (error.code, calls) == ("out_of_memory", [[0]])


def test_an_exceptions_arguments_and_frames_are_dropped() -> None:
    class Value:
        pass

    values = [Value()]
    reference = weakref.ref(values[0])

    def fail(items: list[Value]) -> None:
        local = items[0]
        raise ValueError(b"\xff\xd8\xff" * 10_000, local)

    error = failures.capture_error(fail, values)
    values.clear()
    gc.collect()
    assert reference() is None
    assert isinstance(error, RequestError)
    assert error.location.splitlines()[-1] == "ValueError"


def test_a_location_is_short_however_deep_the_stack_and_long_the_names() -> None:
    namespace: dict[str, Any] = {}
    name = "f" * 3000
    exec(f"def {name}(n):\n    return {name}(n - 1) if n else 1 / 0", namespace)  # noqa: S102
    error = failures.capture_error(namespace[name], 50)
    assert isinstance(error, RequestError)
    assert len(error.location) == 2000
    assert error.location.endswith("\nZeroDivisionError")


# A batch


@contextmanager
def failing_forward(
    pipeline: Pipeline, fails: Callable[[Tensor], bool], failure: Exception
) -> Iterator[None]:
    """The network's forward pass fails for some inputs (N, 3, H, W)."""

    def hook(module: Any, args: tuple[Tensor, ...], output: Any) -> None:
        if fails(args[0]):
            raise failure

    with forward_hook(pipeline, hook):
        yield


def any_red(inputs: Tensor) -> bool:
    """Whether any of the photos (N, 3, H, W) shows more red than green and blue."""
    means = inputs.mean(dim=(2, 3))
    is_red = (means[:, 0] > means[:, 1] + 0.1) & (means[:, 0] > means[:, 2] + 0.1)
    return bool(is_red.any())


def test_a_forward_that_fails_for_a_photo_fails_that_photo(
    small_pipeline: Pipeline, single_replies: list[dict[str, Any]]
) -> None:
    red = COLOURS.index("red")
    with failing_forward(small_pipeline, any_red, RuntimeError("CUDA, a secret")):
        replies = single_reply(small_pipeline, *REQUESTS)
    expected: list[str | None] = [
        "internal_error" if n % 6 == red else None for n in range(len(REQUESTS))
    ]
    assert error_codes(replies) == expected
    assert "secret" not in str(replies)
    answered = [n for n, code in enumerate(expected) if code is None]
    assert_replies_close([replies[n] for n in answered], [single_replies[n] for n in answered])


def test_a_batch_too_large_for_memory_is_answered_in_halves(
    small_pipeline: Pipeline, single_replies: list[dict[str, Any]]
) -> None:
    with failing_forward(small_pipeline, lambda inputs: len(inputs) > 4, MemoryError()):
        assert_replies_close(single_reply(small_pipeline, *REQUESTS), single_replies)


def test_half_a_batch_too_large_for_memory_is_507(
    small_pipeline: Pipeline, single_replies: list[dict[str, Any]]
) -> None:
    red = COLOURS.index("red")
    with failing_forward(small_pipeline, any_red, MemoryError()):
        replies = single_reply(small_pipeline, *REQUESTS[: red + 5])
    middle = (len(replies) + 1) // 2
    failed = range(middle) if red < middle else range(middle, len(replies))
    assert error_codes(replies) == [
        "out_of_memory" if n in failed else None for n in range(len(replies))
    ]
    assert {reply["error"]["status"] for reply in replies if "error" in reply} == {507}
    answered = [n for n in range(len(replies)) if n not in failed]
    assert_replies_close([replies[n] for n in answered], [single_replies[n] for n in answered])


@pytest.mark.parametrize(
    ("failure", "code"), [(RuntimeError("boom"), "internal_error"), (MemoryError(), None)]
)
def test_a_backward_that_fails_is_retried_for_fewer_photos(
    failure: Exception,
    code: str | None,
    small_pipeline: Pipeline,
    single_replies: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def explain_or_fail(
        output: ForwardOutput, requests: Sequence[ExplanationRequest], rule: DecisionRule
    ) -> BatchExplanations:
        # The RuntimeError is raised for one photo, the MemoryError for more than four.
        is_boom = any(request.method == "layercam" for request in requests)
        if is_boom if isinstance(failure, RuntimeError) else len(requests) > 4:
            raise failure
        return explain_batch(output, requests, rule)

    monkeypatch.setattr("camserve.pipeline.explain_batch", explain_or_fail)
    layercam = form(PHOTOS["blue"], outputs="map", method="layercam")
    replies = single_reply(small_pipeline, *REQUESTS[:5], layercam, *REQUESTS[6:])
    assert error_codes(replies)[5] == code
    del replies[5]
    assert_replies_close(replies, single_replies[:5] + single_replies[6:])


def test_a_request_of_several_photos_has_answers_beside_an_error(small_pipeline: Pipeline) -> None:
    with failing_forward(small_pipeline, any_red, RuntimeError("boom")):
        (replies,) = photo_outcomes(
            small_pipeline, v1(PHOTOS["green"], PHOTOS["red"], PHOTOS["blue"])
        )
    assert error_codes(replies) == [None, "internal_error", None]
    assert [reply["predictions"][0]["label"] for reply in replies[::2]] == ["green", "blue"]


def test_a_plan_that_fails_fails_its_own_photo(
    small_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count()

    def plan_or_fail(*args: Any) -> DecodePlan:
        if next(calls) == 1:
            raise KeyError("a secret")
        return plan_photo(*args)

    monkeypatch.setattr("camserve.pipeline.plan_photo", plan_or_fail)
    replies = single_reply(small_pipeline, *REQUESTS[:3])
    assert error_codes(replies) == [None, "internal_error", None]
    assert "secret" not in str(replies)
