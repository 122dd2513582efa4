"""Processes in trouble: stopped, hung, crashing, killed, and a system that has no room for more.

What one database's worker suffers is seen in `status` and in the log, is over by itself, and delays nobody else.
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Database, Supervisor, is_alive, odoo_conf, wait_until, written
from .injected import FaultySupervisor

Faulty = Callable[[str, str], FaultySupervisor]


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    """Starts supervisors with a fault: faulty(conf, "crash")."""
    started: list[FaultySupervisor] = []

    def start(conf: str, fault: str) -> FaultySupervisor:
        new = FaultySupervisor(conf, tmp_path, fault)
        started.append(new)
        new.start()
        return new

    yield start
    for one in started:
        one.close()


def conf(postgres: ThrowawayPostgres, odoo: StandIn, *databases: Database, **options: object) -> str:
    names = ",".join(each.name for each in databases)
    return odoo_conf(postgres, odoo.port, db_name=names, sections={"qjsupervisor": options})


def entry(supervisor: Supervisor, one: Database) -> dict[str, object]:
    found = supervisor.database_status(one.name)
    assert found is not None
    return found


def time_jobs(one: Database, until: Callable[[], bool], timeout_s: float = 30) -> float:
    """Run one job, and one after the other until something is true; the longest that one of them took, seconds."""
    longest_s, deadline = 0.0, time.monotonic() + timeout_s
    while not longest_s or not until():
        assert time.monotonic() < deadline, "what was waited for does not happen"
        (uuid,) = one.insert_jobs(1)
        began_s = time.monotonic()
        wait_until(lambda uuid=uuid: one.state(uuid) == "done", "another database's job is done")
        longest_s = max(longest_s, time.monotonic() - began_s)
    return longest_s


# -- workers that hang -------------------------------------------------------------------------------------------


def test_stopped_worker(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    one, other, idle = database(), database(), database()
    names = [each.name for each in (one, other, idle)]
    sections: dict[str, dict[str, object]] = {
        "queue_job": {"channels": "root:4,root.half:2"},
        "qjsupervisor": {"hang_timeout": 4},
    }
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names), sections=sections))
    running.wait_ready(*names)
    pids = running.pids()
    uuids = one.insert_jobs(20, kwargs={"sleep": 0.2}, channel="root.half")
    wait_until(lambda: one.states().get("done"), "its jobs run")
    os.kill(pids[one.name], signal.SIGSTOP)
    stopped_s = time.monotonic()
    assert time_jobs(other, lambda: bool(running.log_events("worker_reaped", worker_pid=pids[one.name]))) < 2
    assert 2 < time.monotonic() - stopped_s < 10
    one.wait_for_states(done=20, timeout_s=30)
    assert set(odoo.stats()["executions"][one.name].values()) == {1}
    assert set(odoo.stats()["executions"][one.name]) == set(uuids)
    now = entry(running, one)
    assert (now["restarts"], now["state"]) == (1, "ready")
    assert "no sign of life for 4 s" in str(now["last_error"])
    for each in (other, idle):
        assert running.pids()[each.name] == pids[each.name], "an idle worker shows that it lives"
    wait_until(lambda: {c["running"] for c in running.status()["channels"]} == {0}, "no permit is held")


def test_endless_loop(postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, faulty: Faulty) -> None:
    """Its stack is written down before it is replaced."""
    one, other = database(), database()
    running = faulty(conf(postgres, odoo, one, other, hang_timeout=3), "endless_loop")
    running.wait_ready(one.name, other.name)
    pid = running.pids()[one.name]
    running.switch.write_text(one.name)
    one.insert_jobs(3)
    assert time_jobs(other, lambda: bool(running.log_events("worker_aborted", worker_pid=pid))) < 2
    running.switch.unlink()
    one.wait_for_states(done=3, timeout_s=20)
    reaped = running.wait_for("worker_reaped", worker_pid=pid)
    assert "no sign of life" in reaped["reason"]
    assert "injected.py" in running.log_text(), "where it was"


def test_crash_loop(postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, faulty: Faulty) -> None:
    one, other = database(), database()
    running = faulty(conf(postgres, odoo, one, other), "crash")
    running.wait_ready(one.name, other.name)
    running.switch.write_text(one.name)
    one.insert_jobs(3)
    now: dict[str, object] = {}

    def third_time() -> bool:
        now.update(entry(running, one))
        return (now["state"], now["restarts"]) == ("backing off", 3)

    assert time_jobs(other, third_time) < 2
    assert "ZeroDivisionError: an injected fault" in str(now["last_error"])
    wait_until(lambda: len(running.log_events("worker_reaped", database=one.name)) >= 3, "the log says so")
    lives = running.log_events("worker_spawned", database=one.name)
    pauses = [_seconds(after) - _seconds(before) for before, after in itertools.pairwise(lives[1:])]
    assert pauses == sorted(pauses)
    assert pauses[0] > 0.8
    running.switch.unlink()
    one.wait_for_states(done=3, timeout_s=20)
    assert running.pids()[other.name]


def _seconds(event: dict[str, object]) -> float:
    hours, minutes, seconds = str(event["timestamp"]).partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


# -- the master --------------------------------------------------------------------------------------------------


def test_master_killed(
    postgres: ThrowawayPostgres, database: DatabaseFactory, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """Its workers go; the next supervisor counts what runs before it starts anything."""
    one, other, odoo = database(), database(), stand_in(workers=20)
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels="root:4"))
    running.wait_ready(one.name, other.name)
    long = one.insert_jobs(3, kwargs={"sleep": 9})
    wait_until(lambda: one.states() == {"started": 3}, "they run")
    children = running.children()
    running.kill()
    killed_s = time.monotonic()
    short = other.insert_jobs(8, kwargs={"sleep": 0.3})
    wait_until(lambda: not any(map(is_alive, children)), "all workers are gone", 5)
    running.start()
    running.wait_ready(one.name, other.name)
    wait_until(lambda: _channel(running, "root")["running"] == 4, "three that run on, and one new one")
    one.wait_for_states(done=3)
    other.wait_for_states(done=8)
    assert time.monotonic() - killed_s < 30
    stats = odoo.stats()
    assert stats["peak"]["root"] <= 4
    assert stats["executions"] == {one.name: dict.fromkeys(long, 1), other.name: dict.fromkeys(short, 1)}
    wait_until(lambda: _channel(running, "root")["running"] == 0, "no permit is held")


def _channel(supervisor: Supervisor, name: str) -> dict[str, int]:
    found: dict[str, int] = next(each for each in supervisor.status()["channels"] if each["name"] == name)
    return found


def test_master_stopped(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Jobs do not need it; and when it goes on it does not take the others for dead."""
    one, other = database(), database()
    running = supervisor(conf(postgres, odoo, one, other, hang_timeout=3))
    running.wait_ready(one.name, other.name)
    pids = running.pids()
    running.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    assert time_jobs(one, lambda: time.monotonic() > stopped_s + 5) < 2
    other.insert_jobs(20, kwargs={"sleep": 0.1})
    other.wait_for_states(done=20)
    running.send_signal(signal.SIGCONT)
    woken_s = time.monotonic()
    assert time_jobs(one, lambda: time.monotonic() > woken_s + 3) < 2
    assert running.pids() == pids


