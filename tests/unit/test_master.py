"""Fleet, scans, pauses and orders step by step: no fork, no clock, no socket."""

from __future__ import annotations

import errno
import math
import signal
from dataclasses import replace
from typing import Any

import pytest

from qjsupervisor.backoff import GIVE_UP_S
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import ConfigError, ProtocolError
from qjsupervisor.master.control_requests import Orders
from qjsupervisor.master.fleet import LATE_S
from qjsupervisor.master.operations import Operations
from qjsupervisor.master.parts import Seams
from qjsupervisor.master.pauses import Pauses
from qjsupervisor.master.reloading import compare
from qjsupervisor.scout.scout import SCAN_DEADLINE_S
from qjsupervisor.states import EXIT_GONE, Mode, WorkerState
from tests.unit.supervised import ChannelView, FakeChild, FakeNursery, FakeSelector, FakeTable

CONFIG = load({}, {"ODOO_QUEUE_JOB_CHANNELS": "root:4", "ODOO_RC": "/dev/null"})


class Rig:
    """Everything but the master's loop, at a time that the test sets."""

    def __init__(self, config: Config = CONFIG, slots: int = 4) -> None:
        self.now_s = 1000.0
        self.table = FakeTable(slots)
        self.table.channels = [ChannelView("root", capacity=4)]
        self.spawner = FakeNursery()
        self.selector = FakeSelector()
        self.killed: list[tuple[int, int]] = []
        self.next_config: Config | ConfigError = config
        self.stops = 0
        seams = Seams(
            table=self.table,
            spawner=self.spawner,  # type: ignore[arg-type]
            selector=self.selector,  # type: ignore[arg-type]
            run_worker=lambda *_: 0,
            run_scout=lambda *_: 0,
            run_monitor=lambda *_: 0,
            kill=lambda pid, signum: self.killed.append((pid, signum)),
        )
        self.operations = Operations(config, self._load_again, seams, Pauses())
        self.fleet, self.rescan = self.operations.fleet, self.operations.rescan
        self.orders = Orders(self.operations, lambda _: None, lambda: self.now_s)

    def _load_again(self) -> Config:
        if isinstance(self.next_config, ConfigError):
            raise self.next_config
        return self.next_config

    def step(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.operations.expire_pauses(self.now_s)
        self.fleet.step(self.now_s)
        self.rescan.step(self.now_s)

    @property
    def scout(self) -> FakeChild:
        return next(each for each in reversed(self.spawner.children) if each.title == "qjsupervisor: scout")

    def scan(self, ended: bool = True, **verdicts: str) -> None:
        """One whole scan that finds these."""
        self.rescan.request(self.now_s)
        self.step()
        scout = self.scout
        messages: list[Any] = [{"listed": list(verdicts)}]
        messages += [{"database": name, "verdict": each, "reason": f"is {each}"} for name, each in verdicts.items()]
        scout.pipe.said += [*messages, *([{"done": True}] if ended else [])]
        self.selector.registered[scout.pipe](self.now_s)
        assert self.rescan.reaped(scout.pid, 0, self.now_s)
        self.step()

    def child(self, database: str) -> FakeChild:
        title = f"qjsupervisor: worker {database}"
        return next(each for each in reversed(self.spawner.children) if each.title == title)

    def state(self, database: str) -> WorkerState:
        return self.fleet.workers[database].state

    def hear(self, database: str, *messages: dict[str, Any]) -> None:
        child = self.child(database)
        child.pipe.said += messages
        self.selector.registered[child.pipe](self.now_s)

    def reap(self, database: str, exit_code: int) -> None:
        assert self.fleet.reaped(self.child(database).pid, exit_code, self.now_s)

    def workers(self) -> list[str]:
        return sorted(self.fleet.workers)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# -- scans ---------------------------------------------------------------------------------------------------


def test_what_follows_from_each_verdict(rig: Rig) -> None:
    rig.scan(good="ready", ill="blocked", away="unreachable", other="absent")
    assert rig.workers() == ["good"]
    assert rig.rescan.unserved == {"ill": "is blocked", "away": "is unreachable"}
    assert rig.rescan.ignored == {"other": "is absent"}
    assert rig.table.calls == [("assign", 0, "good", 1)]


def test_a_running_worker_is_ended_only_where_its_database_is_gone(rig: Rig) -> None:
    rig.scan(a="ready", b="ready", c="ready", d="ready")
    rig.scan(a="blocked", b="unreachable", c="absent")
    told = {name: rig.child(name).pipe.told for name in "abcd"}
    assert told == {"a": [], "b": [], "c": [{"do": "stop"}], "d": [{"do": "stop"}]}
    for name in "cd":
        rig.reap(name, 0)
    assert rig.workers() == ["a", "b"]
    assert [call for call in rig.table.calls if call[0] == "vacate"] == [("vacate", 2), ("vacate", 3)]


def test_what_an_unfinished_scan_did_not_say_means_nothing(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    rig.scan(ended=False, a="ready")
    assert rig.state("b") is WorkerState.STARTING
    assert "ended early" in (rig.rescan.error or "")
    assert rig.rescan.next_deadline_s() < rig.now_s + 2


def test_scans_come_sooner_while_something_is_away_and_less_and_less_so(rig: Rig) -> None:
    pauses = []
    for _ in range(8):
        rig.scan(a="unreachable")
        pauses.append(rig.rescan.next_deadline_s() - rig.now_s)
        rig.now_s += pauses[-1]
    assert all(1 <= pause <= 60 for pause in pauses)
    assert pauses[5] > pauses[3] > pauses[1]
    rig.scan(a="ready")
    assert rig.rescan.next_deadline_s() == rig.now_s + 60
    rig.scan(a="unreachable")
    assert rig.rescan.next_deadline_s() < rig.now_s + 2


def test_a_scan_that_hangs_is_ended_and_what_it_said_holds(rig: Rig) -> None:
    rig.step()
    scout = rig.scout
    scout.pipe.said += [{"listed": ["a"]}, {"database": "a", "verdict": "ready", "reason": None}]
    rig.selector.registered[scout.pipe](rig.now_s)
    rig.step(SCAN_DEADLINE_S)
    assert scout.signals == []
    rig.step(5)
    assert scout.signals == [signal.SIGKILL]
    rig.rescan.reaped(scout.pid, -9, rig.now_s)
    assert rig.workers() == ["a"]
    assert not rig.rescan.has_listed


def test_a_request_during_a_scan_is_followed_by_another_scan(rig: Rig) -> None:
    rig.step()
    first = rig.scout
    rig.rescan.request(rig.now_s)
    rig.rescan.reaped(first.pid, 0, rig.now_s)
    rig.step()
    assert rig.scout is not first


def test_no_process_for_a_scan(rig: Rig) -> None:
    rig.spawner.error = OSError(errno.ENOMEM, "Cannot allocate memory")
    rig.step()
    assert not rig.rescan.is_running
    assert 1 <= rig.rescan.next_deadline_s() - rig.now_s <= 1.2
    rig.step(2)
    assert rig.rescan.is_running


# -- lives ---------------------------------------------------------------------------------------------------


def test_a_new_life_waits_until_the_table_knows_of_the_death(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "read"}, {"is": "ready"})
    first = rig.child("a")
    rig.table.busy = 3
    rig.reap("a", -9)
    rig.step(5)
    assert rig.child("a") is first, "the table's lock is still taken"
    assert rig.fleet.next_deadline_s() <= rig.now_s + 0.05
    for _ in range(3):
        rig.step(0.05)
    assert ("after_death", 0) in rig.table.calls
    assert rig.child("a") is not first


def test_places_are_given_again_only_when_the_table_let_go(rig: Rig) -> None:
    rig = Rig(slots=1)
    rig.scan(a="ready")
    rig.scan(b="ready")
    assert rig.rescan.unserved == {"b": "max_databases = 1, or what ulimit -n allows, are served already"}
    rig.table.busy = 1
    rig.reap("a", 0)
    rig.scan(b="ready")
    assert rig.workers() == ["b"]
    assert rig.rescan.unserved == {}


def test_permits_of_a_database_nobody_can_read_are_given_up_once_and_said(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "read"}, {"is": "ready"})
    for _ in range(30):
        rig.reap("a", 70)
        rig.step(rig.fleet.workers["a"].due_s - rig.now_s)
    assert rig.now_s > 1000 + 10 * GIVE_UP_S
    assert rig.table.calls.count(("give_up", 0)) == 1


