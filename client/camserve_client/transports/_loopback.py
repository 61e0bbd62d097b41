"""Addresses of this machine, which no proxy can reach for it."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address without a port, is this machine.

    Such a server is called directly, whatever proxy the environment names.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
