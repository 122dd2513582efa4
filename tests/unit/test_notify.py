"""What systemd is told, at a socket of ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qjsupervisor.loop import Loop
from qjsupervisor.master.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """(its socket, NOTIFY_SOCKET)."""
    path = str(tmp_path / "notify") if request.param == "path" else f"@qjs-{os.getpid()}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + path[1:] if path.startswith("@") else path)
        sock.setblocking(False)
        yield sock, path


def test_states(systemd: tuple[socket.socket, str]) -> None:
    sock, path = systemd
    notifier = Notifier({"NOTIFY_SOCKET": path})
    notifier.ready("2 databases")
    assert sock.recv(200) == b"READY=1\nSTATUS=2 databases"
    notifier.reloading()
    first, second = sock.recv(200).split(b"\n")
    assert (first, second.partition(b"=")[0], second.partition(b"=")[2].isdigit()) == (
        b"RELOADING=1", b"MONOTONIC_USEC", True,
    )  # fmt: skip
    notifier.stopping("bye \udcff")
    assert sock.recv(200) == b"STOPPING=1\nSTATUS=bye ?"


@pytest.mark.parametrize(
    ("environ", "fed"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "many"}, False),
        ({"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "9000000"}, True),
        ({"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid())}, True),
    ],
)
def test_keep_alives_where_they_are_wanted_three_in_the_time(
    systemd: tuple[socket.socket, str], environ: dict[str, str], fed: bool
) -> None:
    sock, path = systemd
    with Loop() as loop:
        Notifier({"NOTIFY_SOCKET": path, **environ}).feed(loop, lambda: "fine")
        assert (loop.next_s() < float("inf")) is fed
        if fed:
            first_s = loop.next_s()
            loop.run_due(first_s)
            assert sock.recv(200) == b"WATCHDOG=1\nSTATUS=fine"
            assert loop.next_s() == pytest.approx(first_s + 3.0)


@pytest.mark.parametrize("path", ["", "relative", "/nobody/listens"])
def test_nobody_to_tell_is_no_error(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready("fine")