def test_nothing_is_given_up_while_a_process_could_be_about_to_read(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "read"}, {"is": "ready"})
    rig.reap("a", 70)
    rig.step(2)
    for _ in range(3):
        rig.step(GIVE_UP_S)
    assert ("give_up", 0) not in rig.table.calls


def test_a_stuck_owner_of_the_lock_is_killed(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    rig.table.owner = rig.child("b").pid
    rig.step(1)
    assert rig.child("b").signals == [signal.SIGKILL]
    assert rig.child("a").signals == []
    rig.reap("b", -9)
    assert "held the shared table's lock" in (rig.fleet.workers["b"].last_error or "")


def test_heartbeats_are_looked_at_each_second_and_only_while_somebody_lives(rig: Rig) -> None:
    assert rig.fleet.next_deadline_s() == math.inf
    rig.scan(a="ready")
    assert rig.fleet.next_deadline_s() == rig.now_s + 1
    rig.table.ages_s[0] = 31
    for _ in range(40):
        rig.step(1)
    assert rig.child("a").signals[0] == signal.SIGABRT


def test_a_master_that_slept_blames_nobody(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "ready"})
    rig.table.ages_s[0] = 120
    rig.step(120)
    assert rig.child("a").signals == []
    rig.table.ages_s[0] = 1
    for _ in range(10):
        rig.step(1)
    assert rig.child("a").signals == []
    rig.table.ages_s[0] = 31
    rig.step(1)
    assert rig.child("a").signals == [signal.SIGABRT]
    assert LATE_S < 31


