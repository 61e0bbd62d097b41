"""Checkpoints as people have them -> a network's weights, and what is said of them."""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from camserve_cli.packaging.checkpoint import Checkpoint
from camserve_cli.packaging.errors import WeightsError
from camserve_cli.packaging.weights_fit import FittedWeights, fit_weights

State = dict[str, Tensor]


def network(classes: int = 3) -> nn.Module:
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 3), block=block, fc=nn.Linear(4, classes))
    )


torch.manual_seed(0)
STATE: State = network().state_dict()
AVERAGE: State = {name: value + 1 for name, value in STATE.items()}


def put(prefix: str, state: State = STATE) -> State:
    return {prefix + name: value for name, value in state.items()}


def only(*starts: str) -> State:
    return {name: value for name, value in STATE.items() if name.startswith(starts)}


def averaged() -> Any:
    model = network()
    model.load_state_dict(STATE)
    return AveragedModel(model).state_dict()


def fit(path: Path, key: str | None = None, labels: int = 3, given: bool = True) -> FittedWeights:
    return fit_weights(network(labels), Checkpoint.read(path, key), "my:net", labels, given)


def refusal(path: Path, key: str | None = None) -> str:
    with pytest.raises(WeightsError) as error:
        fit(path, key)
    return str(error.value)


def assert_taken(found: FittedWeights, state: State) -> None:
    assert found.state.keys() == STATE.keys()
    assert all(torch.equal(found.state[name], value) for name, value in state.items())


# Where the state dict lies


@pytest.mark.parametrize("name", ["w", "w.pth", "w.pt", "w.bin", "w.ckpt", "w.pth.tar", "w.pkl"])
@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors"])
def test_a_state_dict_is_read_whatever_its_suffix(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=kind == "torch")
    found = fit(tmp_path / name)
    assert_taken(found, STATE)
    assert found.notes == ()


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema",
     "model_ema", "state_dict_ema", "ema_state_dict", "teacher", "student", "anything"],
)  # fmt: skip
def test_the_only_state_dict_is_taken_and_its_key_is_said(tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, key: STATE}, tmp_path / "w")
    found = fit(tmp_path / "w")
    assert_taken(found, STATE)
    assert f"the state dict under '{key}' of" in found.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        {"ckpt": {"inner": {"state_dict": STATE}}},
        (3, STATE),
        [{"model": STATE}],
        {"state_dict": STATE, "class_weights": torch.ones(3)},
        {
            "model": STATE,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 3, 3, 3)}}, "param_groups": []},
        },
    ],
)
def test_a_state_dict_is_found_in_any_nesting(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w")
    assert_taken(fit(tmp_path / "w"), STATE)


@pytest.mark.parametrize(
    ("content", "other"),
    [
        ({"model": STATE, "model_ema": AVERAGE}, "model_ema"),
        ({"ema": AVERAGE, "state_dict": STATE}, "ema"),
        ({"model": STATE, "ema": put("module.", AVERAGE)}, "ema.module"),
        ({"student": put("module."), "teacher": AVERAGE}, "teacher"),
        ({"a": {"net": STATE, "ema": {"weights": AVERAGE}}}, "a.ema.weights"),
        ({"state_dict": {**put("model."), **put("ema_model.", AVERAGE)}}, "state_dict.ema_model"),
        ({**put("teacher.", AVERAGE), **put("student.")}, "teacher"),
        ({"first": STATE, "second": AVERAGE}, "second"),
    ],
)
def test_what_lies_beside_is_named_and_chosen_by_its_key(
    tmp_path: Path, content: Any, other: str
) -> None:
    torch.save(content, tmp_path / "w")
    found = fit(tmp_path / "w")
    assert_taken(found, STATE)
    assert f"--weights-key {other}" in " ".join(found.notes)
    chosen = fit(tmp_path / "w", other)
    assert_taken(chosen, AVERAGE)
    assert f"'{other}'" in chosen.notes[0]


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"model": STATE, "model_ema": STATE}, "modl", "did you mean 'model'. .*model, model_ema"),
        ({"model": {"net": STATE}}, "model.nt", "accepted: model.net"),
        ({"model": STATE, "epoch": 3}, "epoch", "accepted: model"),
        (STATE, "state_dict", "accepted: block, conv, fc"),
    ],
)
def test_a_wrong_key_names_those_that_exist(
    tmp_path: Path, content: Any, key: str, message: str
) -> None:
    torch.save(content, tmp_path / "w")
    assert re.search(f"^--weights-key '{key}': .*{message}", refusal(tmp_path / "w", key))


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "base_model.model.",
     "module._orig_mod.model.", "trainer.model.module.network."],
)  # fmt: skip
@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}])
def test_a_prefix_is_taken_off_and_said(
    tmp_path: Path, prefix: str, wrap: Callable[[State], Any]
) -> None:
    torch.save(wrap(put(prefix)), tmp_path / "w")
    found = fit(tmp_path / "w")
    assert_taken(found, STATE)
    assert f"the prefix {prefix!r} is taken off its names" in found.notes


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({**put("model."), "criterion.weight": torch.ones(3)}, "the network: criterion.weight"),
        ({**put("model."), "extra.head.bias": torch.ones(3)}, "the network: extra.head.bias"),
        ({**STATE, "val_acc.tp": torch.ones(3)}, "the network: val_acc.tp"),
        ({**STATE, "total_ops": torch.zeros(1), "epoch": 3}, "as no tensors: epoch"),
        (averaged(), "the network: n_averaged"),
        (
            {**put("model.backbone.", only("conv", "block")), **put("model.", only("fc"))},
            "'model.backbone.' is taken off those of its names that have it",
        ),
        ({**put("backbone.", only("conv", "block")), **only("fc")}, "those of its names"),
        ({**put("block._orig_mod.", {n[6:]: v for n, v in only("block").items()}),
          **only("conv", "fc")}, "'block._orig_mod.0.weight' as 'block.0.weight'"),
        ({**put("module.block.module.", {n[6:]: v for n, v in only("block").items()}),
          **put("module.", only("conv", "fc"))}, "read as the network writes them"),
    ],
)  # fmt: skip
def test_what_is_left_out_or_renamed_is_said(tmp_path: Path, content: Any, note: str) -> None:
    torch.save(content, tmp_path / "w")
    found = fit(tmp_path / "w")
    assert_taken(found, STATE)
    assert note in " ".join(found.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**STATE, "block.2.weight": torch.ones(4)}, 'Unexpected key "block.2.weight"'),
        ({**STATE, "neck.weight": torch.ones(4)}, 'Unexpected key "neck.weight"'),
        (put("model.", {**STATE, "neck.bias": torch.ones(4)}), 'key "model.neck.bias"'),
        (only("conv", "fc"), "Missing key"),
        ({**STATE, "conv.weight": torch.ones(4, 1, 3, 3)}, r"conv.weight. is \(4, 1, 3, 3\)"),
    ],
)
def test_what_does_not_fit_whole_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w")
    said = refusal(tmp_path / "w")
    assert re.search(message, said)
    assert len(said) < 600


