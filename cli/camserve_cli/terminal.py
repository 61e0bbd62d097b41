"""Text that quotes a file, a server or a name, made fit for a terminal."""

from __future__ import annotations

from typing import Final

# Characters; more fills a screen.
_MAX_LENGTH: Final = 3000


def printable(text: str, keep_lines: bool = False) -> str:
    r"""Text without control characters, which could forge lines or steer the terminal.

    Args:
        text: may quote what somebody else named or wrote.
        keep_lines: whether its line breaks are its own; else they are escaped, too.

    Returns:
        It, with what does not print as Python escapes it (``\x1b``, ``\n``), cut at 3000
        characters.
    """
    shown = "".join(
        char if char.isprintable() or (keep_lines and char == "\n") else ascii(char)[1:-1]
        for char in text
    )
    return shown if len(shown) <= _MAX_LENGTH else f"{shown[:_MAX_LENGTH]} .. (cut off here)"