def test_a_database_that_is_gone_is_looked_for_but_not_in_a_circle(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.hear("a", {"is": "ready"})
    rig.reap("a", EXIT_GONE)
    assert rig.state("a") is WorkerState.FAILED
    assert 1 <= rig.rescan.next_deadline_s() - rig.now_s <= 1.2
    first = rig.child("a")
    rig.scan(a="ready")
    assert rig.child("a") is first
    rig.step(1.2)
    assert rig.child("a") is not first


def test_one_that_is_dropped_while_backed_off_leaves_at_once(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.reap("a", 70)
    rig.scan()
    assert rig.workers() == []
    assert rig.table.calls[-1] == ("vacate", 0)


def test_one_that_comes_back_while_it_is_dropped_stays(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.scan()
    rig.scan(a="ready")
    rig.reap("a", 0)
    rig.step()
    assert rig.state("a") is WorkerState.STARTING
    assert ("vacate", 0) not in rig.table.calls


# -- reload --------------------------------------------------------------------------------------------------


def changed(**options: str) -> Config:
    return load(
        {name: text for name, text in options.items() if name != "channels"},
        {"ODOO_QUEUE_JOB_CHANNELS": options.get("channels", "root:4"), "ODOO_RC": "/dev/null"},
    )


def test_channels_are_changed_in_place_when_the_lock_is_free(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.next_config = changed(channels="root:9,root.sub:1")
    rig.table.busy = 2
    assert rig.operations.reload(rig.now_s)["channels_changed"]
    assert {"do": "channels"} not in rig.child("a").pipe.told
    for _ in range(2):
        rig.step(0.05)
    assert rig.table.calls[-1] == ("configure", "root", "root.sub")
    assert rig.child("a").pipe.told[-1] == {"do": "channels"}


def test_a_wrong_configuration_changes_nothing(rig: Rig) -> None:
    rig.next_config = ConfigError("channels", "odoo.conf: [queue_job] channels: wrong")
    before = rig.operations.config
    rig.operations.reload_logged(rig.now_s)
    assert rig.operations.config is before
    with pytest.raises(ConfigError):
        rig.operations.reload(rig.now_s)


def test_only_workers_whose_settings_changed_are_restarted(rig: Rig) -> None:
    rig.scan(a="ready", prod="ready")
    rig.next_config = changed(targets="prod*:http://b:1")
    assert rig.operations.reload(rig.now_s)["restarted"] == ["prod"]
    assert {"do": "stop", "restart": True} in rig.child("prod").pipe.told
    assert {"do": "stop"} not in rig.child("a").pipe.told
    assert {"do": "resync"} in rig.child("a").pipe.told
    first = rig.child("prod")
    rig.reap("prod", 0)
    rig.step()
    assert rig.child("prod") is not first
    assert rig.fleet.workers["prod"].settings.targets[0].url == "http://b:1"


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


def test_channels_may_be_set_where_there_were_none() -> None:
    old, new = (
        load({}, {"ODOO_RC": "/dev/null"}),
        load({}, {"ODOO_QUEUE_JOB_CHANNELS": "root:4", "ODOO_RC": "/dev/null"}),
    )
    change = compare(old, new)
    assert (change.needs_restart, change.channels, change.config.mode) == ((), True, Mode.SERVER_WIDE)


# -- pauses and orders ---------------------------------------------------------------------------------------


def test_pauses_are_told_at_once_at_birth_and_at_their_end(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    assert rig.orders.handle({"do": "pause", "database": "a", "channel": "slow", "for_s": 10})["warning"]
    assert rig.child("a").pipe.told == [{"do": "pauses", "pauses": {"root.slow": rig.now_s + 10}}]
    assert rig.child("b").pipe.told == []
    rig.reap("a", -9)
    rig.step(2)
    assert rig.child("a").pipe.told == [{"do": "pauses", "pauses": {"root.slow": 1010.0}}]
    rig.step(8)
    assert rig.child("a").pipe.told[-1] == {"do": "pauses", "pauses": {}}


def test_resume_says_what_it_did_and_what_still_holds(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause"})
    with pytest.raises(ProtocolError, match="wider pause: resume all databases:root instead"):
        rig.orders.handle({"do": "resume", "database": "a"})
    rig.orders.handle({"do": "pause", "database": "a", "channel": "root"})
    answer = rig.orders.handle({"do": "resume", "database": "a"})
    assert answer["resumed"] == ["a:root"]
    assert answer["warning"] == "still paused by all databases:root"
    rig.orders.handle({"do": "resume"})
    with pytest.raises(ProtocolError, match="is not paused"):
        rig.orders.handle({"do": "resume"})


def test_a_paused_database_that_is_gone_can_be_resumed(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.orders.handle({"do": "pause", "database": "a"})
    rig.scan()
    rig.reap("a", 0)
    assert rig.orders.handle({"do": "resume", "database": "a"})["ok"]
    with pytest.raises(ProtocolError, match="not served"):
        rig.orders.handle({"do": "pause", "database": "a"})


def test_status_of_everything(rig: Rig) -> None:
    rig.scan(a="ready", ill="blocked")
    rig.hear("a", {"is": "read"}, {"is": "standby", "reason": "somebody else leads"})
    status = rig.orders.handle({"do": "status"})["status"]
    states = {each["name"]: (each["state"], each["last_error"]) for each in status["databases"]}
    assert states == {"a": ("standby", "somebody else leads"), "ill": ("failed", "is blocked; looked at again in 60 s")}


# -- the end -------------------------------------------------------------------------------------------------


def test_stopping_spawns_nothing_more(rig: Rig) -> None:
    rig.scan(a="ready", b="ready")
    rig.reap("b", 70)
    rig.fleet.stop_all(rig.now_s)
    assert rig.child("a").pipe.told == [{"do": "stop"}]
    rig.step(5)
    assert rig.fleet.alive == 1
    assert rig.fleet.want("c", "settings", 1, rig.now_s) == "the supervisor stops"
    rig.reap("a", 0)
    assert rig.fleet.alive == 0
    assert rig.rescan.next_deadline_s() == math.inf


def test_stacks_are_asked_for_one_after_the_other_but_not_for_long(rig: Rig) -> None:
    rig.scan(a="ready", b="ready", c="ready")
    rig.fleet.abort_all(rig.now_s)
    asked = [name for name in "abc" if rig.child(name).signals]
    assert asked == ["a"]
    rig.reap("a", -6)
    assert rig.child("b").signals == [signal.SIGABRT]
    rig.step(1)
    assert rig.child("c").signals == [signal.SIGABRT]
