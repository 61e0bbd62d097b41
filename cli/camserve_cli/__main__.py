"""``camserve``, and ``python -m camserve_cli``."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    if sys.argv[1:2] == ["ready"]:
        # A probe runs every few seconds: standard library alone, not even typer.
        from camserve_cli import paths
        from camserve_cli.serving import ready

        sys.exit(ready.main(sys.argv[2:], "camserve ready", str(paths.RUN_DIR)))
    from camserve_cli.app import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
