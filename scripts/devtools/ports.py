"""Free ports of this machine."""

from __future__ import annotations

import socket

from camserve_cli.serving import front_process
from camserve_cli.serving.torchserve_config import PORT_VARIABLES


def free_ports(count: int) -> list[int]:
    """Distinct ports of the loopback address that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [int(free.getsockname()[1]) for free in sockets]
    finally:
        for free in sockets:
            free.close()


def free_server_ports() -> dict[str, str]:
    """A free port for each address of a server, by the environment variable that sets it."""
    variables = [*PORT_VARIABLES.values(), *front_process.PORTS]
    ports = map(str, free_ports(len(variables)))
    return dict(zip(variables, ports, strict=True))
