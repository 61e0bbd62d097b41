"""Import, build and run an architecture, and list the files that were imported for it.

    python -P architecture_imports.py RESULT CALL

:mod:`architecture_code` runs this file by itself: code of an architecture may end the Python that
runs it. CALL is a JSON object of the architecture, its arguments and the shape of its input.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def imported_files(arch: str, kwargs: dict[str, Any], input_shape: list[int]) -> list[list[str]]:
    """Top-level name and file of each module that is imported while a network is built and run.

    What fails is not reported here: it fails again, with its message, where the archive is built.
    """
    before = set(sys.modules)
    module, _, attribute = arch.partition(":")
    try:
        constructor: Any = importlib.import_module(module)
        for name in attribute.split("."):
            constructor = getattr(constructor, name)
        network = constructor(**kwargs)
        # Not imported here: that takes seconds, and what is a network has imported it.
        torch = sys.modules["torch"]
        with torch.no_grad():
            network.eval()
            network(torch.rand(input_shape, generator=torch.Generator().manual_seed(0)))
    except (Exception, SystemExit):  # noqa: S110 - see above
        pass
    files = []
    for name, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        # This file itself is found again under a name of multiprocessing's.
        if name in before or not isinstance(file, str) or file == __file__:
            continue
        if Path(file).is_file():
            files.append([name.partition(".")[0], file])
    return files


if __name__ == "__main__":
    result, call = sys.argv[1:]
    modules = imported_files(**json.loads(call))
    Path(result).write_text(json.dumps({"modules": modules}), "utf-8")
