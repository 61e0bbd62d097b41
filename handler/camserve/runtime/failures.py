"""Errors of one photo, kept from the other photos of its batch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from camserve.errors import RequestError
from camserve.runtime.memory import is_out_of_memory, release_memory

T = TypeVar("T")
U = TypeVar("U")
#: A line of the log has room for a traceback of this many characters.
_MAX_TRACEBACK_LENGTH: Final = 2000
_MAX_TRACEBACK_FRAMES: Final = 8


def capture_error(function: Callable[..., T], *args: object) -> T | RequestError:
    """Call a function and return its result, or the error that it raised.

    An unexpected exception becomes an ``out_of_memory`` error, or an ``internal_error`` with the
    location where it was raised. The exception itself is dropped, because its frames keep alive
    what the function worked on.
    """
    try:
        return function(*args)
    except RequestError as error:
        return error
    except Exception as failure:
        if is_out_of_memory(failure):
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
    """Run a function on all items at once; if it fails, on each half, and so on.

    Halving goes on until the items that cause the failure are alone. After an out-of-memory error
    the items are halved only once: a batch whose half is too large is rejected.

    Args:
        run: called with all items.
        items: one or more.
        retry: called with each part after a failure; ``run`` by default.
        already_split: the items are a half of a batch that ran out of memory.

    Yields:
        Slices of the items, in order, each with its result or error. The first slice is ``items``
        itself if ``run`` succeeds.
    """
    result = capture_error(run, items)
    out_of_memory = isinstance(result, RequestError) and result.code == "out_of_memory"
    if not isinstance(result, RequestError) or len(items) == 1 or (out_of_memory and already_split):
        yield items, result
        return
    if out_of_memory:
        release_memory()
    middle = (len(items) + 1) // 2
    for half in (items[:middle], items[middle:]):
        yield from bisect_on_failure(retry or run, half, None, already_split or out_of_memory)


def traceback_summary(failure: BaseException) -> str:
    """The last frames of an exception's traceback, innermost last, and its class.

    The exception's message is left out, because it may quote a request.
    """
    frames = traceback.extract_tb(failure.__traceback__)[-_MAX_TRACEBACK_FRAMES:]
    lines = traceback.format_list(frames)
    return "".join([*lines, type(failure).__name__])[-_MAX_TRACEBACK_LENGTH:]
