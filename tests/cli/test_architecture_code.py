"""``--arch`` by file and by module: where the code lies, what it imports, and how it can end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from camserve_cli.packaging.architecture_code import (
    check_imports,
    local_source_files,
    module_of_file,
)
from camserve_cli.packaging.errors import ArchiveError, PackageError

#: Without torch, which takes seconds to import.
NETWORK = """
class Net:
    @classmethod
    def make(cls):
        return cls()

def build():
    return Net()
"""
FILES = {
    "cam_single.py": NETWORK,
    "cam_hyphen-ated.py": NETWORK,
    "cam_dot.ted.py": NETWORK,
    "code.py": NETWORK,
    "yaml.py": NETWORK,
    "cam_pack/__init__.py": "",
    "cam_pack/deep/__init__.py": "",
    "cam_pack/deep/model.py": f"from ..parts import x{NETWORK}",
    "cam_pack/parts.py": "x = 1",
    "cam_space/deep/model.py": f"from cam_space.deep.parts import x{NETWORK}",
    "cam_space/deep/parts.py": "x = 1",
    "cam_imports.py": f"import cam_single\nfrom cam_pack import parts{NETWORK}",
    "cam_optional.py": f"try:\n    import cam_single\nexcept ImportError:\n    pass{NETWORK}",
    "cam_lazy.py": "def build():\n    import cam_single\n",
    "cam_exits.py": "import os\nprint('the last words', flush=True)\nos._exit(0)",
    "cam_aborts.py": "import os\nos.abort()",
    "cam_sysexit.py": "import sys\nsys.exit(0)",
    "cam_fails.py": "raise ValueError",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the files."""
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("cam_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("arch", "module", "code"),
    [
        ("cam_single.py:build", "cam_single:build", "cam_single.py"),
        ("./cam_single.py:Net.make", "cam_single:Net.make", "cam_single.py"),
        ("cam_hyphen-ated.py:build", "cam_hyphen-ated:build", "cam_hyphen-ated.py"),
        ("cam_pack/deep/model.py:build", "cam_pack.deep.model:build", "cam_pack"),
        ("cam_pack/deep/__init__.py:build", "cam_pack.deep:build", "cam_pack"),
        ("cam_space/deep/parts.py:build", "parts:build", "cam_space/deep/parts.py"),
        ("cam_space.deep.model:build", "cam_space.deep.model:build", "cam_space"),
        ("cam_pack.deep.model:build", "cam_pack.deep.model:build", "cam_pack"),
        ("cam_single:build", "cam_single:build", "cam_single.py"),
    ],
)
def test_a_file_is_its_module_and_its_code_is_packed(
    arch: str, module: str, code: str, here: Path
) -> None:
    assert module_of_file(arch) == module
    assert local_source_files(module, {}) == [here / code]


@pytest.mark.parametrize("arch", ["resnet50", "timm:resnet18", "yaml:safe_load", "torch.nn:Linear"])
def test_what_a_package_installs_is_not_packed(arch: str) -> None:
    assert module_of_file(arch) == arch
    assert local_source_files(arch, {}) == []


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("cam_single.py", "accepted is cam_single.py:CALLABLE, as cam_single.py:build"),
        ("cam_none.py:build", "there is no file cam_none.py"),
        ("cam_dot.ted.py:build", "'cam_dot.ted' cannot be imported, as a module's name has no dot"),
        ("code.py:build", "another module is named 'code' .*; rename code.py"),
        ("yaml.py:build", "another module is named 'yaml' .*site-packages.*; rename yaml.py"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_file_that_cannot_be_imported_by_its_name_is_refused(arch: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        module_of_file(arch)


def test_a_module_that_is_not_here_is_said() -> None:
    with pytest.raises(ArchiveError, match="there is no module 'cam_nowhere' here"):
        local_source_files("cam_nowhere:build", {})


@pytest.mark.parametrize(
    ("arch", "include"),
    [
        ("cam_pack.deep.model:build", []),
        ("cam_space.deep.model:build", []),
        ("cam_imports:build", ["cam_single.py", "cam_pack"]),
        # What fails is reported where the archive is built.
        ("cam_fails:build", []),
        ("cam_sysexit:build", []),
        ("cam_single:nothing", []),
    ],
)
def test_an_architecture_whose_imports_are_packed_passes(
    arch: str, include: list[str], here: Path
) -> None:
    packed = [*local_source_files(arch, {}), *(here / name for name in include)]
    check_imports(arch, {}, (1, 3, 8, 8), packed)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "cam_imports:build",
            "imports cam_single.py, cam_pack/parts.py, which are not in the archive; add "
            "--include cam_single.py --include cam_pack$",
        ),
        ("cam_optional:build", "imports cam_single.py, which is not in the archive; add --include"),
        ("cam_lazy:build", "imports cam_single.py, which is not in the archive"),
        ("cam_exits:build", "exit status 0.*the last that it printed: the last words"),
        ("cam_aborts:build", "ends the Python that builds and runs it .by SIGABRT"),
    ],
)
@pytest.mark.usefixtures("here")
def test_code_that_is_not_packed_or_ends_python_is_said(arch: str, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        check_imports(arch, {}, (1, 3, 8, 8), local_source_files(arch, {}))
