"""What an operator can have of a running supervisor: reloads, pauses, orders, status."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.control import Message
from qjsupervisor.errors import ConfigError, ProtocolError
from qjsupervisor.master.config_reader import READ_TIMEOUT_S
from qjsupervisor.master.notify import Notifier
from qjsupervisor.master.reloading import compare
from qjsupervisor.states import Mode
from tests.unit.supervised import CONFIG, Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def changed(**options: str) -> Config:
    return load(
        {name: text for name, text in options.items() if name != "channels"},
        {"ODOO_QUEUE_JOB_CHANNELS": options.get("channels", "root:4"), "ODOO_RC": "/dev/null"},
    )


def test_channels_are_changed_in_place_when_the_lock_is_free(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.next_config = changed(channels="root:9,root.sub:1")
    rig.table.busy = 2
    assert rig.reload()["channels_changed"]
    assert {"do": "channels"} not in rig.child("a").pipe.told
    for _ in range(2):
        rig.step(0.05)
    assert rig.table.calls[-1] == ("configure", "root", "root.sub")
    assert rig.child("a").pipe.told[-1] == {"do": "channels"}


def test_channels_that_the_table_has_no_room_for_change_nothing_each_time(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.table.room = 1
    rig.next_config = changed(channels="root:9,root.sub:1", targets="a:http://b:1")
    before = rig.operations.config
    for _ in range(2):
        assert "no room" in rig.reload()["error"]
        assert rig.operations.config is before
        assert rig.child("a").pipe.told == []
        assert [call for call in rig.table.calls if call[0] == "configure"] == []


def test_a_wrong_configuration_changes_nothing(rig: Rig) -> None:
    rig.next_config = ConfigError("channels", "odoo.conf: [queue_job] channels: wrong")
    before = rig.operations.config
    with capture_logs() as lines:
        rig.operations.reload_logged(rig.now_s)
        rig.end_read()
    reason = "odoo.conf: [queue_job] channels: wrong"
    assert [(each["option"], each["reason"]) for each in lines if each["event"] == "configuration_rejected"] == [
        ("channels", f"{reason}; the old one stays")
    ]
    assert rig.reload() == {"ok": False, "error": reason, "option": "channels"}
    assert rig.operations.config is before
    assert rig.operations.reloads["refused"] == 2


def test_only_workers_whose_settings_changed_are_restarted(rig: Rig) -> None:
    rig.scan(a="ready", prod="ready")
    rig.next_config = changed(targets="prod*:http://b:1")
    assert rig.reload()["restarted"] == ["prod"]
    assert {"do": "stop", "restart": True} in rig.child("prod").pipe.told
    assert {"do": "stop"} not in rig.child("a").pipe.told
    assert {"do": "resync"} in rig.child("a").pipe.told
    first = rig.child("prod")
    rig.reap("prod", 0)
    rig.step()
    assert rig.child("prod") is not first
    assert rig.fleet.workers["prod"].settings.targets[0].url == "http://b:1"


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


def test_what_needs_a_restart_is_kept() -> None:
    new = replace(CONFIG, max_databases=3, window=10, control_socket="/elsewhere", log_level="debug")
    change = compare(CONFIG, new)
    assert set(change.needs_restart) == {"max_databases", "control_socket"}
    assert change.config == replace(CONFIG, window=10, log_level="debug")
    assert change.logging
    assert not change.channels


def test_another_mode_takes_its_channels_along() -> None:
    new = load({}, {"ODOO_QUEUE_JOB_MAX_CAPACITY": "7", "ODOO_RC": "/dev/null"})
    assert new.mode is Mode.PER_DATABASE
    change = compare(CONFIG, new)
    assert set(change.needs_restart) == {"mode", "channels", "max_capacity"}
    assert change.config.channels == CONFIG.channels


def test_pauses_are_told_at_once_at_birth_and_at_their_end(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    assert rig.order("pause", database="a", channel="slow", for_s=10)["warning"]
    assert rig.child("a").pipe.told == [{"do": "pauses", "pauses": {"root.slow": rig.now_s + 10}}]
    assert rig.child("b").pipe.told == []
    rig.reap("a", -9)
    rig.step(2)
    assert rig.child("a").pipe.told == [{"do": "pauses", "pauses": {"root.slow": 1010.0}}]
    assert rig.child("a").orders == rig.child("a").pipe.told, "before it could start anything"
    rig.step(8)
    assert rig.child("a").pipe.told[-1] == {"do": "pauses", "pauses": {}}


def test_resume_says_what_it_did_and_what_still_holds(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.order("pause")
    with pytest.raises(ProtocolError, match="wider pause: resume all databases:root instead"):
        rig.order("resume", database="a")
    rig.order("pause", database="a", channel="root")
    answer = rig.order("resume", database="a")
    assert answer["resumed"] == ["a:root"]
    assert answer["warning"] == "still paused by all databases:root"
    rig.order("resume")
    with pytest.raises(ProtocolError, match="is not paused"):
        rig.order("resume")


def test_orders_are_logged_with_who_gave_them(rig: Rig) -> None:
    rig.scan(a="ready")
    with capture_logs() as lines:
        rig.order("pause", database="a", for_s=10, by="anna (command line)")
        rig.order("note", order="requeue", database="a", jobs=3, by=["no name"])
        rig.order("status")
        with pytest.raises(ProtocolError):
            rig.order("resume", database="b", by="anna (command line)")
    who = {"client_uid": 1000, "client_pid": 4711}
    orders = [line for line in lines if str(line["event"]).startswith("order_")]
    assert [(line.pop("event"), line.pop("log_level")) for line in orders] == [
        ("order_accepted", "info"),
        ("order_accepted", "info"),
        ("order_refused", "warning"),
    ]
    assert "is not served" in str(orders[2].pop("reason"))
    assert orders == [
        {"order": "pause", "database": "a", "for_s": 10, "by": "anna (command line)", **who},
        {"order": "requeue", "database": "a", "jobs": 3, **who},
        {"order": "resume", "database": "b", "by": "anna (command line)", **who},
    ]


def test_a_paused_database_that_is_gone_can_be_resumed(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.order("pause", database="a")
    rig.scan()
    rig.reap("a", 0)
    assert rig.order("resume", database="a")["ok"]
    with pytest.raises(ProtocolError, match="not served"):
        rig.order("pause", database="a")


def test_status_of_everything(rig: Rig) -> None:
    rig.scan(a="ready", ill="blocked")
    rig.hear("a", {"is": "read"}, {"is": "standby", "reason": "somebody else leads"})
    status = rig.order("status")["status"]
    states = {each["name"]: (each["state"], each["last_error"]) for each in status["databases"]}
    assert states == {"a": ("standby", "somebody else leads"), "ill": ("failed", "is blocked; looked at again in 60 s")}
