"""A folder of a Hugging Face image classifier: its network, weights, labels and preprocessing.

Nothing is downloaded, and no code in the folder runs.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import short_repr
from camserve.networks import is_hf_model
from camserve_cli.packaging.errors import PackageError, WeightsError, first_line
from camserve_cli.packaging.hf_processor import PREPROCESSOR, HfProcessor, be_quiet
from camserve_cli.packaging.label_files import differing_label, half_character

_CONFIG = "config.json"
#: Keys of config.json that say nothing of the network: the labels, which travel as the archive's
#: own, and where the file came from.
_NOT_OF_THE_NETWORK = ("id2label", "label2id", "_name_or_path", "transformers_version", "auto_map")
#: The files that weights lie in; in parts, they have a number and an index.
_WEIGHTS = ("*.safetensors", "*.bin")
_LFS = b"version https://git-lfs"
_ACCEPTED_WEIGHTS = "model.safetensors or pytorch_model.bin, whole or in parts with their index"


@dataclass(frozen=True)
class HfFolder:
    """A local folder as ``save_pretrained`` of transformers writes it.

    Attributes:
        folder: with config.json, preprocessor_config.json and weights.
        config: the content of config.json.
    """

    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> HfFolder:
        """Read a folder's config.json.

        Raises:
            PackageError: there is none, or transformers alone cannot build its network.
            SettingsError: transformers is not installed, or does not know the type.
        """
        config = _read_json(folder, _CONFIG)
        model_type = config.get("model_type")
        if not isinstance(model_type, str):
            raise PackageError(
                f"{folder / _CONFIG} names no model_type; accepted: the config.json of an image "
                "classifier of transformers, or of timm (with the key architecture)"
            )
        one = cls(folder, config)
        try:
            is_hf_model(one.arch, one.arch_kwargs)
        except ValueError as error:
            code = "; the folder has code of its own (auto_map), which is never run"
            raise PackageError(f"{error}{code if 'auto_map' in config else ''}") from None
        if model_type not in _classifier_types():
            raise PackageError(
                f"{folder / _CONFIG}: transformers has no image classifier of the type "
                f"{model_type!r}; accepted: one of {', '.join(sorted(_classifier_types()))}"
            )
        if quantised := config.get("quantization_config"):
            method = quantised.get("quant_method") if isinstance(quantised, dict) else None
            raise PackageError(
                f"{folder / _CONFIG}: the network is quantised (quantization_config, "
                f"{method or 'of some method'}); accepted: the folder of the float network that it "
                "was quantised from"
            )
        if config.get("problem_type") == "regression":
            raise PackageError(
                f"{folder / _CONFIG}: problem_type is regression, which has no classes; accepted: "
                "single_label_classification or multi_label_classification"
            )
        return one

    @property
    def arch(self) -> str:
        """For ``handler.arch``."""
        return f"hf:{self.config['model_type']}"

    @property
    def arch_kwargs(self) -> dict[str, Any]:
        """For ``handler.arch_kwargs``: the configuration of the network."""
        return {key: value for key, value in self.config.items() if key not in _NOT_OF_THE_NETWORK}

    @property
    def requires(self) -> dict[str, str]:
        """The package that the archive needs, with its version."""
        return {"transformers": version("transformers")}

    @property
    def task(self) -> str:
        """For ``handler.task``."""
        multilabel = self.config.get("problem_type") == "multi_label_classification"
        return "multilabel" if multilabel else "multiclass"

    def notes(self) -> tuple[str, ...]:
        """What is left out of the folder, and what is taken for granted."""
        notes = []
        if "auto_map" in self.config:
            notes.append(
                "the folder has code of its own (auto_map), which is never run: the network is "
                f"transformers' own of the type {self.config['model_type']}"
            )
        if (name := differing_label(self.config)) is not None:
            notes.append(f"id2label, which is taken, and label2id differ, in {short_repr(name)}")
        if self.task != "multiclass":
            notes.append(f"handler.task is {self.task}, as problem_type says")
        return tuple(f"{self.folder / _CONFIG}: {note}" for note in notes)

    def labels(self) -> tuple[str, ...]:
        """The classes' names by index; empty where config.json has none.

        Raises:
            PackageError: they are not numbered from 0 on, or are no texts.
        """
        given = self.config.get("id2label")
        if not given:
            return ()
        accepted = 'accepted: {"0": "name", "1": ..}, one for each class, or --labels'
        try:
            by_index = {int(index): name for index, name in given.items()}
            names = [by_index[index] for index in range(len(given))]
        except (AttributeError, KeyError, ValueError):
            raise PackageError(
                f"{self.folder / _CONFIG}: id2label is not numbered from 0 on; {accepted}"
            ) from None
        if not all(isinstance(name, str) for name in names):
            raise PackageError(
                f"{self.folder / _CONFIG}: id2label holds what is no text; {accepted}"
            )
        if half := next(filter(None, map(half_character, names)), ""):
            raise PackageError(f"{self.folder / _CONFIG}: id2label has {half}; {accepted}")
        return tuple(names)

    @cached_property
    def network(self) -> nn.Module:
        """The network as transformers builds it from the folder, in eval mode.

        Raises:
            WeightsError: there are no weights, or they lack some of the network's.
        """
        import transformers

        be_quiet(transformers)
        self._check_files()
        config = self._hf_config
        try:
            network, report = transformers.AutoModelForImageClassification.from_pretrained(
                self.folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                # Told below, by name.
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
            )
        except pickle.UnpicklingError:
            # Of more than tensors; torch's own words would have its check turned off.
            raise WeightsError(
                f"the weights in {self.folder} hold more than a state dict of tensors, and code in "
                f"them is never run; accepted: {_ACCEPTED_WEIGHTS}"
            ) from None
        except Exception as failure:
            # Of several libraries, for a cut or a foreign file.
            raise WeightsError(
                f"transformers cannot load the weights in {self.folder}: {first_line(failure)}; "
                f"accepted: {_ACCEPTED_WEIGHTS}"
            ) from None
        missing = sorted(report["missing_keys"])
        wrong = [
            f"{name} is {tuple(given)} instead of {tuple(expected)}"
            for name, given, expected in sorted(report["mismatched_keys"])
        ]
        if missing or wrong:
            some = ", ".join((missing or wrong)[:3])
            more = " and more" if len(missing or wrong) > 3 else ""
            raise WeightsError(
                f"the weights in {self.folder} do not fit {type(network).__name__} of its "
                f"{_CONFIG} with {network.config.num_labels} labels: {some}{more}"
                f"{' would stay untrained' if missing else ''}; accepted: the folder that "
                "save_pretrained of the trained image classifier wrote"
            )
        evaluated: nn.Module = network.eval()
        return evaluated

    @cached_property
    def _hf_config(self) -> Any:
        """The configuration that transformers makes of config.json.

        Raises:
            PackageError: transformers does not accept it.
        """
        from transformers import CONFIG_MAPPING

        # Of several classifiers of a type, transformers takes the one that is named here.
        content = {**self.config, "architectures": self.config.get("architectures") or []}
        try:
            return CONFIG_MAPPING[self.config["model_type"]].from_dict(content)
        except Exception as failure:
            # Of the checks of each configuration's class.
            reason = " ".join(str(failure).split())[:300]
            raise PackageError(
                f"{self.folder / _CONFIG} is no configuration of transformers' for "
                f"{self.config['model_type']}: {reason}; accepted: the {_CONFIG} that "
                "save_pretrained of the image classifier wrote"
            ) from None

    def _check_files(self) -> None:
        """Refuse a folder whose weights are missing, or were not fetched from Git LFS."""
        files = [file for pattern in _WEIGHTS for file in sorted(self.folder.glob(pattern))]
        if not files:
            raise WeightsError(f"{self.folder} has no weights; accepted: {_ACCEPTED_WEIGHTS}")
        for file in files:
            with file.open("rb") as stream:
                if stream.read(len(_LFS)) == _LFS:
                    raise WeightsError(
                        f"{file} is a pointer of Git LFS, not the weights; accepted: the file that "
                        "git lfs pull fetches"
                    )

    @cached_property
    def processor(self) -> HfProcessor:
        """How transformers prepares photos for the network.

        Raises:
            PresetError: the folder does not say.
        """
        return HfProcessor.open(self.folder)

    def state(self) -> dict[str, Tensor]:
        """The state dict of :attr:`network`, whatever form the folder's files have."""
        return dict(self.network.state_dict())


def _classifier_types() -> set[str]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as TYPES,
    )

    return set(TYPES)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    """One of a folder's files.

    Raises:
        PackageError: it is missing, or no JSON object.
    """
    file = folder / name
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as failure:
        raise PackageError(
            f"{file}: {failure.strerror}; accepted: a local folder with {_CONFIG}, {PREPROCESSOR} "
            "and model.safetensors, as save_pretrained of the classifier and its processor write"
        ) from None
    except (ValueError, RecursionError) as failure:
        raise PackageError(
            f"{file} is no JSON: {failure}; accepted: the file that save_pretrained writes"
        ) from None
    if not isinstance(content, dict):
        raise PackageError(
            f"{file} holds no JSON object; accepted: the file that save_pretrained writes"
        )
    return content
