"""What our processes use, as /proc says."""

from __future__ import annotations

import os

from qjsupervisor.monitor.processes import processes_of


def test_of_the_master_this_monitor_and_the_workers() -> None:
    """This process plays them all."""
    here = os.getpid()
    master, monitor, worker = processes_of(
        {"pid": here, "databases": [{"pid": here}, {"pid": here}, {"pid": None}, {}]}
    )
    assert [each.kind for each in (master, monitor, worker)] == ["master", "monitor", "worker"]
    assert (master.number, monitor.number, worker.number) == (1, 1, 2)
    assert master.cpu_s > 0
    assert 1 << 20 < master.rss < 1 << 40
    assert worker.rss >= 1.9 * monitor.rss
    assert monitor.fds == len(os.listdir("/proc/self/fd"))
    assert worker.fds is None


def test_workers_that_have_ended_still_count_in_the_time() -> None:
    pid = os.fork()
    if pid == 0:
        sum(number * number for number in range(300_000))
        os._exit(0)
    os.waitpid(pid, 0)
    *_, worker = processes_of({"pid": os.getpid(), "databases": [{"pid": pid}]})
    assert worker.number == 0
    assert worker.cpu_s >= 0.01


def test_of_a_master_that_is_gone_nothing_is_said() -> None:
    assert processes_of({"pid": None}) == []
    assert processes_of({"pid": "../1", "databases": []}) == []
    assert processes_of({}) == []
