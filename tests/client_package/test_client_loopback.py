"""Which servers are called past proxies: those of this machine, and no other."""

from __future__ import annotations

import pytest

from camserve_client.transports._loopback import is_loopback


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.9", "::1", "[::1]"]
)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "cam.example", "localhost.example", "10.0.0.1", "::", "::2", "127.0.0.1:80"]
)
def test_another_machine(host: str) -> None:
    assert not is_loopback(host)
