"""The command ``camserve`` itself: its table of contents, its helps, what it imports."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from camserve import __version__ as handler_version
from camserve_cli.app import COMMANDS
from camserve_cli.app import run as run_command
from tests.support.scripts import CAMSERVE, ROOT, run

NAMES = [name for commands in COMMANDS.values() for name in commands]
#: Each takes a good part of a second to import.
HEAVY = {"torch", "torchvision", "numpy", "cv2", "grpc", "httpx", "cryptography", "pydantic"}


def imported(*arguments: str) -> set[str]:
    """The modules that a fresh Python has imported once the command ends."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(list(sys.modules)), file=sys.stderr))\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "from camserve_cli.__main__ import main\n"
        "main()"
    )
    done = run(sys.executable, "-c", code)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_help_is_a_table_of_contents() -> None:
    done = run(CAMSERVE, "--help", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    for panel, commands in COMMANDS.items():
        assert f"─ {panel} ─" in done.stdout
        for name, (summary, _) in commands.items():
            # In one line.
            assert re.search(rf"(?m)^│ {name} +{re.escape(summary)} +│$", done.stdout)
    assert run(CAMSERVE).stdout.split() == done.stdout.split()


def test_the_help_imports_nothing_heavy_and_no_command() -> None:
    modules = imported("--help")
    assert "camserve_cli.app" in modules
    assert not modules & HEAVY
    assert not {name for name in modules if name.startswith("camserve_cli.commands.")}
    assert "camserve" not in modules


def test_a_command_imports_no_other() -> None:
    modules = imported("certificate", "--help")
    commands = {name for name in modules if name.startswith("camserve_cli.commands.")}
    assert commands == {"camserve_cli.commands.certificate"}
    # typer itself looks for pydantic once it builds a command.
    assert not modules & (HEAVY - {"cryptography", "pydantic"})


def test_the_probe_imports_the_standard_library_alone() -> None:
    modules = {name.partition(".")[0] for name in imported("ready", "--help")}
    foreign = modules - set(sys.stdlib_module_names) - {"__main__", "camserve_cli"}
    # What .pth files of the environment import is there before.
    assert not foreign - {name.partition(".")[0] for name in imported_before()}


def imported_before() -> set[str]:
    done = run(sys.executable, "-c", "import json, sys; print(json.dumps(list(sys.modules)))")
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "name", [*NAMES, *(f"serve {one}" for one in ("start", "stop", "status", "token"))]
)
def test_each_help_has_examples(name: str) -> None:
    done = run(CAMSERVE, *name.split(), "--help", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    examples = re.findall(rf"(?m)^ +(?:\w+=\S+ )?camserve {name}\b", done.stdout)
    assert len(examples) >= 2
    # Nothing is cut off, and nothing of this machine is shown, which would be on another.
    assert "…" not in done.stdout
    assert str(ROOT) not in re.sub(r"[\s│]", "", done.stdout)


def test_the_version_is_the_projects() -> None:
    done = run(CAMSERVE, "--version")
    (version,) = re.findall(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text())
    assert (done.returncode, done.stdout) == (0, f"camserve {version}\n")
    assert handler_version == version


def test_it_runs_as_a_module_as_well() -> None:
    done = run(sys.executable, "-m", "camserve_cli", "--help")
    assert (done.returncode, done.stdout) == (0, run(CAMSERVE, "--help").stdout)


def test_a_command_that_is_not_there() -> None:
    done = run(CAMSERVE, "pakage")
    assert done.returncode == 2
    assert "Did you mean 'package'?" in " ".join(done.stderr.split())


def test_what_nobody_foresaw_ends_in_one_line(tmp_path: Path) -> None:
    """An error of an operating system, one of ours, and one of a class that nobody expects."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    texts = ("pid", "scratch", "inference", "management", "grpc")
    record = {**dict.fromkeys(texts, "none"), "started": 0.0, "models": []}
    (run_dir / "server.json").write_text(json.dumps(record))
    done = run(CAMSERVE, "serve", "status", RUN_DIR=str(run_dir))
    assert done.returncode == 1
    assert done.stderr.startswith("serve: TypeError: ")
    assert done.stderr.count("\n") == 1
    done = run(CAMSERVE, "serve", "status", RUN_DIR=str(run_dir / "server.json"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("serve: [Errno 20] Not a directory")


def test_a_message_that_quotes_a_file_stays_short_and_plain(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("red\x1b[31m", "x" * 200 + "/" + "y" * 9000):
        with pytest.raises(SystemExit):
            run_command(["package", "--from-hf", name])
        said = capsys.readouterr().err
        assert "\x1b" not in said
        assert len(said) < 3100


# The former paths, for one release


@pytest.mark.parametrize(
    ("name", "options", "status", "said"),
    [
        ("package", ["--name", "../x"], 1, "package: --name '../x'"),
        ("explain", ["no-such-photo.jpg"], 2, "explain: no photo at 'no-such-photo.jpg'"),
        ("edge", ["--show"], 0, "listen_port=8443"),
        ("certificate", ["--host", "a b", "--force"], 1, "certificate: --host 'a b'"),
        ("ready", ["--model", "m", "--url", "ftp://a"], 1, "not ready: m: ftp://a: accepted is"),
    ],
)
def test_a_former_path_hands_over(
    name: str, options: list[str], status: int, said: str, tmp_path: Path
) -> None:
    script = ROOT / "scripts" / f"{name}.py"
    done = run(sys.executable, script, *options, cwd=tmp_path, RUN_DIR=str(tmp_path))
    assert done.returncode == status
    first, _, rest = done.stderr.partition("\n")
    assert first == (
        f"scripts/{name}.py is now `camserve {name}`; this path goes away with the next release"
    )
    assert said in done.stdout + rest


def test_the_former_probe_needs_python_and_nothing_else(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "ready.py"
    options = ("--model", "m", "--url", "ftp://a")
    done = run(sys.executable, "-I", "-S", script, *options, RUN_DIR=str(tmp_path))
    assert (done.returncode, done.stdout.partition(": ")[0]) == (1, "not ready")
