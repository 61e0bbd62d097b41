"""A TorchServe that ``camserve serve`` started: find it, ask it, authorize to it, stop it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from camserve_cli.errors import CommandError
from camserve_cli.paths import RUN_DIR, command_line
from camserve_cli.serving import ready
from camserve_cli.serving.certificates import LOOPBACK, PinnedHostContext
from camserve_cli.serving.front_process import FrontProcess
from camserve_cli.serving.processes import living_process
from camserve_cli.serving.tokens import Token, TokenError, current_token


class ServerError(CommandError):
    """What keeps a server from starting or answering, in words for the person who runs it."""


@dataclass(frozen=True)
class LocalServer:
    """A TorchServe that was started here.

    Attributes:
        pid, started: its Java process; the start time tells it from a later process of that id.
        scratch: its temporary directory, removed when it stops.
        inference, management: base URLs.
        grpc: host:port of the inference service.
        models: the names it serves.
        authority, name: with TLS, the file of the authority that clients trust, and the name in the
            certificate; empty without.
        token_lifetime: of a new token, in seconds.
        front: the Open Inference front before it; None where none was started.
    """

    pid: int
    started: float
    scratch: str
    inference: str
    management: str
    grpc: str
    models: list[str]
    authority: str = ""
    name: str = ""
    token_lifetime: float = 3600.0
    front: FrontProcess | None = None

    @classmethod
    def last_started(cls) -> LocalServer | None:
        """The server that was started in RUN_DIR and not stopped; it may have died since.

        Raises:
            ServerError: the file that notes it is damaged.
        """
        file = RUN_DIR / "server.json"
        try:
            noted = json.loads(file.read_text("utf-8"))
            front = noted.get("front")
            return cls(**{**noted, "front": FrontProcess(**front) if front else None})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError):
            raise ServerError(
                f"{file} is damaged; end the TorchServe that was started there, if it runs, by its "
                "process id, and remove the file"
            ) from None

    @classmethod
    def running(cls) -> LocalServer | None:
        """The server of RUN_DIR, if it runs."""
        server = cls.last_started()
        return server if server and server.process() else None

    def process(self) -> psutil.Process | None:
        """The server's process, while it lives."""
        return living_process(self.pid, self.started)

    def save(self) -> None:
        partial = RUN_DIR / "server.json.partial"
        partial.write_text(json.dumps(asdict(self), indent=2), "utf-8")
        partial.replace(RUN_DIR / "server.json")

    def token(self, kind: str = "inference") -> str:
        """The text of :meth:`current_token`."""
        return self.current_token(kind).text

    def current_token(self, kind: str = "inference", *, replace: bool = False) -> Token:
        """The current token, or a new one if that is in the last tenth of its life or last minute.

        Args:
            kind: ``inference`` or ``management``.
            replace: whether to end one that is still good, too.

        Raises:
            ServerError: the file of tokens cannot be read, or the management API gives none.
        """

        def renew(key: str) -> None:
            self._manage("GET", "/token", key, type=kind)

        try:
            return current_token(RUN_DIR, kind, self.token_lifetime, renew, replace=replace)
        except TokenError as failure:
            raise ServerError(str(failure)) from None

    def trust(self) -> PinnedHostContext | None:
        """What verifies its certificate; None where it speaks no TLS."""
        return PinnedHostContext.of(self.authority, self.name) if self.authority else None

    def workers(self, model: str) -> list[str]:
        """The state of each of a model's workers, in TorchServe's words.

        Raises:
            ServerError: the management API does not answer.
        """
        return [worker["status"] for worker in self.describe(model)["workers"]]

    def describe(self, model: str, *, customized: bool = False) -> dict[str, Any]:
        """What TorchServe says of a model, and with ``customized`` what the model says of itself.

        Raises:
            ServerError: the management API does not answer.
        """
        query = {"customized": "true"} if customized else {}
        return dict(self._manage("GET", f"/models/{model}", **query).json()[0])

    def scale(self, model: str, workers: int) -> None:
        """Have TorchServe start, or end, a model's workers until there are so many.

        It does not wait for them: TorchServe would keep one of its few threads, and whoever is
        served by that, waiting as well. It is safe to ask again, as TorchServe fails now and then
        while its list of workers changes.

        Raises:
            ServerError: the management API does not answer, or refuses.
        """
        count = str(workers)
        self._manage("PUT", f"/models/{model}", min_worker=count, max_worker=count)

    def is_loaded(self, model: str) -> bool:
        """Whether all the workers that a model is to have are ready.

        Raises:
            ServerError: the management API does not answer.
        """
        told = self.describe(model)
        states = [worker["status"] for worker in told["workers"]]
        return len(states) >= told["minWorkers"] and set(states) == {"READY"}

    def is_ready(self, model: str) -> bool:
        """Whether a model answers a real prediction."""
        return self.why_not_ready(model) is None

    def why_not_ready(self, model: str, timeout: float = 10) -> str | None:
        """Why a model does not answer a real prediction in so many seconds; None where it does."""
        try:
            address = ready.Address(self.inference, timeout, self.trust())
            ready.check_ready(address, model, self.token())
        except (ready.NotReadyError, ServerError) as failure:
            return str(failure)
        return None

    def how_to_call(self, model: str, photo: str) -> str:
        """The commands to go on with, for a person to paste."""
        verified, base, camserve = "", self.inference, command_line()
        if self.authority:
            address = urlsplit(self.inference)
            base = f"https://{self.name}:{address.port}"
            verified = f"--cacert {quote(self.authority)} "
            if self.name not in LOOPBACK:
                verified += f"--resolve {self.name}:{address.port}:{address.hostname} "
        return (
            "Explain a photo:\n"
            f'  curl -H "Authorization: Bearer $({camserve} serve token)" '
            f"{verified}-T {photo} {base}/predictions/{model}\n"
            "Stop it:\n"
            f"  {camserve} serve stop"
        )

    def stop(self) -> None:
        """End the front, Java and its workers, by their ids, and remove what only they needed."""
        if self.front:
            # First, so that it can answer what is in work.
            self.front.stop()
        process = self.process()
        if process:
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, alive = psutil.wait_procs(family, timeout=20)
            for one in alive:
                one.kill()
            psutil.wait_procs(alive, timeout=10)
        shutil.rmtree(self.scratch, ignore_errors=True)
        for leftover in ("server.json", "key_file.json"):
            (RUN_DIR / leftover).unlink(missing_ok=True)

    def _manage(
        self, method: str, path: str, token: str | None = None, **query: str
    ) -> httpx.Response:
        """Call the management API, with its own token unless another is given."""
        try:
            reply = httpx.request(
                method,
                f"{self.management}{path}",
                params=query,
                headers={"Authorization": f"Bearer {token or self.token('management')}"},
                verify=self.trust() or True,
                # Not through a proxy that the environment names: it is this machine.
                trust_env=False,
                timeout=30,
            )
            reply.raise_for_status()
        except httpx.HTTPError as failure:
            raise ServerError(f"the management API does not answer: {failure}") from failure
        return reply
