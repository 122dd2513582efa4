"""A client of the control socket: who answers, who does not, and whom it does not talk to."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from qjsupervisor import control_client
from qjsupervisor.control import Message
from qjsupervisor.control_client import NotRunning, ask
from qjsupervisor.errors import ProtocolError

from .control_server import Server


def test_ask_gets_an_answer(server: Server, path: str) -> None:
    answers: list[Message] = []
    asker = threading.Thread(target=lambda: answers.append(ask(path, {"do": "x", "text": "hi", "size": 500_000})))
    asker.start()
    while asker.is_alive():
        server.loop.turn(0.05)
    asker.join()
    assert answers[0]["echo"] == "hi"


def test_ask_where_nobody_is(path: str) -> None:
    with pytest.raises(NotRunning, match="no supervisor runs"):
        ask(path, {"do": "status"})


def test_ask_where_a_dead_one_was(path: str) -> None:
    os.mkdir(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(NotRunning, match="no supervisor runs"):
        ask(path, {"do": "status"})


def test_ask_gives_up_on_one_that_hangs(server: Server, path: str) -> None:
    with pytest.raises(NotRunning, match=r"no answer within 0\.1 s"):
        ask(path, {"do": "status"}, timeout_s=0.1)


def test_ask_does_not_talk_to_strangers(server: Server, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "peer_credentials", lambda _: (1, os.geteuid() + 1))
    with pytest.raises(ProtocolError, match="not asked"):
        ask(path, {"do": "status"})
