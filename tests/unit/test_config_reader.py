"""The configuration is read in a child: one at a time, with a limit, for all who ask."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.control import Message
from qjsupervisor.master.config_reader import READ_TIMEOUT_S
from qjsupervisor.master.notify import Notifier
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def changed(**options: str) -> Config:
    return load(
        {name: text for name, text in options.items() if name != "channels"},
        {"ODOO_QUEUE_JOB_CHANNELS": options.get("channels", "root:4"), "ODOO_RC": "/dev/null"},
    )


def test_reloads_that_come_fast_are_one_for_the_workers(rig: Rig) -> None:
    rig.scan(a="ready")
    told = rig.child("a").pipe.told
    for _ in range(75):
        rig.reload()
        rig.step(0.01)
    assert told.count({"do": "resync"}) == 1
    rig.step(1)
    assert told.count({"do": "resync"}) == 2, "the last one is not lost"
    rig.step(10)
    assert told.count({"do": "resync"}) == 2


def test_who_asks_for_a_reload_during_one_waits_for_the_next_with_all_others(rig: Rig) -> None:
    answers: list[tuple[int, bool]] = []

    def ask(number: int) -> None:
        rig.operations.reload(lambda answer: answers.append((number, answer["channels_changed"])), rig.now_s)

    for number in range(3):
        ask(number)
    rig.next_config = changed(channels="root:9")
    rig.end_read()
    assert answers == [(0, True)]
    rig.end_read()
    assert answers[1:] == [(1, False), (2, False)]
    assert sum(each.title == "qjsupervisor: configuration" for each in rig.spawner.children) == 2


def test_a_configuration_that_cannot_be_read_in_time_is_refused_until_its_reader_is_gone(rig: Rig) -> None:
    answers: list[Message] = []
    for _ in range(2):
        rig.operations.reload(answers.append, rig.now_s)
    reader = rig.spawner.children[-1]
    rig.step(READ_TIMEOUT_S - 0.1)
    assert (answers, reader.signals) == ([], [])
    rig.step(0.1)
    assert reader.signals == [signal.SIGKILL]
    assert len(answers) == 2
    assert "could not be read within 10 s: does its file system answer?" in answers[0]["error"]
    rig.operations.reload(answers.append, rig.now_s)
    assert answers[2] == answers[0]
    assert rig.operations.config_reader.reaped(reader.pid, -9, rig.now_s)
    assert rig.reload()["ok"]


def test_a_reader_that_dies_or_cannot_be_started_is_an_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Message] = []
    rig.spawner.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    rig.operations.reload(answers.append, rig.now_s)
    assert "no process could be started to read the configuration" in answers[0]["error"]
    rig.operations.reload(answers.append, rig.now_s)
    assert rig.operations.config_reader.reaped(rig.spawner.children[-1].pid, -11, rig.now_s)
    assert "killed by signal 11" in answers[1]["error"]
    told: list[str] = []
    monkeypatch.setattr(Notifier, "tell", lambda _self, *lines: told.extend(lines))
    rig.fleet.stop_all(rig.now_s)
    rig.operations.config_reader.kill()
    rig.operations.reload(answers.append, rig.now_s)
    assert "being stopped" in answers[2]["error"]
    assert told == []
