"""Import, build and run an architecture, and list the files that it imports and reads.

    python -P architecture_imports.py RESULT CALL

:mod:`architecture_code` runs this file by itself: code of an architecture may end the Python that
runs it. CALL is a JSON object of the architecture, its arguments, and the shapes of the inputs that
it is run on.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_architecture(
    arch: str, kwargs: dict[str, Any], input_shapes: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Build a network and run it, with a batch of each shape.

    What fails is not reported here: it fails again, with its message, where the archive is built.

    Returns:
        ``modules``, top-level name and file of each module that is imported; ``read``, the other
        files that are opened; ``raised``, what is raised that is no ``Exception`` and would end the
        Python that builds the archive, empty where nothing is.
    """
    before = set(sys.modules)
    read: list[str] = []
    sys.addaudithook(lambda event, args: _note_read(read, event, args))
    raised = ""
    try:
        _build_and_run(arch, kwargs, input_shapes)
    except (Exception, SystemExit):  # noqa: S110 - see above
        pass
    except BaseException as failure:
        *_, frame = traceback.extract_tb(failure.__traceback__)
        raised = f"{type(failure).__name__} ({Path(frame.filename).name}, line {frame.lineno})"
    opened = list(read)
    modules = []
    for name, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        # This file itself is found again under a name of multiprocessing's.
        if name in before or not isinstance(file, str) or file == __file__:
            continue
        if Path(file).is_file():
            modules.append([name.partition(".")[0], file])
    return {"modules": modules, "read": opened, "raised": raised}


def _build_and_run(
    arch: str, kwargs: dict[str, Any], input_shapes: Sequence[Sequence[int]]
) -> None:
    module, _, attribute = arch.partition(":")
    constructor: Any = importlib.import_module(module)
    for name in attribute.split("."):
        constructor = getattr(constructor, name)
    network = constructor(**kwargs)
    # Not imported here: that takes seconds, and what is a network has imported it.
    torch = sys.modules["torch"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.eval()
        for shape in input_shapes:
            network(torch.rand(shape, generator=generator))


def _note_read(read: list[str], event: str, args: Sequence[Any]) -> None:
    """Note a file that is opened to be read, which is no module's."""
    if event != "open":
        return
    path, mode, flags = args
    writes = set(mode or "") & set("wax+") or (not mode and flags & (os.O_WRONLY | os.O_RDWR))
    if not isinstance(path, str | bytes | os.PathLike) or writes:
        return
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links stay as they are
    if not name.endswith((".py", ".pyc")) and name not in read and os.path.isfile(name):  # noqa: PTH113
        read.append(name)


if __name__ == "__main__":
    result, call = sys.argv[1:]
    Path(result).write_text(json.dumps(run_architecture(**json.loads(call))), "utf-8")
