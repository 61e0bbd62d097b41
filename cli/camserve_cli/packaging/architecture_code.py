"""The source code of an architecture of one's own: where it lies, and all that it imports."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Final

import camserve
from camserve_cli.packaging.check_archive import exit_text
from camserve_cli.packaging.errors import ArchiveError, PackageError

#: Run by its path, so that it imports nothing of this project.
_IMPORTS = Path(__file__).with_name("architecture_imports.py")
_INSTALLED: Final = tuple(
    Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib", "platstdlib")
)
#: This project's own packages, which a clone has outside of the installed ones.
_OWN: Final = ("camserve", "camserve_cli", "camserve_client")


def module_of_file(arch: str) -> str:
    """``model.py:build`` as ``model:build``, and any other architecture as it is.

    The folder of the file's outermost package is added to the end of ``sys.path``.

    Raises:
        PackageError: there is no such file, or it cannot be imported by its name.
    """
    path, colon, attribute = arch.rpartition(":")
    if arch.endswith(".py"):
        raise PackageError(f"--arch {arch}: accepted is {arch}:CALLABLE, as {arch}:build")
    if not colon or not path.endswith(".py"):
        return arch
    file = Path(path).resolve()
    if not file.is_file():
        raise PackageError(f"--arch {arch}: there is no file {path}")
    names, root = [file.stem], file.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    for name in names:
        if "." in name:
            raise PackageError(
                f"--arch {arch}: {name!r} cannot be imported, as a module's name has no dot; "
                "rename it"
            )
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    taken = _origin(names[0])
    if taken is None or not taken.is_relative_to(root):
        raise PackageError(
            f"--arch {arch}: another module is named {names[0]!r} ({taken or 'built into Python'});"
            f" rename {(root / names[0]).name}{'.py' if len(names) == 1 else ''}"
        )
    # An __init__.py is imported by the name of its package.
    module = names[:-1] if names[-1] == "__init__" else names
    return f"{'.'.join(module)}:{attribute}"


def local_source_files(arch: str, kwargs: Mapping[str, Any]) -> list[Path]:
    """The source that ``module:callable`` needs and no package installs: its file or package.

    What is installed in site-packages is not packed; it must be installed where the archive is
    served.

    Args:
        arch: an architecture.
        kwargs: of its constructor.

    Raises:
        ArchiveError: there is no such module.
    """
    from camserve.networks import is_hf_model

    if ":" not in arch or is_hf_model(arch, kwargs):
        return []
    top = arch.partition(":")[0].partition(".")[0]
    origin = _origin(top)
    if origin is None:
        raise ArchiveError(f"arch {arch!r}: there is no module {top!r} here")
    return [] if _is_installed(origin) else [origin]


def _origin(top: str) -> Path | None:
    """The file of a module, or the folder of a package, with or without ``__init__.py``."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    if folders:
        return Path(folders[0]).resolve()
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _is_installed(file: Path) -> bool:
    return any(file.is_relative_to(folder) for folder in _INSTALLED)


def check_imports(
    arch: str, kwargs: Mapping[str, Any], input_shape: Sequence[int], packed: Sequence[Path]
) -> None:
    """Build and run an architecture of one's own in a Python of its own.

    Args:
        arch: ``module:callable``.
        kwargs: of the callable.
        input_shape: (N, C, H, W) of the input that it is run on.
        packed: the files and folders of code that the archive contains.

    Raises:
        PackageError: its code ends the Python that runs it, or imports files that are not packed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        call = {"arch": arch, "kwargs": dict(kwargs), "input_shape": list(input_shape)}
        run = subprocess.run(
            [sys.executable, "-P", _IMPORTS, result, json.dumps(call)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            errors="replace",
        )
        found = json.loads(result.read_text("utf-8")) if result.exists() else None
    if found is None:
        said = (run.stderr.strip() or run.stdout.strip())[-2000:]
        raise PackageError(
            f"arch {arch!r} ends the Python that builds and runs it "
            f"({exit_text(run.returncode)}); the last that it printed: {said or 'nothing'}; "
            "accepted: a module that only defines the network, with what else it does under "
            'if __name__ == "__main__":'
        )
    places = [path.resolve() for path in packed]
    missing = {
        str(part): file
        for top, name in found["modules"]
        if (part := _part_to_include(top, file := Path(name).resolve()))
        and not any(file.is_relative_to(place) for place in places)
    }
    if missing:
        files = ", ".join(_shown(file) for file in missing.values())
        options = " ".join(f"--include {quote(_shown(Path(part)))}" for part in missing)
        raise PackageError(
            f"arch {arch!r} imports {files}, which {'is' if len(missing) == 1 else 'are'} not in "
            f"the archive; add {options}"
        )


def _part_to_include(top: str, file: Path) -> Path | None:
    """What brings an imported file into the archive: its own top-level module or package.

    None where that is installed, or this project's own.
    """
    own = Path(camserve.__file__).resolve().parent
    if top in _OWN or _is_installed(file) or file.is_relative_to(own):
        return None
    folder = next((one for one in file.parents if one.name == top), None)
    return file if file.stem == top or folder is None else folder


def _shown(file: Path) -> str:
    """A path as a person would write it."""
    here = Path.cwd().resolve()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
