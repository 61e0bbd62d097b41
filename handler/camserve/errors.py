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
    "too_many_forwards": 413,
    "reply_too_large": 413,
    "unsupported_format": 415,
    "non_finite_scores": 500,
    "internal_error": 500,
    "out_of_memory": 507,
}


class RequestError(Exception):
    """One request is rejected, or failed; its neighbours in the batch are not affected.

    Args:
        code: a key of :data:`HTTP_STATUS`.
        message: what was wrong and what would be accepted, in one sentence for the caller.
        location: where the server failed, for the log.
    """

    def __init__(self, code: str, message: str, location: str = "") -> None:
        # It may quote the caller, and JSON can hold half a surrogate pair, which no reply can.
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(self.message)
        self.code = code
        self.status = HTTP_STATUS[code]
        self.location = location


class SettingsError(ValueError):
    """The archive's model-config.yaml, weights, labels or layer do not fit; the load stops."""


#: The folders of Python and of installed packages.
_INSTALLED: Final = tuple(
    Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")
)

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def short_repr(value: Any) -> str:
    """A value for a message: one line, however large or deep the value is."""
    return _repr.repr(value)


def unknown_name_message(what: str, name: str, known: Iterable[str]) -> str:
    """The message that a name is unknown, with the nearest name and all accepted ones."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name[:100], names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {short_repr(name)}; {hint}accepted: {', '.join(names)}"


def describe_exception(failure: BaseException) -> str:
    """One line on an exception raised in user code: its class, its message, and its origin.

    The origin is the innermost frame below this package's own that lies in no installed package.
    """
    try:
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    except Exception:
        # A user's exception class may fail here as well.
        lines = []
    text = f"{type(failure).__name__}: {lines[0][:300]}" if lines else type(failure).__name__
    user_frames: list[traceback.FrameSummary] = []
    for frame in traceback.extract_tb(failure.__traceback__):
        file = Path(frame.filename)
        if file.is_relative_to(Path(__file__).parent):
            user_frames = []
        elif file.is_file() and not any(file.is_relative_to(folder) for folder in _INSTALLED):
            user_frames.append(frame)
    if not user_frames:
        return text
    return f"{text} ({Path(user_frames[-1].filename).name}, line {user_frames[-1].lineno})"