# -- a system without room ---------------------------------------------------------------------------------------


def test_fork_fails(postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, faulty: Faulty) -> None:
    one, other = database(), database()
    running = faulty(conf(postgres, odoo, one, other), "no_fork")
    running.wait_ready(one.name, other.name)
    running.switch.touch()
    one.insert_jobs(5)
    one.wait_for_states(done=5)
    # What it holds when it dies stays held until its successor has looked, which there is none of for a while.
    wait_until(lambda: entry(running, one)["running"] == 0, "its worker knows that they are done")
    os.kill(running.pids()[one.name], signal.SIGKILL)
    line = running.wait_for("fork_failed")
    assert line["level"] == "error"
    assert "Resource temporarily unavailable" in str(entry(running, one)["last_error"])
    assert time_jobs(other, lambda: len(running.log_events("fork_failed")) >= 2) < 2
    running.switch.unlink()
    one.insert_jobs(5)
    one.wait_for_states(done=10, timeout_s=20)


def test_no_descriptors(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """First a worker has none left for its requests, then the master none for a new worker."""
    one, other = database(), database()
    running = supervisor(conf(postgres, odoo, one, other))
    running.wait_ready(one.name, other.name)
    pids = running.pids()
    with UsedUp(pids[one.name]):
        one.insert_jobs(10)
        running.wait_for("target_down", database=one.name)
        wait_until(lambda: "Too many open files" in str(entry(running, one)["message"]), "status says why")
        assert time_jobs(other, lambda: True) < 2
        assert set(one.states()) <= {"pending", "enqueued"}
    one.wait_for_states(done=10, timeout_s=30)
    # What it holds when it dies stays held until its successor has looked, which there is none of for a while.
    wait_until(lambda: entry(running, one)["running"] == 0, "its worker knows that they are done")
    with UsedUp(running.pid):
        os.kill(pids[one.name], signal.SIGKILL)
        line = running.wait_for("fork_failed")
        assert "Too many open files" in line["reason"]
        one.insert_jobs(10)
        other.insert_jobs(10)
        other.wait_for_states(done=11)
    one.wait_for_states(done=20, timeout_s=30)
    assert set(odoo.stats()["executions"][one.name].values()) == {1}
    assert running.pids()[other.name] == pids[other.name]


class UsedUp:
    """While it holds, a process gets no further descriptor."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def __enter__(self) -> None:
        # The limit is a number that no descriptor may reach: the lowest one that is free.
        taken = wait_until(self._settled, "the client that asked last is gone")
        lowest = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (lowest, self._before[1]))

    def _settled(self) -> set[int]:
        """Its descriptors, once they are the same for a moment; else nothing."""
        before, began_s = self._taken(), time.monotonic()
        wait_until(lambda: time.monotonic() > began_s + 0.2, "a moment")
        return before if self._taken() == before else set()

    def _taken(self) -> set[int]:
        return {int(name) for name in os.listdir(f"/proc/{self._pid}/fd")}

    def __exit__(self, *_error: object) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, self._before)


def test_disk_full_for_the_log(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory, tmp_path: Path
) -> None:
    """Jobs run on without a line; the first one that can be written again says how many are missing."""
    one = database()
    log = tmp_path / "qjsupervisor.log"
    log.symlink_to("/dev/full")
    running = supervisor(conf(postgres, odoo, one, log_file=log))
    running.wait_ready(one.name)
    one.insert_jobs(10)
    one.wait_for_states(done=10)
    assert running.status()["log_lines_lost"] > 0
    real = tmp_path / "other-disk.log"
    replacement = tmp_path / "replacement"
    replacement.symlink_to(real)
    replacement.rename(log)
    one.insert_jobs(1)
    one.wait_for_states(done=11)
    wait_until(lambda: "No space left on device" in written(real), "what was lost is told")


def test_a_stopped_worker_does_not_keep_permits_from_others(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """It held the only one, for a job that has ended meanwhile, and hang_timeout is half a minute."""
    one, other, idle = database(), database(), database()
    names = [each.name for each in (one, other, idle)]
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=",".join(names), channels="root:1"))
    running.wait_ready(*names)
    pids = running.pids()
    os.kill(pids[idle.name], signal.SIGSTOP)
    for number in range(3):  # the third time as soon as the first
        running.wait_ready(one.name)
        pid = running.pids()[one.name]
        one.insert_jobs(1, kwargs={"sleep": 1.5})
        wait_until(lambda: one.states().get("started"), "its job runs")
        os.kill(pid, signal.SIGSTOP)
        one.wait_for_states(done=number + 1)
        assert time_jobs(other, lambda: True) < 2
    line = running.wait_for("worker_aborted", database=one.name)
    assert "holds permits that others wait for" in line["reason"]
    running.wait_ready(one.name)
    assert running.pids()[idle.name] == pids[idle.name], "who is in nobody's way has until hang_timeout"
    os.kill(pids[idle.name], signal.SIGCONT)
    for each in (one, idle):
        each.insert_jobs(2)
    one.wait_for_states(done=5)
    idle.wait_for_states(done=2)


def test_a_worker_that_dies_again_and_again_does_not_keep_permits_from_others(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """It is started anew after 1, 2, 4, 8 s, but for them."""
    one, other = database(), database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels="root:1"))
    for number in range(4):
        running.wait_ready(one.name, other.name)
        pid = running.pids()[one.name]
        one.insert_jobs(1, kwargs={"sleep": 1})
        wait_until(lambda: one.states().get("started"), "its job runs")
        os.kill(pid, signal.SIGKILL)
        one.wait_for_states(done=number + 1)
        assert time_jobs(other, lambda: True) < 4.5
