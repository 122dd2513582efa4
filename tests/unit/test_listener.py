"""The monitor's listening socket."""

from __future__ import annotations

import os
import socket

import pytest

from qjsupervisor.monitor.listener import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_takes_connections_and_does_not_block(host: str) -> None:
    with listen((host, 0)) as listener:
        with pytest.raises(BlockingIOError):
            listener.accept()
        port = listener.getsockname()[1]
        with socket.create_connection((host, port), timeout=5) as client:
            accepted, peer = listener.accept()
            accepted.close()
            assert peer[:2] == client.getsockname()[:2]


def test_an_address_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    with listen(("127.0.0.1", 0)) as listener:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="in use"):
            listen(("127.0.0.1", listener.getsockname()[1]))
        assert len(os.listdir("/proc/self/fd")) == before


def test_an_address_can_be_had_again_at_once() -> None:
    """Connections of before may still be in the kernel."""
    with listen(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=5):
            listener.accept()[0].close()
    with listen(address) as again:
        assert again.getsockname() == address
