"""A control socket that is served step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qjsupervisor.control import Message
from qjsupervisor.errors import ProtocolError
from qjsupervisor.loop import Loop
from qjsupervisor.master.control_socket import ControlSocket, Deferred


class Server:
    """A ControlSocket in its loop, at a time that the test sets."""

    def __init__(self, path: str) -> None:
        self.now_s = 100.0
        self.answers: list[Message] = []
        self.deferred: list[Deferred] = []
        self.control = ControlSocket(path, self.handle)
        self.loop = Loop(lambda: self.now_s)

    def handle(self, request: Message) -> Message | Deferred:
        self.answers.append(request)
        if request.get("do") == "later":
            self.deferred.append(Deferred())
            return self.deferred[-1]
        if request.get("do") == "refuse":
            raise ProtocolError("no")
        if request.get("do") == "fail":
            raise IndexError("list index out of range")
        return {"ok": True, "echo": request.get("text", ""), "filling": "x" * int(request.get("size", 0))}

    def turn(self) -> bool:
        """What is ready and due now; whether something was ready."""
        return self.loop.turn(0)

    def settle(self) -> None:
        while self.turn():
            pass


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "control.sock")


@pytest.fixture
def server(path: str) -> Iterator[Server]:
    server = Server(path)
    server.control.open()
    server.control.register(server.loop)
    yield server
    server.control.close()
    server.loop.close()
