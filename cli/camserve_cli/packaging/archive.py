"""A model archive as a file: what goes into it, laid out, proved, and zipped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import camserve
from camserve.networks import Labels
from camserve_cli.packaging.check_archive import check
from camserve_cli.packaging.errors import ArchiveError
from camserve_cli.paths import HANDLER

#: The package that the handler is made of: a clone's, or the installed one.
PACKAGE = Path(camserve.__file__).parent
_NOT_PACKED = shutil.ignore_patterns("__pycache__")
#: Of a person's own package: its repository and its settings of editors stay where they are.
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")


@dataclass(frozen=True)
class Archive:
    """What an archive is made of.

    Attributes:
        name, version: of the model.
        config: its model-config.yaml; ``handler.weights`` and ``handler.labels`` name the files,
            and the weights' SHA-256 is added to it.
        state: the network's state dict.
        labels: the classes' names, and their WordNet IDs where these are known.
        code: files and packages that the architecture imports and that no package installs.
    """

    name: str
    version: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    labels: Labels
    code: Sequence[Path]

    def write(
        self,
        store: Path,
        compress: bool,
        photos: Sequence[Image.Image] = (),
        judge: Callable[[dict[str, Any]], None] = lambda found: None,
    ) -> tuple[Path, dict[str, Any]]:
        """Write NAME.mar, once the archive has been loaded and has explained a picture.

        The same inputs give the same bytes.

        Args:
            store: the folder it goes to.
            compress: deflate it; stored, it loads faster.
            photos: RGB, to score while it is checked.
            judge: is given what the check found, and may raise an error, before it is written.

        Returns:
            The file, and what :func:`check_archive.check` found.

        Raises:
            ArchiveError: it cannot be laid out, or would not load.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = self._lay_out(Path(scratch))
            found = check(folder, photos)
            judge(found)
            store.mkdir(parents=True, exist_ok=True)
            target = self.file(store)
            _zip(folder, target, compress)
        return target, found

    def file(self, store: Path) -> Path:
        """Where it is written in a store."""
        return store / f"{self.name}.mar"

    def _lay_out(self, stage: Path) -> Path:
        """Let torch-model-archiver make a folder of it."""
        section = self.config["handler"]
        extra, out, tmp = stage / "extra", stage / "out", stage / "tmp"
        shutil.copytree(PACKAGE, extra / PACKAGE.name, ignore=_NOT_PACKED)
        content = json.dumps(self.labels.to_json(), indent=0)
        (extra / section["labels"]).write_text(content, "utf-8")
        # A file that is named twice is the same file.
        for resolved, path in {path.resolve(): path for path in self.code}.items():
            _copy(path, extra / resolved.name)
        weights = stage / section["weights"]
        save_file({name: value.contiguous().clone() for name, value in self.state.items()}, weights)
        with weights.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        config = stage / "model-config.yaml"
        whole = {**self.config, "handler": {**section, "weights_sha256": sha256}}
        config.write_text(yaml.safe_dump(whole, sort_keys=False), "utf-8")
        # The archiver works in, and deletes, a folder of the model's name in TMPDIR.
        out.mkdir()
        tmp.mkdir()
        run = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "model_archiver.model_packaging"),
                *("--model-name", self.name),
                *("--version", self.version),
                *("--handler", HANDLER),
                *("--serialized-file", weights),
                *("--config-file", config),
                *("--extra-files", extra),
                *("--export-path", out),
                *("--archive-format", "no-archive"),
            ],
            env={**os.environ, "TMPDIR": str(tmp)},
            capture_output=True,
            text=True,
        )
        if run.returncode != 0:
            # Its last line is the exception, before which Python's traceback may stand.
            *_, reason = ["no reason given", *run.stderr.strip().splitlines()]
            raise ArchiveError(f"torch-model-archiver: {reason}")
        manifest = out / self.name / "MAR-INF" / "MANIFEST.json"
        content = json.loads(manifest.read_text("utf-8"))
        # The one thing in it that changes from run to run.
        del content["createdOn"]
        manifest.write_text(json.dumps(content, indent=2, sort_keys=True), "utf-8")
        return out / self.name


def _copy(path: Path, target: Path) -> None:
    if not path.exists():
        raise ArchiveError(f"there is no {path} to include; accepted: a file or folder")
    if target.exists() or target.name == "gradcam_handler.py":
        raise ArchiveError(
            f"{path} would overwrite the archive's own {target.name}; accepted: another name"
        )
    try:
        if path.is_dir():
            shutil.copytree(path, target, ignore=_NOT_COPIED)
        else:
            shutil.copy(path, target)
    except shutil.Error as failure:
        # Of several files, each with its source, its target and its reason.
        source, _, reason = failure.args[0][0]
        raise ArchiveError(
            f"{source} cannot be included: {reason}; accepted: files that can be read"
        ) from None


def _zip(folder: Path, target: Path, compress: bool) -> None:
    """Write a zip whose bytes depend on nothing but the files' names and content."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    partial = target.with_suffix(".partial")
    try:
        with zipfile.ZipFile(partial, "w") as packed:
            for path in files:
                if "__pycache__" in path.parts:
                    continue
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                entry.compress_type = kind
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, path.read_bytes())
        # A server that looks into the store meanwhile sees the old archive or the new one.
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