# Values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_served_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in STATE.items()}
    torch.save(state, tmp_path / "w")
    found = fit(tmp_path / "w")
    assert_taken(found, {name: value.float() for name, value in state.items()})
    assert found.state["fc.weight"].dtype == torch.float32
    assert found.notes == (f"the weights are {str(dtype)[6:]}; they are served as float32",)


def quantised_tensor() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc.weight", torch.ones(3, 4, dtype=torch.int8), "quantised network: 'fc.weight'"),
        ("fc.weight", torch.ones(3, 4).to(torch.float8_e4m3fn), "quantised network: 'fc.weight'"),
        ("fc.weight", quantised_tensor(), "quantised network: 'fc.weight'"),
        ("fc._packed_params._packed_params", (quantised_tensor(), None), "'fc._packed_params"),
        ("fc.weight", torch.full((3, 4), torch.nan), "has NaN in 'fc.weight'"),
        ("block.1.running_var", torch.full((4,), torch.inf), "infinity in 'block.1.running_var'"),
        ("fc.weight", torch.full((3, 4), 1e300, dtype=torch.float64), "too large for float32"),
        ("fc.weight", torch.ones(3, 4, device="meta"), "'fc.weight' without its values"),
        ("fc.weight", torch.ones(3, 4, dtype=torch.complex64), "tensor of torch.complex64"),
    ],
)
def test_values_that_cannot_be_served_are_named(
    tmp_path: Path, name: str, value: Any, message: str
) -> None:
    torch.save({**STATE, name: value}, tmp_path / "w")
    assert message in refusal(tmp_path / "w")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("teacher", "the weights of a teacher"),
        ("target_network", "the weights of a target network"),
        ("encoder_k", "the weights of a momentum copy"),
        ("model_ema", "an average of the weights"),
        ("swa_model", "an average of the weights"),
    ],
)
def test_a_copy_that_is_not_taken_is_called_what_it_is(tmp_path: Path, key: str, what: str) -> None:
    torch.save({"model": STATE, key: AVERAGE}, tmp_path / "w")
    found = fit(tmp_path / "w")
    assert_taken(found, STATE)
    assert f"under {key!r} ({what}); to take those: --weights-key {key}" in found.notes[1]


