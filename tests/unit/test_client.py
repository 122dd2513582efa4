"""What a command says to the running supervisor, and what becomes of its answer."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Any

import pytest

from qjsupervisor.commands import client
from qjsupervisor.config.load import load
from qjsupervisor.control_client import NotRunning
from qjsupervisor.errors import ProtocolError

CONFIG = load({"config": "/dev/null", "control_socket": "/somewhere/s"}, {"HOME": "/nowhere"})


class Supervisor:
    """Answers, or raises, what a test says."""

    def __init__(self) -> None:
        self.answer: Mapping[str, Any] | Exception = {"ok": True}
        self.asked: list[tuple[str, Mapping[str, Any], float]] = []

    def ask(self, path: str, request: Mapping[str, Any], *, timeout_s: float) -> Mapping[str, Any]:
        self.asked.append((path, request, timeout_s))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    made = Supervisor()
    monkeypatch.setattr(client, "ask", made.ask)
    return made


def test_an_order_says_who_gives_it(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor.answer = {"ok": True, "restarted": ["db"]}
    assert client.order(CONFIG, "pause", database="db", for_s=None) == supervisor.answer
    ((path, request, timeout_s),) = supervisor.asked
    assert (path, timeout_s) == ("/somewhere/s", client.TIMEOUT_S)
    who = pwd.getpwuid(os.getuid()).pw_name
    assert request == {"do": "pause", "database": "db", "for_s": None, "by": f"{who} (command line)"}
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    client.order(CONFIG, "stop")
    assert supervisor.asked[-1][1]["by"] == f"user id {os.getuid()} (command line)"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"ok": False, "error": "no such database"}, "no such database"),
        ({"ok": False}, "the supervisor refused to pause"),
        ({"error": "old"}, "old"),
    ],
)
def test_a_refusal_is_in_the_supervisor_s_words(supervisor: Supervisor, answer: Mapping[str, Any], said: str) -> None:
    supervisor.answer = answer
    with pytest.raises(client.Refused, match=said) as refused:
        client.order(CONFIG, "pause")
    assert refused.value.exit_status == client.EX_REFUSED


@pytest.mark.parametrize("error", [NotRunning("nobody"), ProtocolError("nonsense"), PermissionError(13, "no")])
def test_nobody_who_answers(supervisor: Supervisor, error: Exception) -> None:
    supervisor.answer = error
    with pytest.raises(client.Unavailable) as unavailable:
        client.status(CONFIG)
    assert unavailable.value.exit_status == client.EX_UNAVAILABLE
    assert client.status_or_none(CONFIG) is None
    client.note(CONFIG, "requeue", jobs=3)
    assert supervisor.asked[-1][1]["order"] == "requeue", "it was tried, and nobody misses it"


def test_the_status_is_what_is_inside_the_answer(supervisor: Supervisor) -> None:
    supervisor.answer = {"ok": True, "status": {"pid": 7}}
    assert client.status(CONFIG) == {"pid": 7}
    assert client.status_or_none(CONFIG) == {"pid": 7}
    supervisor.answer = {"ok": True, "pid": 7}
    assert client.status(CONFIG) == {"pid": 7}
    supervisor.answer = {"ok": True, "status": "fine"}
    assert client.status(CONFIG) == {}


def test_a_note_that_is_refused_is_no_error(supervisor: Supervisor) -> None:
    supervisor.answer = {"ok": False, "error": "unknown order"}
    client.note(CONFIG, "requeue")
