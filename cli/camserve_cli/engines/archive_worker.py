"""Answer photos with the archive in the working directory, over two pipes.

    python -P archive_worker.py REQUESTS REPLIES

REQUESTS and REPLIES are numbers of open files. A line of REQUESTS is a JSON list of
``{"path": .., "options": {..}}`` or ``{"b64": .., "options": {..}}``; the line of REPLIES that
follows it is the JSON list of the answers. The first line of REPLIES is the model's description, or
``{"error": ..}``. :mod:`archive_engine` runs this file by itself, in a Python that has the archive
on its path and nothing else of this project.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Answerer = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


def load() -> tuple[dict[str, Any], Answerer]:
    """The archive's description, and what answers a batch of requests."""
    import torch
    import yaml

    import camserve
    from camserve.pipeline import Pipeline
    from camserve.protocols import IncomingRequest, ModelBody

    if not Path(camserve.__file__).is_relative_to(Path.cwd()):
        raise ImportError("the archive does not hold the package camserve")
    manifest = json.loads(Path("MAR-INF/MANIFEST.json").read_text("utf-8"))["model"]
    config = yaml.safe_load(Path(manifest["configFile"]).read_text("utf-8"))
    model = ModelBody(name=manifest["modelName"], version=manifest["modelVersion"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = Pipeline.load(config, Path(), model, device)

    def answer(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = [{} for _ in requests]
        rows, places = [], []
        for place, request in enumerate(requests):
            try:
                body = (
                    Path(request["path"]).read_bytes()
                    if "path" in request
                    else base64.b64decode(request["b64"])
                )
            except OSError as failure:
                message = f"cannot be read: {failure.strerror or failure}"
                answers[place] = {"error": {"code": "local_error", "message": message}}
                continue
            headers = {"x-explain": json.dumps(request["options"])}
            rows.append(IncomingRequest({"body": body}, headers))
            places.append(place)
        if rows:
            replies = pipeline.postprocess(pipeline.inference(pipeline.preprocess(rows)))
            for place, reply in zip(places, replies, strict=True):
                answers[place] = json.loads(reply.body)
        return answers

    description = json.loads(pipeline.describe().body)
    return {**description, "batch": pipeline.batch_size}, answer


def serve(requests: int, replies: int) -> None:
    """Answer until the other end closes its pipe."""
    with open(requests, encoding="utf-8") as lines, open(replies, "w", encoding="utf-8") as out:

        def write(message: object) -> None:
            out.write(f"{json.dumps(message)}\n")
            out.flush()

        try:
            description, answer = load()
        except BaseException as failure:
            # Code of others may raise what is no Exception.
            write({"error": f"{type(failure).__name__}: {failure}"})
            return
        write(description)
        for line in lines:
            write(answer(json.loads(line)))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
