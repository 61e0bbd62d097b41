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
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from shlex import quote
from typing import Any, Final, NoReturn

import camserve
from camserve_cli.packaging.check_archive import exit_text
from camserve_cli.packaging.errors import ArchiveError, PackageError

#: Run by its path, so that it imports nothing of this project.
_IMPORTS = Path(__file__).with_name("architecture_imports.py")
_INSTALLED: Final = tuple(
    Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib", "platstdlib")
)
#: The sizes of the batches that packaging runs in this Python: of a photo, of two, and those of the
#: search for the layer to explain (camserve.networks.patch_movement). An archive's check runs more.
_BATCHES: Final = (1, 2, 13)
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
        raise PackageError(
            f"--arch {arch}: there is no file {path}; accepted: a file, as my_net.py:build"
        )
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


def is_import_path(arch: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether an architecture is ``module:callable``, and no model of timm's or transformers'.

    Raises:
        SettingsError: the name asks for one of these packages, which is not installed.
    """
    from camserve.networks import is_hf_model, is_timm_model

    return ":" in arch and not is_timm_model(arch) and not is_hf_model(arch, kwargs)


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
    if not is_import_path(arch, kwargs):
        return []
    top = arch.partition(":")[0].partition(".")[0]
    if _find_spec(top) is None:
        raise ArchiveError(
            f"arch {arch!r}: there is no module {top!r} here; accepted: MODULE:CALLABLE of a "
            "module that this folder or an installed package has, or FILE.py:CALLABLE"
        )
    origin = _origin(top)
    return [] if origin is None or _is_installed(origin) else [origin]


def _find_spec(top: str) -> ModuleSpec | None:
    """Where a module comes from; None where there is none."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _origin(top: str) -> Path | None:
    """The file of a module, or the folder of a package, with or without ``__init__.py``.

    None where there is no such module, or where it is built into Python.
    """
    spec = _find_spec(top)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    if folders:
        return Path(folders[0]).resolve()
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _is_installed(file: Path) -> bool:
    return any(file.is_relative_to(folder) for folder in _INSTALLED)


@dataclass(frozen=True)
class ImportedFile:
    """Code that an architecture imports, and that no package installs.

    Attributes:
        file: that is imported.
        part: what brings it into the archive: its own top-level module or package.
    """

    file: Path
    part: Path


def find_imports(
    arch: str, kwargs: Mapping[str, Any], input_shape: Sequence[int], packed: Sequence[Path]
) -> list[ImportedFile]:
    """Build and run an architecture of one's own in a Python of its own.

    Args:
        arch: ``module:callable``.
        kwargs: of the callable.
        input_shape: (C, H, W) of the inputs that it is run on, in batches of several sizes.
        packed: the files and folders of code that the archive contains.

    Returns:
        A file of each module or package that it imports and that is not packed.

    Raises:
        PackageError: its code ends the Python that runs it, or reads files that are not packed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        shapes = [[size, *input_shape] for size in _BATCHES]
        call = {"arch": arch, "kwargs": dict(kwargs), "input_shapes": shapes}
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
        printed = f"; the last that it printed: {said or 'nothing'}"
        _refuse_ending(arch, exit_text(run.returncode), printed)
    if found["raised"]:
        _refuse_ending(arch, f"it raises {found['raised']}")
    places = [path.resolve() for path in packed]
    _check_read_files(arch, found["read"], places)
    missing: dict[Path, ImportedFile] = {}
    for top, name in found["modules"]:
        file = Path(name).resolve()
        part = _part_to_include(top, file)
        if part and not _is_in(file, places):
            missing[part] = ImportedFile(file, part)
    return list(missing.values())


def _refuse_ending(arch: str, how: str, printed: str = "") -> NoReturn:
    raise PackageError(
        f"arch {arch!r} ends the Python that builds and runs it ({how}){printed}; accepted: a "
        "network that runs batches of any size, in a module that only defines it, with what else "
        'it does under if __name__ == "__main__":'
    )


def _check_read_files(arch: str, files: Sequence[str], packed: Sequence[Path]) -> None:
    """Refuse code that reads files beside itself which the archive will not contain.

    Hidden files and folders are left out: of editors, of Git, of the settings of other tools.

    Raises:
        PackageError: with the ``--include`` that adds them.
    """
    origin = _origin(arch.partition(":")[0].partition(".")[0])
    roots = [Path.cwd().resolve(), *([origin.parent] if origin else [])]
    missing: dict[Path, Path] = {}
    for file in (Path(name).resolve() for name in files):
        root = next((root for root in roots if file.is_relative_to(root)), None)
        parts = file.relative_to(root).parts if root else ()
        if root and not (_is_installed(file) or _is_in(file, packed) or _is_hidden(parts)):
            missing.setdefault(root / parts[0], file)
    if missing:
        shown = ", ".join(_shown(file) for file in missing.values())
        options = " ".join(f"--include {quote(_shown(part))}" for part in missing)
        raise PackageError(
            f"arch {arch!r} reads {shown}, which {'is' if len(missing) == 1 else 'are'} not in the "
            f"archive; add {options}"
        )


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") for part in parts)


def _is_in(file: Path, places: Sequence[Path]) -> bool:
    return any(file.is_relative_to(place) for place in places)


def _part_to_include(top: str, file: Path) -> Path | None:
    """What brings an imported file into the archive: its own top-level module or package.

    None where that is installed, or this project's own.
    """
    own = Path(camserve.__file__).resolve().parent
    if top in _OWN or _is_installed(file) or file.is_relative_to(own):
        return None
    folder = next((one for one in file.parents if one.name == top), None)
    return file if file.stem == top or folder is None else folder


def include_note(imported: ImportedFile) -> str:
    """What a person should know of code that the archive contains without an ``--include``."""
    return (
        f"the archive contains {_shown(imported.part)}, too, as the architecture imports "
        f"{_shown(imported.file)}"
    )


def _shown(file: Path) -> str:
    """A path as a person would write it."""
    here = Path.cwd().resolve()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
