"""Load an archive as a worker would, and explain one picture with it.

    python -m camserve_cli.packaging.check_archive model_store/resnet50.mar

It is unpacked and loaded by a Python that sees nothing else of this project, so what is missing
from the archive shows here and not in production. Prints what it found as one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camserve_cli.packaging.errors import ArchiveError

if TYPE_CHECKING:
    from PIL import Image

#: Run by its path: what it imports is the archive's own.
SMOKE_TEST = Path(__file__).with_name("smoke_test.py")


def check(directory: Path, photos: Sequence[Image.Image] = ()) -> dict[str, Any]:
    """Load an unpacked archive in a Python of its own and explain one picture.

    Args:
        directory: of the archive's files.
        photos: RGB, to score.

    Returns:
        ``classes``, their number; ``layers``, those that may be asked for; ``predicted``, a label;
        ``evidence``, whether the map shows any; ``precision``, of the trunk; ``scores``, of each
        photo by class.

    Raises:
        ArchiveError: with the reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Not through stdout, to which an architecture's own code may print.
        result = Path(scratch) / "result.json"
        files = [Path(scratch) / f"{n}.png" for n in range(len(photos))]
        for photo, file in zip(photos, files, strict=True):
            photo.save(file)
        run = subprocess.run(
            [sys.executable, "-P", SMOKE_TEST, result, *files],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(directory.resolve())},
            capture_output=True,
            text=True,
            errors="replace",
        )
        outcome = json.loads(result.read_text("utf-8")) if result.exists() else {}
    if "error" in outcome:
        raise ArchiveError(outcome["error"])
    if not outcome:
        raise ArchiveError(
            f"the archive ends the Python that loads it ({exit_text(run.returncode)}); the last "
            f"that it printed: {run.stderr.strip()[-2000:] or 'nothing'}; accepted: a network that "
            "runs batches of up to batchSize photos"
        )
    return dict(outcome)


def exit_text(status: int) -> str:
    """What an exit status says."""
    with suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"exit status {status}"


def main() -> None:
    match sys.argv[1:]:
        case [archive]:
            with tempfile.TemporaryDirectory() as scratch:
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(scratch)
                try:
                    found = check(Path(scratch))
                except ArchiveError as error:
                    sys.exit(f"{archive}: {error}")
        case _:
            sys.exit(__doc__)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