@pytest.mark.parametrize("key", ["teacher", "model_ema"])
def test_a_copy_that_does_not_fit_is_called_what_it_is(tmp_path: Path, key: str) -> None:
    torch.save({"model": STATE, key: only("conv")}, tmp_path / "w")
    what = {"teacher": "the weights of a teacher", "model_ema": "an average of the weights"}[key]
    (*_, note) = fit(tmp_path / "w").notes
    assert note == f"{what} under {key!r} is not taken, as it does not fit"


def lazy() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))


class RaisesState(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("no state")


class NoState(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return None


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lazy, "has '2.weight' without a shape, as of a LazyLinear .*; accepted: a callable that "),
        (lambda: RaisesState(3, 3), "fails where its state dict is made: KeyError: .*; accepted: "),
        (lambda: NoState(3, 3), "fails where its state dict is made: TypeError: .*; accepted: "),
    ],
)
def test_a_network_without_tensors_to_load_is_refused(
    make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(WeightsError, match=f"the network my:net {message}"):
        fit_weights(make(), Checkpoint.of(STATE), "my:net", 3, True)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is no file but a pipe or a device; accepted: a state dict" in refusal(tmp_path / "pipe")


def test_counts_that_only_training_uses_may_be_missing(tmp_path: Path) -> None:
    torch.save({n: v for n, v in STATE.items() if "num_batches" not in n}, tmp_path / "w")
    assert_taken(fit(tmp_path / "w"), STATE)


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet1_3"])
@pytest.mark.parametrize("kind", ["torch", "safetensors", "prefixed"])
def test_mnasnet_keeps_its_version(tmp_path: Path, name: str, kind: str) -> None:
    state = models.get_model(name, num_classes=3).state_dict()
    if kind == "safetensors":
        save_file(state, tmp_path / "w")
    else:
        torch.save(put("module.", state) if kind == "prefixed" else state, tmp_path / "w")
    built = models.get_model(name, num_classes=3)
    found = fit_weights(built, Checkpoint.read(tmp_path / "w"), name, 3, True)
    assert all(torch.equal(found.state[key], value) for key, value in state.items())


def test_densenets_old_names_are_read(tmp_path: Path) -> None:
    state = models.densenet121(num_classes=3).state_dict()
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
    torch.save({old.sub(r"\1.\2.", name): value for name, value in state.items()}, tmp_path / "w")
    built = models.densenet121(num_classes=3)
    found = fit_weights(built, Checkpoint.read(tmp_path / "w"), "densenet121", 3, True)
    assert torch.equal(
        found.state["features.denseblock1.denselayer1.norm1.weight"],
        state["features.denseblock1.denselayer1.norm1.weight"],
    )


# Objects beside the tensors


class Unknown:
    """Of a class that no list of harmless ones has."""


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=0.1, root=PurePosixPath("/data")),
        np.float64(0.5), np.arange(3), np.random.default_rng(0).random(2).dtype, np.str_("adam"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), Path("/data"), {1, 2}, frozenset([1]),
        defaultdict(list, a=[1]), OrderedDict(a=1), torch.optim.Adam(network().parameters()),
        torch.float16, torch.device("cpu"), datetime.timedelta(1), np.array(["a", None], object),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_harmless_objects_beside_the_tensors_are_let_through(
    tmp_path: Path, value: Any, legacy: bool
) -> None:
    torch.save(
        {"state_dict": STATE, "hyper_parameters": {"value": value}},
        tmp_path / "w",
        _use_new_zipfile_serialization=not legacy,
    )
    assert_taken(fit(tmp_path / "w"), STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_unknown_class_is_named(tmp_path: Path, legacy: bool) -> None:
    torch.save(
        {"model": STATE, "config": Unknown()},
        tmp_path / "w",
        _use_new_zipfile_serialization=not legacy,
    )
    said = refusal(tmp_path / "w")
    assert "test_checkpoint.Unknown beside tensors" in said
    assert "torch.save(content['model'], 'weights.pth')" in said
    assert "weights_only" not in said


def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(network())


def exported() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = dict(network().named_children())
            fc = parts.pop("fc")
            pool, flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
            self.net = nn.Sequential(OrderedDict(**parts, pool=pool, flat=flat, fc=fc))

        def forward(self, photos: Tensor) -> Tensor:
            scores: Tensor = self.net(photos)
            return scores

    return torch.export.export(Net().eval(), (torch.zeros(1, 3, 8, 8),))


#: What is recognised, and written to a path.
OTHER_KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "module": (lambda path: torch.save(network(), path), "a whole pickled module"),
    "module beside": (
        lambda path: torch.save({"model": network(), "epoch": 1}, path),
        "a whole pickled module",
    ),
    "TorchScript": (lambda path: torch.jit.save(scripted(), path), "it is TorchScript"),
    "npz": (lambda path: save_npz(path), "NumPy arrays"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(arrays())), "torch.save did not write"),
}


