"""What kind of file was given as weights: decided by its content, never by its suffix."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Final, Literal, NoReturn

from camserve.errors import short_repr
from camserve_cli.packaging.errors import WeightsError

#: What can be read: what torch.save writes, now and before PyTorch 1.6, safetensors, and the index
#: of weights that transformers has put into several such files.
WeightsKind = Literal["torch", "torch_legacy", "safetensors", "index"]

#: What every refusal ends with, where no lines make a state dict of the file.
ACCEPTED: Final = (
    "accepted: a state dict, as torch.save(model.state_dict(), FILE) or safetensors writes it"
)

#: torch.save's own number, which a file of the time before PyTorch 1.6 begins with.
_LEGACY_MAGIC: Final = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_HEAD_BYTES: Final = 1 << 16

#: First bytes -> what such a file is, and what makes weights of it.
_MAGIC: Final[dict[bytes, tuple[str, str]]] = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it first, with gunzip or tar -xzf"),
    b"BZh": ("compressed with bzip2", "unpack it first, with bunzip2 or tar -xjf"),
    b"\xfd7zXZ\x00": ("compressed with xz", "unpack it first, with unxz or tar -xJf"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it first, with zstd -d"),
    b"7z\xbc\xaf'\x1c": ("a 7z archive", "unpack it first"),
    b"Rar!": ("a RAR archive", "unpack it first"),
    b"\x89HDF\r\n\x1a\n": ("HDF5, as Keras and TensorFlow write it, not PyTorch", ACCEPTED),
    b"\x93NUMPY": ("a single NumPy array", ACCEPTED),
    b"GGUF": ("GGUF, whose tensors are quantised", ACCEPTED),
    b"ptrt": ("a TensorRT engine", ACCEPTED),
    b"ftrt": ("a TensorRT engine", ACCEPTED),
    b"\x89PNG": ("a PNG picture", ACCEPTED),
    b"\xff\xd8\xff": ("a JPEG picture", ACCEPTED),
    b"%PDF": ("a PDF document", ACCEPTED),
}
#: What a suffix says of a binary file that its content does not tell.
_SUFFIXES: Final[dict[str, str]] = {
    ".onnx": "an ONNX model",
    ".pb": "a TensorFlow graph",
    ".h5": "a Keras file",
    ".tflite": "a TensorFlow Lite model",
    ".mlmodel": "a Core ML model",
}


def refuse(file: Path, what: str, cure: str = ACCEPTED, lines: str = "") -> NoReturn:
    """Raise a :class:`WeightsError` that says what a file is, and what makes weights of it.

    Args:
        what: it is, or holds; with its verb.
        cure: one clause.
        lines: of Python that make a state dict of it; they follow on lines of their own.
    """
    code = "".join(f"\n    {line}".rstrip(" ") for line in lines.strip().splitlines())
    raise WeightsError(
        f"{file} cannot be read as weights: it {what}; {cure}{':' if code else ''}{code}"
    )


def weights_kind(file: Path) -> WeightsKind:
    """How a file of weights is to be read.

    Raises:
        WeightsError: it is missing, or of another kind; the message says which, and has the lines
            that make a state dict of it where that is possible.
    """
    if file.is_dir():
        _refuse_folder(file)
    if file.exists() and not file.is_file():
        # To read a pipe would wait for whoever writes to it.
        refuse(file, "is no file but a pipe or a device")
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise WeightsError(f"no file {file}; {ACCEPTED}") from None
    except OSError as failure:
        raise WeightsError(
            f"{file} cannot be read as weights: {failure.strerror}; {ACCEPTED}"
        ) from None
    if not head:
        refuse(file, "is empty")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(file)
    if head[:1] == b"\x80" and _LEGACY_MAGIC in head[:32]:
        return "torch_legacy"
    # Its header's length, and the JSON object that the header is.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    for magic, (what, cure) in _MAGIC.items():
        if head.startswith(magic):
            refuse(file, f"is {what}", cure)
    if head[:1] == b"\x80":
        _refuse_pickle(file)
    if head[257:262] == b"ustar":
        refuse(
            file,
            "is a tar archive",
            "unpack it first, with tar -xf; of PyTorch before 0.1.10, save its state dict again",
        )
    if _text_of(head) is not None and b'"weight_map"' in head and head.lstrip()[:1] == b"{":
        return "index"
    _refuse_text(file, head)
    what = _SUFFIXES.get(file.suffix.lower(), "")
    if head[4:8] == b"TFL3":
        what = _SUFFIXES[".tflite"]
    elif re.match(rb"\x08[\x01-\x14][\x12\x1a\x22\x2a\x32\x3a\x42]", head):
        # Its first field is the version of ONNX's format, its second another of its fields.
        what = _SUFFIXES[".onnx"]
    refuse(
        file,
        f"is {what or 'of no kind that is known here'}",
        f"{ACCEPTED}, of the PyTorch network that it was made from" if what else ACCEPTED,
    )


def _zip_kind(file: Path) -> WeightsKind:
    """The kind of a zip file: torch.save writes one, as do many others."""
    try:
        with zipfile.ZipFile(file) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        refuse(
            file,
            "is cut off or damaged (a zip file without its end)",
            "copy or download it again",
        )
    # torch.save and torch.jit.save put all into one folder, of any name.
    inner = {name.partition("/")[2] for name in names}

    def any_of(*endings: str) -> bool:
        return any(name.endswith(endings) for name in names)

    quoted = repr(str(file))
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        refuse(
            file,
            "is TorchScript (torch.jit.save), a compiled program rather than a state dict",
            "these lines make a state dict of it",
            f"import torch\nmodel = torch.jit.load({quoted}, map_location='cpu')\n"
            "torch.save(model.state_dict(), 'weights.pth')",
        )
    if "data.pkl" in inner:
        return "torch"
    if any_of("archive_format", "serialized_exported_program.json"):
        refuse(
            file,
            "is a program of torch.export (.pt2) rather than a state dict",
            "these lines make a state dict of it",
            f"import torch\nprogram = torch.export.load({quoted})\n"
            "torch.save(dict(program.state_dict), 'weights.pth')",
        )
    if names and all(name.endswith(".npy") for name in names):
        refuse(
            file,
            "holds NumPy arrays (.npz) rather than a state dict",
            "these lines make a state dict of it, if its names are those of the network",
            f"import numpy, torch\narrays = numpy.load({quoted})\n"
            "torch.save({name: torch.from_numpy(arrays[name]) for name in arrays}, 'weights.pth')",
        )
    if any(name.startswith("MAR-INF/") for name in names):
        refuse(file, "is a model archive", "its weights are a file in it; unpack it with unzip")
    if any_of("model.weights.h5"):
        refuse(file, "is a Keras model, not PyTorch")
    packed_weights = [n for n in names if n.endswith((".pth", ".pt", ".bin", ".safetensors"))]
    if packed_weights:
        refuse(file, f"is a zip file that contains {packed_weights[0]}", "unpack it first")
    refuse(file, "is a zip file of another program")


def _refuse_pickle(file: Path) -> NoReturn:
    refuse(
        file,
        "is a pickle that torch.save did not write",
        "these lines make a state dict of it, in the environment that wrote it and for a file that "
        "you trust",
        f"import pickle, torch\nwith open({str(file)!r}, 'rb') as file:\n"
        "    content = pickle.load(file)\n"
        "torch.save({name: torch.as_tensor(value) for name, value in content.items()}, "
        "'weights.pth')",
    )


def _refuse_folder(folder: Path) -> NoReturn:
    """Say what a folder is, and which of its files may be meant."""
    found = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in {".pth", ".pt", ".bin", ".ckpt", ".safetensors"}
    )
    found = [path.name for path in sorted(folder.glob("*.index.json"))] + found
    quoted = repr(str(folder))
    if (folder / ".metadata").is_file():
        refuse(
            folder,
            "is a folder of torch.distributed.checkpoint",
            "these lines make one file of it",
            "from torch.distributed.checkpoint.format_utils import dcp_to_torch_save\n"
            f"dcp_to_torch_save({quoted}, 'weights.pth')",
        )
    if (folder / "saved_model.pb").is_file():
        refuse(folder, "is a folder of TensorFlow's SavedModel, not PyTorch")
    hint = f", as {folder / found[0]}" if found else ""
    refuse(folder, "is a folder", f"accepted: a file{hint}")


def _refuse_text(file: Path, head: bytes) -> None:
    """Refuse a text file, by what it says; return where the file is no text."""
    text = _text_of(head)
    if text is None:
        return
    start = text.lstrip("\ufeff \t\r\n")
    for recognise in (_pointer, _markup, _json):
        if found := recognise(file, start):
            refuse(file, *found)
    refuse(file, f"is a text that begins with {short_repr(start)}")


def _text_of(head: bytes) -> str | None:
    """The beginning of a text file; None where it is binary."""
    try:
        # The last character may be cut.
        text = head.decode("utf-8", "strict" if len(head) < _HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1a]", text) else text


def _pointer(file: Path, start: str) -> tuple[str, str] | None:
    if start.startswith("version https://git-lfs.github.com/spec/"):
        return (
            "is a Git LFS pointer, not the weights themselves",
            f"in its clone, run: git lfs install && git lfs pull --include '*{file.name}'",
        )
    if "/annex/objects/" in start[:500]:
        return "is a git-annex pointer, not the weights themselves", "run: git annex get"
    return None


def _markup(file: Path, start: str) -> tuple[str, str] | None:
    lower = start.lower()
    again = "download it again, from the file's own address (and signed in, where it asks for it)"
    if lower.startswith(("<!doctype html", "<html", "<head", "<!--")) or "<html" in lower[:2000]:
        title = re.search(r"<title[^>]*>\s*(.*?)\s*</title>", start, re.DOTALL | re.IGNORECASE)
        said = f" (its title: {short_repr(title[1])})" if title else ""
        return f"is an HTML page{said}, not weights: the download got a page instead", again
    if lower.startswith("<"):
        reason = re.search(r"<(?:Message|Code)>(.*?)</", start, re.DOTALL)
        said = f" ({short_repr(reason[1])})" if reason else ""
        return f"is XML{said}, not weights: a download that failed, perhaps", again
    return None


def _json(file: Path, start: str) -> tuple[str, str] | None:
    if not start.startswith(("{", "[")):
        return None
    return f"is JSON, not weights; it begins with {short_repr(start)}", ACCEPTED
