"""``camserve``, and ``python -m camserve_cli``."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_INTERRUPTED = 130


def main() -> NoReturn:
    # While modules are loaded, and while Python ends, Ctrl-C would print a traceback. In the
    # background of a script, Python finds it ignored, and so does this.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _stop)
    try:
        if sys.argv[1:2] == ["ready"]:
            # A probe runs every few seconds: standard library alone, not even typer.
            from camserve_cli import paths
            from camserve_cli.serving import ready

            sys.exit(ready.main(sys.argv[2:], "camserve ready", str(paths.RUN_DIR)))
        from camserve_cli.app import run

        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run(sys.argv[1:])
    finally:
        if interruptible:
            signal.signal(signal.SIGINT, _stop)
        _flush()


def _stop(number: int, frame: object) -> NoReturn:
    os.write(2, b"camserve: stopped\n")
    os._exit(_INTERRUPTED)


def _flush() -> None:
    """Write what is left of the output, here and not while Python ends.

    Raises:
        SystemExit: it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.flush()
    except OSError as failure:
        # Python would try once more, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(failure, BrokenPipeError):
            os.write(2, f"camserve: the output cannot be written: {failure.strerror}\n".encode())
        sys.exit(1)


if __name__ == "__main__":
    main()
