"""A server that answers a command's photos, so many requests at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from camserve_cli.engines.engine import (
    Answer,
    EngineCallError,
    EngineError,
    ModelDescription,
    Question,
)
from camserve_cli.server_choice import ServerChoice, open_client, server_here
from camserve_cli.serving.local_server import ServerError
from camserve_client import CamserveError, StatusError, UnavailableError

#: Requests at once, so that the server's batches fill.
IN_FLIGHT = 32
#: Options that an older server does not know, and a value of each.
_NEWER = {"faithfulness": ["drop"], "explain_when": "probability>=0"}


class ServerEngine:
    """A model of a running server.

    Args:
        choice: of the server and the model.

    Raises:
        EngineCallError: it does not answer, or not as this model.
        ServerChoiceError: there is no such server.
    """

    def __init__(self, choice: ServerChoice) -> None:
        self._choice = choice
        self._runner = asyncio.Runner()
        self._client = open_client(choice)
        self.batch = 2 * IN_FLIGHT
        try:
            self.description = self._describe()
        except BaseException:
            self.close()
            raise

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions.

        Raises:
            EngineError: the server answers none of them.
        """
        answers = self._runner.run(self._ask_all(questions))
        codes = [answer.get("error", {}).get("code") for answer in answers]
        if answers and set(codes) == {UnavailableError.code}:
            raise EngineError(answers[0]["error"]["message"])
        return answers

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        free = asyncio.Semaphore(IN_FLIGHT)

        async def ask(question: Question) -> Answer:
            async with free:
                try:
                    options: Any = question.options
                    return dict((await self._client.explain(question.photo, **options)).raw)
                except StatusError as failure:
                    error = {"code": failure.code, "status": failure.status}
                    return {"error": {**error, "message": failure.message}}
                except CamserveError as failure:
                    return {"error": {"code": failure.code, "message": str(failure)}}
                except OSError as failure:
                    reason = failure.strerror or str(failure)
                    return {
                        "error": {"code": "local_error", "message": f"cannot be read: {reason}"}
                    }

        return list(await asyncio.gather(*map(ask, questions)))

    def _describe(self) -> ModelDescription:
        """What the server's management tells, where it was started here; else by asking."""
        first = self._probe(top_k=1)
        name, version = first["model"]["name"], first["model"]["version"]
        here = server_here(self._choice)
        if here is not None:
            try:
                told = here.describe(name, customized=True).get("customizedMetadata")
            except ServerError:
                told = None
            if isinstance(told, dict):
                return ModelDescription.of(told)
        predictions = self._probe(top_k=self._count_classes())["predictions"]
        by_index = {one["class_id"]: one["label"] for one in predictions}
        total = sum(one["probability"] for one in predictions)
        return ModelDescription(
            name=name,
            version=version,
            classes=tuple(by_index[index] for index in sorted(by_index)),
            # The probabilities of classes that exclude one another sum to 1.
            task="multiclass" if abs(total - 1) < 0.01 else "multilabel",
            options=tuple(name for name, value in _NEWER.items() if self._knows(name, value)),
        )

    def _knows(self, option: str, value: Any) -> bool:
        answer = self._ask_about_grey(1, **{option: value})
        return bool(answer.get("error", {}).get("code") != "unknown_option")

    def _count_classes(self) -> int:
        """How many classes the model has: the server tells it where more are asked for."""
        error = self._ask_about_grey(top_k=10**9)["error"]["message"]
        found = re.search(r"accepted: 1 to (\d+)", error)
        if found is None:
            raise EngineCallError(f"the server does not tell how many classes it has: {error}")
        return int(found[1])

    def _probe(self, top_k: int) -> Answer:
        answer = self._ask_about_grey(top_k)
        if "error" in answer:
            raise EngineCallError(answer["error"]["message"])
        return answer

    def _ask_about_grey(self, top_k: int, **more: Any) -> Answer:
        # A JPEG, which every archive reads.
        file = BytesIO()
        Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "JPEG")
        options = {"explain": False, "top_k": top_k, **more}
        return self._runner.run(self._ask_all([Question(file.getvalue(), options)]))[0]
