"""Whether models answer: exit 0 when each made a prediction just now, 1 when not, and one line why.

    camserve ready --model resnet50
    camserve ready --model resnet50 --url https://127.0.0.1:8443 --ca ca.pem --timeout 3
    camserve ready --live

TorchServe's own /ping says Healthy while a worker is dead, hangs or cannot be loaded, so each model
is asked for a real prediction, without an explanation. With --live it is /ping that is asked: it
fails once TorchServe has given a worker up, which only a restart of TorchServe cures.

It never takes longer than --timeout. This file needs Python and nothing else: it can be copied to
where nothing is installed, and run by itself.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

T = TypeVar("T")

#: An 8x8 grey PNG.
PHOTO = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR42mNogAIGyhgAgIQgARDoahcAAAAASUVORK5C"
    "YII="
)


class NotReadyError(Exception):
    """Why not, in words for whoever reads a supervisor's log."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and how it is called.

    Attributes:
        url: ``http://host:port`` or ``https://host:port``, with a path where a proxy wants one.
        timeout: of each wait for the server, in seconds.
        trust: verifies the certificate; None for the certificates that the system trusts.
    """

    url: str
    timeout: float
    trust: ssl.SSLContext | None = None

    def call(
        self, method: str, path: str, token: str | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """The status and body of what is answered.

        Raises:
            NotReadyError: nothing is.
        """
        headers = {"X-Explain": '{"explain": false}', "Content-Type": "image/png"} if body else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            parts = urlsplit(self.url)
            connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
            try:
                connection.request(method, parts.path.rstrip("/") + path, body, headers)
                reply = connection.getresponse()
                return reply.status, reply.read()
            finally:
                connection.close()
        except TimeoutError:
            raise NotReadyError(f"{self.url} does not answer in {self.timeout:g} s") from None
        except (OSError, HTTPException, ValueError) as failure:
            raise NotReadyError(f"{self.url}: {failure or type(failure).__name__}") from None

    def _connection(self, scheme: str, host: str, port: int | None) -> HTTPConnection:
        if scheme == "https":
            trust = self.trust or ssl.create_default_context()
            return HTTPSConnection(host, port, timeout=self.timeout, context=trust)
        if scheme == "http":
            return HTTPConnection(host, port, timeout=self.timeout)
        raise ValueError("accepted is http://host:port or https://host:port")


def check_ready(address: Address, model: str, token: str | None) -> None:
    """Return once a model made a prediction.

    Raises:
        NotReadyError: it does not; why.
    """
    status, body = address.call("POST", f"/predictions/{quote(model)}", token, PHOTO)
    if status != 200:
        raise NotReadyError(_error_line(status, body))
    try:
        found = json.loads(body)["predictions"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not found:
        raise NotReadyError("HTTP 200 without predictions; is it a model of this project?")


def check_live(address: Address, token: str | None) -> None:
    """Return unless a restart of TorchServe is what it takes.

    A token that is refused is no reason: TorchServe was there to refuse it.

    Raises:
        NotReadyError: it does not answer, or says that it is not healthy.
    """
    status, body = address.call("GET", "/ping", token)
    if status >= 500:
        raise NotReadyError(_error_line(status, body))


def read_token(key_file: Path, management: Address) -> str | None:
    """The token for inference in TorchServe's key_file.json; None where there is no such file.

    A new token ends the one before, which other callers may hold, so a new one is asked for only
    when that has expired, by one process at a time.

    Raises:
        NotReadyError: the file is not what TorchServe writes, or no new token is given.
    """
    with _only_renewal(key_file.with_name("token.lock")):
        return _read_or_renew(key_file, management)


@contextmanager
def _only_renewal(file: Path) -> Iterator[None]:
    """Hold the lock of tokens, which `camserve serve token` holds as well."""
    with ExitStack() as stack:
        # The folder may be read-only, or not be there.
        with suppress(OSError):
            lock = stack.enter_context(file.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_or_renew(key_file: Path, management: Address) -> str | None:
    for last in (False, True):
        try:
            keys = json.loads(key_file.read_bytes())
            key = keys["inference"]
            expires = datetime.fromisoformat(key["expiration time"]).timestamp()
            if last or expires > time.time():
                return str(key["key"])
            api = str(keys["API"]["key"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as failure:
            # TorchServe may be writing it: the next probe reads it whole.
            raise NotReadyError(f"no token in {key_file}: {failure}") from None
        status, body = management.call("GET", "/token?type=inference", api)
        if status != 200:
            raise NotReadyError(f"no new token from {management.url}: {_error_line(status, body)}")
    return None


def _error_line(status: int, body: bytes) -> str:
    """A refusal in one line."""
    try:
        said = json.loads(body)
        message = str(said.get("error", said).get("message") or said.get("status"))
    except (ValueError, AttributeError):
        message = body[:200].decode(errors="replace")
    return f"HTTP {status}: {' '.join(message.split())[:300]}"


def run_with_deadline(
    steps: Mapping[str, Callable[[], T]], deadline: float
) -> dict[str, T | NotReadyError]:
    """What each step gives, or why it does not; all run at once, until ``time.monotonic()`` is so.

    A server that sends a byte at a time outlasts any timeout of a socket: a step that is not done
    in time is left behind.
    """
    found: dict[str, T | NotReadyError] = {}

    def run(name: str, step: Callable[[], T]) -> None:
        try:
            found[name] = step()
        except NotReadyError as failure:
            found[name] = failure

    threads = {
        name: Thread(target=run, args=(name, step), daemon=True) for name, step in steps.items()
    }
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return {name: found.get(name, NotReadyError("no answer in time")) for name in threads}


def _names(model: str | None) -> list[str]:
    """The models of --model, which commas separate."""
    return [name for name in map(str.strip, (model or "").split(",")) if name]


def _last_started(run_dir: Path) -> dict[str, str]:
    """The addresses that ``camserve serve`` noted when it started a server; empty without one."""
    try:
        noted = json.loads((run_dir / "server.json").read_bytes())
        return {name: str(noted[name]) for name in ("inference", "management", "authority")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _parse(
    arguments: Sequence[str] | None, prog: str | None, run_dir: str, environment: Mapping[str, str]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Variables can set the options too: CAMSERVE_MODEL, CAMSERVE_URL, CAMSERVE_CA, "
        "CAMSERVE_TOKEN_FILE, CAMSERVE_KEY_FILE, CAMSERVE_MANAGEMENT; and CAMSERVE_TOKEN a token.",
    )

    def option(name: str, help: str, default: str | None = None, **more: Any) -> None:
        # A variable that is set to nothing counts as not set.
        default = environment.get(f"CAMSERVE_{name.upper().replace('-', '_')}") or default
        parser.add_argument(f"--{name}", default=default, help=help, **more)

    run_dir = environment.get("RUN_DIR") or run_dir
    started = _last_started(Path(run_dir))

    def address(name: str, port: str) -> str:
        # A port that is set says more than what a server left that was started here.
        if own_port := environment.get(f"{name.upper()}_PORT"):
            return f"http://127.0.0.1:{own_port}"
        return started.get(name) or f"http://127.0.0.1:{port}"

    option("model", "NAME, or NAME,NAME; each must answer.")
    option(
        "url",
        "The inference address; by default that of the server that `camserve serve` started here, "
        "or INFERENCE_PORT on loopback.",
        address("inference", "8080"),
    )
    option(
        "ca", "Certificates to trust, where the address is https.", started.get("authority") or None
    )
    option("token-file", "A file that contains only a token.")
    option("key-file", "TorchServe's key_file.json.", f"{run_dir}/key_file.json")
    option(
        "management",
        "The management address, which renews an expired token; by default as for --url.",
        address("management", "8081"),
    )
    parser.add_argument("--timeout", type=float, default=5, help="Seconds, of all of it.")
    parser.add_argument("--live", action="store_true", help="Liveness; no model is asked.")
    parsed = parser.parse_args(arguments)
    if not parsed.live and not _names(parsed.model):
        parser.error("--model NAME is required, except with --live")
    if not 0 < parsed.timeout <= threading.TIMEOUT_MAX:
        parser.error(f"--timeout {parsed.timeout:g}: accepted is a number of seconds above 0")
    return parsed


def _trust(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """What verifies certificates, where a file of them is named."""
    try:
        return ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None
    except (OSError, ValueError) as failure:
        raise NotReadyError(f"--ca {arguments.ca}: {failure}") from None


def _token(arguments: argparse.Namespace, trust: ssl.SSLContext | None) -> str | None:
    """The token to call with; None where there is none."""
    if arguments.token_file:
        try:
            token = Path(arguments.token_file).read_text("utf-8").strip()
        except (OSError, ValueError) as failure:
            raise NotReadyError(f"--token-file: {failure}") from None
    elif not (token := os.environ.get("CAMSERVE_TOKEN", "").strip()):
        management = Address(arguments.management, arguments.timeout, trust)
        return read_token(Path(arguments.key_file), management)
    if not re.fullmatch("[!-~]+", token):
        # It stays unsaid which: what is printed is logged.
        raise NotReadyError("a token is printable ASCII without spaces or line breaks")
    return token


def _failures(arguments: argparse.Namespace) -> dict[str, NotReadyError | None]:
    """What keeps each model, or the server, from being ready or live; None where nothing does."""
    deadline = time.monotonic() + arguments.timeout
    trust = _trust(arguments)
    address = Address(arguments.url, arguments.timeout, trust)
    # Once for all models: each renewal would end the one before.
    token = run_with_deadline({"token": partial(_token, arguments, trust)}, deadline)["token"]
    if isinstance(token, NotReadyError):
        raise NotReadyError(f"token: {token}")
    if arguments.live:
        return run_with_deadline({"TorchServe": partial(check_live, address, token)}, deadline)
    return run_with_deadline(
        {name: partial(check_ready, address, name, token) for name in _names(arguments.model)},
        deadline,
    )


def main(
    arguments: Sequence[str] | None = None, prog: str | None = None, run_dir: str = ".run"
) -> int:
    """Print one line; the exit status.

    Args:
        arguments: of the command line; None for those of this process.
        prog: the command's name, for its help.
        run_dir: where the server's tokens are, unless RUN_DIR says otherwise.
    """
    parsed = _parse(arguments, prog, run_dir, os.environ)
    try:
        found = _failures(parsed)
        failures = [f"{name}: {failure}" for name, failure in found.items() if failure]
    except NotReadyError as failure:
        failures = [str(failure)]
    what = "live" if parsed.live else "ready"
    print(f"not {what}: {'; '.join(failures)}" if failures else what)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
