"""Whatever goes wrong with one photo stays its own, though photos share a batch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from camserve.errors import RequestError
from camserve.runtime import memory

T = TypeVar("T")
U = TypeVar("U")
#: Characters of a place: a line of the log has room for them.
_MOST: Final = 2000


def capture_error(step: Callable[..., T], *args: object) -> T | RequestError:
    """A step, or the error that it ends in.

    What no one foresaw is an ``internal_error`` with the place where it happened, or
    ``out_of_memory``. The exception itself is let go: its frames hold what the step worked on.
    """
    try:
        return step(*args)
    except RequestError as error:
        return error
    except Exception as failure:
        if memory.is_out_of_memory(failure):
            return RequestError(
                "out_of_memory",
                "the server has not enough memory for this request now; try again later, or ask "
                "for less",
            )
        return RequestError(
            "internal_error",
            "the server failed on this request; see its log",
            traceback_summary(failure),
        )


def bisect_on_failure(
    run: Callable[[Sequence[T]], U],
    items: Sequence[T],
    retry: Callable[[Sequence[T]], U] | None = None,
    already_split: bool = False,
) -> Iterator[tuple[Sequence[T], U | RequestError]]:
    """Run a function on all items at once; where it fails, on halves of them, and so on.

    A failure is followed down to the one item that causes it. Out of memory is answered by halving
    once: what is too large for half a batch is too large.

    Args:
        run: called with all items.
        items: one or more.
        retry: called with fewer of them after a failure; ``run`` by default.
        already_split: the items are a half of those that ran out of memory.

    Yields:
        Slices of the items, in their order, each with its result.
    """
    result = capture_error(run, items)
    out_of_memory = isinstance(result, RequestError) and result.code == "out_of_memory"
    if not isinstance(result, RequestError) or len(items) == 1 or (out_of_memory and already_split):
        yield items, result
        return
    if out_of_memory:
        memory.release_memory()
    middle = (len(items) + 1) // 2
    for half in (items[:middle], items[middle:]):
        yield from bisect_on_failure(retry or run, half, None, already_split or out_of_memory)


def traceback_summary(failure: BaseException) -> str:
    """Where an exception came from, and its class; nothing that it says, which may quote a request.

    The innermost frames come last, as Python prints them.
    """
    frames = traceback.format_list(traceback.extract_tb(failure.__traceback__)[-8:])
    return "".join([*frames, type(failure).__name__])[-_MOST:]
