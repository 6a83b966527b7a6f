"""What every test shares: asyncio under anyio's plugin, and no network but loopback."""

import socket
from typing import Any

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> None:
    """A test that reaches for another host fails at the socket, not at somebody's server."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and not (
            host.startswith("127.") or host in ("::1", "localhost")
        ):
            raise AssertionError(f"a test tried to reach {address!r}")
        real(self, address)

    socket.socket.connect = connect  # type: ignore[method-assign]
