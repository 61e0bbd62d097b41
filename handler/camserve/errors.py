"""The errors that a caller or an operator sees."""

from __future__ import annotations

import difflib
import reprlib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

#: Every code a reply can carry, and the HTTP status it comes with.
HTTP_STATUS: Final[dict[str, int]] = {
    "missing_image": 400,
    "invalid_image": 400,
    "invalid_base64": 400,
    "invalid_json": 400,
    "invalid_request": 400,
    "unknown_option": 400,
    "invalid_option": 400,
    "conflicting_options": 400,
    "unknown_class": 400,
    "image_too_large": 413,
    "json_too_large": 413,
    "too_many_instances": 413,
    "too_many_targets": 413,
    "reply_too_large": 413,
    "unsupported_format": 415,
    "non_finite_scores": 500,
    "internal_error": 500,
    "out_of_memory": 507,
}


class RequestError(Exception):
    """One request is refused, or failed; its neighbours in the batch are not touched.

    Args:
        code: a key of :data:`HTTP_STATUS`.
        message: what was wrong and what would be accepted, in one sentence for the caller.
        location: for the log: where the server failed.
    """

    def __init__(self, code: str, message: str, location: str = "") -> None:
        # What a caller sent may stand in it, and JSON can hold half a surrogate pair; no reply can.
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(self.message)
        self.code = code
        self.status = HTTP_STATUS[code]
        self.location = location


class SettingsError(ValueError):
    """The archive's model-config.yaml, weights, labels or layer do not fit; the load stops."""


#: Where Python and installed packages lie.
_INSTALLED: Final = tuple(
    Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")
)

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def short_repr(value: Any) -> str:
    """A value as a message may show it: a line at most, however large or deep it is."""
    return _repr.repr(value)


def unknown_name_message(what: str, name: str, known: Iterable[str]) -> str:
    """The message that there is no such option or key, with the nearest and all that there are."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name[:100], names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {short_repr(name)}; {hint}accepted: {', '.join(names)}"


def in_words(failure: BaseException) -> str:
    """What an exception out of somebody else's code says, in one line, and where in that code.

    The place is the innermost one below this package's own frames that no package installed.
    """
    try:
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    except Exception:
        # Somebody else's class may fail at that, too.
        lines = []
    text = f"{type(failure).__name__}: {lines[0][:300]}" if lines else type(failure).__name__
    below: list[traceback.FrameSummary] = []
    for frame in traceback.extract_tb(failure.__traceback__):
        file = Path(frame.filename)
        if file.is_relative_to(Path(__file__).parent):
            below = []
        elif file.is_file() and not any(file.is_relative_to(folder) for folder in _INSTALLED):
            below.append(frame)
    return f"{text} ({Path(below[-1].filename).name}, line {below[-1].lineno})" if below else text
