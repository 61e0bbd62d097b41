"""Whatever goes wrong with one photo stays its own, though photos share a batch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from camserve.errors import RequestError
from camserve.runtime import hardware

T = TypeVar("T")
U = TypeVar("U")
#: Characters of a place: a line of the log has room for them.
_MOST: Final = 2000


def attempt(step: Callable[..., T], *args: object) -> T | RequestError:
    """A step, or the error that it ends in.

    What no one foresaw is an ``internal_error`` with the place where it happened, or
    ``out_of_memory``. The exception itself is let go: its frames hold what the step worked on.
    """
    try:
        return step(*args)
    except RequestError as error:
        return error
    except Exception as failure:
        if hardware.is_out_of_memory(failure):
            return RequestError(
                "out_of_memory",
                "the server has not enough memory for this request now; try again later, or ask "
                "for less",
            )
        return RequestError(
            "internal_error", "the server failed on this request; see its log", place(failure)
        )


def together(
    step: Callable[[Sequence[T]], U], items: Sequence[T], halved: bool = False
) -> Iterator[tuple[Sequence[T], U | RequestError]]:
    """One step for all items at once; where it fails, for fewer of them.

    A failure is followed down to the one item that causes it. Want of memory is met by halves,
    once: what is too large for half a batch is too large.

    Args:
        step: called with ``items`` themselves first, then with parts of them.
        items: one at least.
        halved: they are such a half.

    Yields:
        Parts of the items, in their order, with what the step made of them.
    """
    result = attempt(step, items)
    starved = isinstance(result, RequestError) and result.code == "out_of_memory"
    if not isinstance(result, RequestError) or len(items) == 1 or (starved and halved):
        yield items, result
        return
    if starved:
        hardware.release()
    middle = (len(items) + 1) // 2
    for half in (items[:middle], items[middle:]):
        yield from together(step, half, halved or starved)


def place(failure: BaseException) -> str:
    """Where an exception came from, and its class; nothing that it says, which may quote a request.

    The innermost frames come last, as Python prints them.
    """
    frames = traceback.format_list(traceback.extract_tb(failure.__traceback__)[-8:])
    return "".join([*frames, type(failure).__name__])[-_MOST:]
