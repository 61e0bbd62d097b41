"""A model that answers a command's photos, many at once.

There are two: :mod:`archive_engine` runs an archive of the model store, :mod:`server_engine` calls
a server. Both give the replies that a server gives, as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from camserve_cli.errors import CommandError

#: The reply to a photo, or ``{"error": {"code", "message", ..}}``.
Answer = dict[str, Any]


class EngineError(CommandError):
    """The model does not answer any more, or never did."""


class EngineCallError(EngineError):
    """The model that was named cannot be used."""

    exit_status = 2


@dataclass(frozen=True)
class Question:
    """A photo to ask about.

    Attributes:
        photo: a file's path, or the bytes of one.
        options: of the request, by name.
    """

    photo: Path | bytes
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model.

    Attributes:
        name, version: as replies carry them.
        classes: the labels, by index.
        wnids: the WordNet IDs, by index; empty where the labels have none.
        task: ``multiclass``, ``multilabel`` or ``binary``.
        threshold: from which probability on a label is predicted; of ``multilabel``.
        weights_sha256: of the weights; empty where the server does not tell.
        preprocess: the archive's ``handler.preprocess``; None where the server does not tell.
        options: the names of the options that it takes; empty where the server does not tell.
        formats: of the photos that it reads, in capitals.
        forwards: how many forward passes of masked photos a request may take.
        max_targets: how many scores of a photo it explains at most.
        digest: of all that its answers depend on beside the weights; empty where the server does
            not tell.
    """

    name: str
    version: str
    classes: Sequence[str]
    wnids: Sequence[str] = ()
    task: str = "multiclass"
    threshold: float = 0.5
    weights_sha256: str = ""
    preprocess: Mapping[str, Any] | None = None
    options: Sequence[str] = ()
    formats: Sequence[str] = ("JPEG", "PNG")
    forwards: int = 64
    max_targets: int = 16
    digest: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> ModelDescription:
        """From what a model says of itself."""
        model = told["model"]
        preprocess = {
            key: value for key, value in told["preprocess"].items() if key != "input_size"
        }
        return cls(
            name=model["name"],
            version=model["version"],
            classes=tuple(told["classes"]),
            wnids=tuple(told.get("wnids", ())),
            task=model.get("task", "multiclass"),
            threshold=model.get("decision_threshold", 0.5),
            weights_sha256=model.get("weights_sha256", ""),
            preprocess=preprocess,
            options=tuple(told["options"]["properties"]),
            formats=tuple(told.get("formats", cls.formats)),
            max_targets=told.get("limits", {}).get("targets", cls.max_targets),
            digest=_digest(told),
            forwards=told["limits"].get("forwards", cls.forwards),
        )


def _digest(told: Mapping[str, Any]) -> str:
    """Of the labels, layers, preprocessing, task and defaults that a model tells of itself."""
    parts = [told.get(name) for name in ("classes", "wnids", "layers", "preprocess", "options")]
    meaning = [told["model"].get(name) for name in ("task", "decision_threshold", "output")]
    return hashlib.sha256(json.dumps([parts, meaning], sort_keys=True).encode()).hexdigest()


class Engine(Protocol):
    """A model that answers."""

    @property
    def description(self) -> ModelDescription:
        """What is known of the model."""

    @property
    def batch(self) -> int:
        """How many photos to ask about at once, so that it is kept busy."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions.

        Raises:
            EngineError: the model answers nothing at all.
        """

    def close(self) -> None:
        """End what was started."""