def arrays() -> dict[str, Any]:
    return {name: value.numpy() for name, value in STATE.items()}


def save_npz(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **arrays())


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_the_lines_that_a_refusal_gives_make_a_state_dict(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, message = OTHER_KINDS[kind]
    write(tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert message in said
    assert "weights_only" not in said
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line[4:] for line in said.splitlines()[1:]), {})  # noqa: S102
    assert fit(tmp_path / "weights.pth").state.keys() == STATE.keys()


@pytest.mark.slow
def test_an_exported_program_is_refused_with_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported(), tmp_path / "w.pt2")
    said = refusal(tmp_path / "w.pt2")
    assert "a program of torch.export (.pt2)" in said
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("\n".join(line[4:] for line in said.splitlines()[1:]), {})  # noqa: S102
    assert fit(tmp_path / "weights.pth").notes == ("the prefix 'net.' is taken off its names",)


def saved(content: Any, **options: Any) -> bytes:
    path = Path("saved")
    torch.save(content, path, **options)
    return path.read_bytes()


def zipped(name: str) -> bytes:
    with zipfile.ZipFile("zipped", "w") as packed:
        packed.writestr(name, b"content")
    return Path("zipped").read_bytes()


def with_a_bit_changed(content: bytes) -> bytes:
    """A file with another bit in the middle, where its tensor is."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "it is empty"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "a Git LFS pointer"),
        (lambda: b"/annex/objects/SHA256E-s1--abc.pth\n", "a git-annex pointer"),
        (lambda: b"\n<!DOCTYPE html><title>Sign in</title>", "an HTML page .its title: 'Sign in'"),
        (lambda: b"<html><body>404</body></html>", "an HTML page"),
        (lambda: b"<?xml version='1'?><Error><Code>AccessDenied</Code>", "XML .'AccessDenied'"),
        (lambda: b'{"error": "not found"}', "is JSON, not weights"),
        (lambda: b"import torch\n", "a text that begins with 'import torch"),
        (lambda: saved(STATE)[:-100], "cut off or damaged"),
        (lambda: saved(STATE, _use_new_zipfile_serialization=False)[:-100], "cut off or damaged"),
        (lambda: with_a_bit_changed(saved({"w": torch.zeros(999)})), "is damaged: .*checksum"),
        (lambda: saved(STATE, pickle_protocol=4), "another pickle protocol"),
        (lambda: zipped("weights/model.pth"), "contains weights/model.pth; unpack it"),
        (lambda: zipped("MAR-INF/MANIFEST.json"), "a model archive"),
        (lambda: zipped("model.weights.h5"), "a Keras model"),
        (lambda: zipped("word/document.xml"), "a zip file of another program"),
        (lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "HDF5, as Keras"),
        (lambda: b"\x93NUMPY\x01\x00", "a single NumPy array"),
        (lambda: b"\x08\x07\x12\x07pytorch" + b"\x00\xff" * 9, "an ONNX model"),
        (lambda: b"\x1f\x8b\x08\x00" + b"\0" * 9, "compressed with gzip; unpack it"),
        (lambda: b"GGUF\x03\x00\x00\x00", "GGUF"),
        (lambda: b"\x00\x01\x02\xff" * 9, "of no kind that is known"),
        (lambda: saved(torch.ones(3)), "a single tensor"),
        (lambda: saved({"epoch": 3}), "no state dict; it has 'epoch'"),
        (lambda: saved({}), "it is empty"),
        (lambda: saved({0: torch.zeros(1)}), "a tensor named 0, which is no text"),
    ],
)
def test_a_file_that_is_no_state_dict_is_recognised(
    tmp_path: Path, content: Callable[[], bytes], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(content())
    said = refusal(tmp_path / "w.pth")
    assert re.search(message, said)
    assert "weights_only" not in said


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("model.safetensors", "is a folder; accepted: a file, as .*model.safetensors"),
        ("saved_model.pb", "TensorFlow's SavedModel"),
        (".metadata", "a folder of torch.distributed.checkpoint"),
    ],
)
def test_a_folder_is_no_file(tmp_path: Path, inside: str, message: str) -> None:
    (tmp_path / inside).write_bytes(b"x")
    assert re.search(message, refusal(tmp_path))
