"""Weights by name, from a server on this machine; and from files."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights
from torchvision.models import Weights as TorchvisionWeights

from camserve_cli.packaging import pretrained
from camserve_cli.packaging.errors import UnreachableError, WeightsError

STATE = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.zeros(2)}


class _Counting(SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012 - shared by all connections

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of a folder: its address and the folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    _Counting.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counting, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def published(address: str, folder: Path, digest: str | None = None) -> TorchvisionWeights:
    """Weights as torchvision publishes them: the digest's first digits in the file's name."""
    content = io.BytesIO()
    torch.save(STATE, content)
    digest = digest or hashlib.sha256(content.getvalue()).hexdigest()[:8]
    name = f"net-{digest}.pth"
    (folder / name).write_bytes(content.getvalue())
    return TorchvisionWeights(url=f"{address}/{name}", transforms=torch.nn.Identity, meta={})


def test_a_download_shows_its_progress_and_is_cached(
    mirror: tuple[str, Path], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = published(*mirror)
    first = pretrained.fetch(weights)
    assert "100%" in capfd.readouterr().err
    second = pretrained.fetch(weights)
    assert len(_Counting.requests) == 1
    assert len(list(cache.iterdir())) == 1
    for state in (first, second):
        assert state.keys() == STATE.keys()
        assert torch.equal(state["fc.weight"], STATE["fc.weight"])


def test_a_download_with_another_hash_is_refused_and_not_kept(
    mirror: tuple[str, Path], cache: Path
) -> None:
    with pytest.raises(WeightsError, match="invalid hash value"):
        pretrained.fetch(published(*mirror, digest="0123abcd"))
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused(mirror: tuple[str, Path], cache: Path) -> None:
    weights = published(*mirror)
    pretrained.fetch(weights)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is damaged"):
        pretrained.fetch(weights)


def test_a_server_that_is_not_there_is_unreachable(mirror: tuple[str, Path]) -> None:
    weights = published("http://127.0.0.1:9", mirror[1])
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9.* cannot be reached"):
        pretrained.fetch(weights)


def test_a_file_that_is_not_there_is_no_network_trouble(mirror: tuple[str, Path]) -> None:
    weights = TorchvisionWeights(
        url=f"{mirror[0]}/none-00000000.pth", transforms=torch.nn.Identity, meta={}
    )
    with pytest.raises(UnreachableError, match="404"):
        pretrained.fetch(weights)


@pytest.mark.parametrize("name", [None, "IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"])
def test_names_of_weights(name: str | None) -> None:
    assert pretrained.named("resnet50", name) is ResNet50_Weights.IMAGENET1K_V2


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="IMAGENET1K_V1, IMAGENET1K_V2"):
        pretrained.named("resnet50", "IMAGENET")
    with pytest.raises(WeightsError, match="no classifier 'resnet5'"):
        pretrained.named("resnet5", None)


def test_the_preset_of_resnet50() -> None:
    assert pretrained.preprocessing(ResNet50_Weights.IMAGENET1K_V2) == {
        "resize": 232,
        "crop": 224,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(STATE, id="plain"),
        pytest.param({"state_dict": STATE, "epoch": 3}, id="state_dict"),
        pytest.param({"model": STATE}, id="model"),
    ],
)
def test_forms_of_pth(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    state = pretrained.read(tmp_path / "w.pth")
    assert state.keys() == STATE.keys()
    assert torch.equal(state["fc.weight"], STATE["fc.weight"])


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert pretrained.read(tmp_path / "w.safetensors").keys() == STATE.keys()


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a pickle ran",)


def test_no_code_in_a_pickle_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": _Harm()}))
    torch.save({"a": _Harm()}, tmp_path / "zip.pth")
    for name in ("w.pth", "zip.pth"):
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            pretrained.read(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_no_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        pretrained.read(tmp_path / name)
