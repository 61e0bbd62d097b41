"""``--arch`` by file and by module: where the code lies, what it imports, and how it can end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from camserve_cli.packaging.architecture_code import (
    find_imports,
    include_note,
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
    "cam_interrupts.py": "def build():\n    raise KeyboardInterrupt",
    "cam_own.py": "class Own(BaseException): ...\ndef build():\n    raise Own('x')",
    "cam_reads.py": f"open('cam_data/names.txt').close(){NETWORK}",
    "cam_reads_twice.py": f"open('cam_data/names.txt').close()\nopen('cam_reads_sides.txt')"
    f".close()\nopen('written.txt', 'w').close(){NETWORK}",
    "cam_pack/reads.py": "import os\nopen(os.path.dirname(__file__) + '/names.txt').close()"
    f"{NETWORK}",
    "cam_hidden.py": f"open('.cam/settings').close(){NETWORK}",
    ".cam/settings": "",
    "cam_pack/names.txt": "",
    "cam_data/names.txt": "",
    "cam_reads_sides.txt": "",
    # It stands for a network and torch, which takes seconds to import.
    "cam_batches.py": """
import os, sys, types

class Torch(types.ModuleType):
    Generator = staticmethod(lambda: types.SimpleNamespace(manual_seed=lambda seed: None))
    rand = staticmethod(lambda shape, generator: range(shape[0]))

    def no_grad(self):
        import contextlib
        return contextlib.nullcontext()

sys.modules["torch"] = Torch("torch")

class Net:
    def __init__(self, last):
        self.last = last

    def eval(self):
        pass

    def __call__(self, photos):
        if len(photos) > self.last:
            os._exit(0)

build = Net
""",
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


@pytest.mark.parametrize(
    "arch",
    ["resnet50", "timm:resnet18", "yaml:safe_load", "torch.nn:Linear", "os:system", "sys:exit"],
)
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
        ("cam_reads:build", ["cam_data"]),
        ("cam_pack.reads:build", []),
        ("cam_hidden:build", []),
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
    assert find_imports(arch, {}, (3, 8, 8), packed) == []


@pytest.mark.parametrize(
    ("arch", "parts", "notes"),
    [
        (
            "cam_imports:build", ["cam_single.py", "cam_pack"],
            ["the archive contains cam_single.py, too, as the architecture imports cam_single.py",
             "the archive contains cam_pack, too, as the architecture imports cam_pack/parts.py"],
        ),
        (
            "cam_optional:build", ["cam_single.py"],
            ["the archive contains cam_single.py, too, as the architecture imports cam_single.py"],
        ),
        (
            "cam_lazy:build", ["cam_single.py"],
            ["the archive contains cam_single.py, too, as the architecture imports cam_single.py"],
        ),
    ],
)  # fmt: skip
def test_code_that_is_imported_and_not_packed_is_found(
    arch: str, parts: list[str], notes: list[str], here: Path
) -> None:
    found = find_imports(arch, {}, (3, 8, 8), local_source_files(arch, {}))
    assert [one.part for one in found] == [here / name for name in parts]
    assert [include_note(one) for one in found] == notes


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "cam_reads:build",
            "reads cam_data/names.txt, which is not in the archive; add --include cam_data$",
        ),
        (
            "cam_reads_twice:build",
            "reads cam_data/names.txt, cam_reads_sides.txt, which are not in the archive; add "
            "--include cam_data --include cam_reads_sides.txt$",
        ),
        ("cam_interrupts:build", r"it raises KeyboardInterrupt \(cam_interrupts.py, line 2\)\);"),
        ("cam_own:build", r"it raises Own \(cam_own.py, line 3\)\); accepted: a network that"),
        ("cam_exits:build", "exit status 0.*the last that it printed: the last words"),
        ("cam_aborts:build", "ends the Python that builds and runs it .by SIGABRT"),
    ],
)
@pytest.mark.usefixtures("here")
def test_code_that_reads_other_files_or_ends_python_is_refused(arch: str, message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        find_imports(arch, {}, (3, 8, 8), local_source_files(arch, {}))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("last", [0, 1, 2])
@pytest.mark.usefixtures("here")
def test_code_that_ends_python_at_some_number_of_photos_is_refused(last: int) -> None:
    arch = "cam_batches:build"
    assert find_imports(arch, {"last": 13}, (3, 8, 8), local_source_files(arch, {})) == []
    with pytest.raises(PackageError, match=r"exit status 0.*runs batches of any size"):
        find_imports(arch, {"last": last}, (3, 8, 8), local_source_files(arch, {}))
