"""The real master as a process: real forks, pipes, signals and control socket; stand-in workers and scout."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from qjsupervisor.control import Message
from qjsupervisor.control_client import NotRunning, ask
from qjsupervisor.states import EX_CANTCREAT
from tests.hanging import HangingFolder
from tests.helpers import Supervisor, is_alive, render, wait_until
from tests.scripted import unused_port


class Master(Supervisor):
    """tests.integration.stand_in_master, with databases that a test names."""

    def __init__(self, folder: Path, *databases: str, **options: object) -> None:
        self.options: dict[str, dict[str, object]] = {
            "queue_job": {"channels": "root:4,root.slow:2"},
            "qjsupervisor": {"pidfile": folder / "pid", **options},
        }
        super().__init__(render(self.options), folder)
        self.databases: dict[str, str] = {}
        self.set_databases(**dict.fromkeys(databases, "ready"))

    def command(self, *arguments: str) -> list[str]:
        if arguments[0] == "start":
            return [sys.executable, "-m", "tests.integration.stand_in_master", "--config", str(self.conf)]
        return super().command(*arguments)

    def set_databases(self, **verdicts: str) -> None:
        """What the next scan finds."""
        self.databases = verdicts
        file = self.conf.parent / "databases.json"
        file.with_suffix(".new").write_text(json.dumps(verdicts))
        file.with_suffix(".new").replace(file)  # a scan may be reading it

    def configure(self, section: str, **options: object) -> None:
        """Rewrite the file; the master is not told."""
        self.options[section].update(options)
        self.write_conf(render(self.options))

    def ask(self, do: str, **details: object) -> Message:
        return ask(self.socket, {"do": do, **details}, timeout_s=20)

    def status(self) -> dict[str, Any]:
        status = self.ask("status")["status"]
        assert isinstance(status, dict)
        return status

    def database(self, name: str) -> dict[str, Any]:
        return next((each for each in self.status()["databases"] if each["name"] == name), {})

    def wait_state(self, name: str, state: str, timeout_s: float = 30.0) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            with suppress(NotRunning):
                found = self.database(name)
                return found if found.get("state") == state else None
            return None

        found = wait_until(there, lambda: f"{name} {state}; the log ends with:\n{self.tail()}", timeout_s)
        assert found is not None
        return found

    def wait_all_gone(self, timeout_s: float = 5.0) -> None:
        """No process is left of all that ever were below the master."""
        wait_until(
            lambda: not [each for each in self._ever_seen.values() if is_alive(each)],
            lambda: f"still there: {[each for each in self._ever_seen.values() if is_alive(each)]}",
            timeout_s,
        )


Start = Callable[..., Master]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start("db1", "crash_a", rescan_interval=1): a running master that answers."""
    started: list[Master] = []

    def run(*databases: str, **options: object) -> Master:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        master = Master(folder, *databases, **options)
        started.append(master)
        master.start()
        master.wait_for("master_started")
        return master

    yield run
    for master in started:
        master.close()


# -- life and death ------------------------------------------------------------------------------------------


def test_serves_shows_and_stops(start: Start) -> None:
    master = start("db1", "db2")
    first, second = (master.wait_state(name, "ready") for name in ("db1", "db2"))
    status = master.status()
    assert status["gate_open"]
    assert status["pid"] == master.pid
    assert [channel["name"] for channel in status["channels"]] == ["root", "root.slow"]
    assert first["restarts"] == second["restarts"] == 0
    began = master.wait_for("worker_began", database="db1")
    assert began["shared"] > 10_000, "the first collection would write into all that is shared with the master"
    titles = {child.pid: title for child, title in master.titles().items()}
    assert titles[first["pid"]].strip() == "qjsupervisor: worker db1"
    assert master.stop() == 0
    master.wait_all_gone(0.1)
    assert os.listdir(master.runtime) == ["control.sock.mark"], "what the next one knows its sessions by"
    assert not (master.conf.parent / "pid").exists()


def test_a_second_start_says_who_runs_and_disturbs_nothing(start: Start) -> None:
    master = start("db1")
    pid = master.wait_state("db1", "ready")["pid"]
    done = master.run("start")
    assert done.returncode == EX_CANTCREAT
    assert f"pid {master.pid}" in done.stderr
    assert master.database("db1")["pid"] == pid
    assert (master.conf.parent / "pid").read_text() == f"{master.pid}\n"


def test_a_killed_master_leaves_no_process_and_no_obstacle(start: Start) -> None:
    master = start("db1", "stubborn_a", "standby_a", graceful_timeout=1, monitor=f"127.0.0.1:{unused_port()}")
    for name, state in (("db1", "ready"), ("stubborn_a", "ready"), ("standby_a", "standby")):
        master.wait_state(name, state)
    wait_until(lambda: len(master.children()) == 4, "three workers and a monitor")
    stubborn = next(each for each in master.children() if each.pid == master.database("stubborn_a")["pid"])
    master.kill()
    wait_until(lambda: [each for each in master._ever_seen.values() if is_alive(each)] == [stubborn], "the rest ends")
    # Nothing but SIGKILL ends that one; it must not hold what the next supervisor needs.
    master.start()
    master.wait_state("db1", "ready")
    stubborn.kill()


def test_a_stopped_worker_does_not_outlive_its_master(start: Start) -> None:
    master = start("db1")
    pid = master.wait_state("db1", "ready")["pid"]
    master.children()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it stands still")
    master.kill()
    master.wait_all_gone()


def test_the_whole_group_of_a_terminal_is_stopped_in_order(start: Start) -> None:
    master = start("db1")
    master.wait_state("db1", "ready")
    os.killpg(master.pid, signal.SIGINT)
    assert master.wait() == 0
    assert master.log_events("worker_reaped") == master.log_events("worker_reaped", exit_code=0)


def test_a_second_term_is_at_once(start: Start) -> None:
    master = start("stubborn_a", "db1", graceful_timeout=60)
    master.wait_state("stubborn_a", "ready")
    master.send_signal(signal.SIGTERM)
    master.wait_for("master_stopping")
    master.send_signal(signal.SIGTERM)
    assert master.wait(3) == 0
    master.wait_all_gone(0.1)


def test_a_stubborn_worker_is_killed_within_the_graceful_time(start: Start) -> None:
    master = start("stubborn_a", "db1", graceful_timeout=1)
    master.wait_state("stubborn_a", "ready")
    begun = time.monotonic()
    assert master.stop() == 0
    assert 1 <= time.monotonic() - begun < 2.5
    assert master.log_events("worker_reaped", database="db1")[0]["exit_code"] == 0
    assert master.log_events("worker_reaped", database="stubborn_a")[0]["exit_code"] == -signal.SIGKILL


def test_quit_dumps_stacks(start: Start) -> None:
    master = start("hang_a", "hang_b")
    for name in ("hang_a", "hang_b"):
        master.wait_state(name, "ready")
    master.send_signal(signal.SIGQUIT)
    assert master.wait() == 0
    text = master.log_text()
    assert text.count("Fatal Python error: Aborted") == text.count(" in hang") == 2
    assert "in _quit" in text


# -- trouble of one is nobody else's -------------------------------------------------------------------------


def test_crash_loops_are_backed_off_and_explained(start: Start) -> None:
    master = start("crash_a", "db1")
    pid = master.wait_state("db1", "ready")["pid"]
    wait_until(lambda: master.database("crash_a").get("restarts", 0) >= 3, "three restarts")
    crashed = master.wait_state("crash_a", "backing off")
    assert crashed["last_error"] == "exit code 70: ValueError: as the name says"
    failed = master.log_events("child_failed")
    assert "ValueError: as the name says" in failed[0]["exception"]
    assert master.database("db1")["pid"] == pid


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_is_killed_comes_back(start: Start, signum: signal.Signals) -> None:
    master = start("db1", "db2")
    before = master.wait_state("db1", "ready")
    other = master.wait_state("db2", "ready")["pid"]
    os.kill(before["pid"], signum)
    wait_until(lambda: master.database("db1")["restarts"] == 1, "a restart is counted")
    after = master.wait_state("db1", "ready")
    assert after["pid"] != before["pid"]
    expected = "exit code 0" if signum == signal.SIGTERM else f"killed by signal {int(signum)} ({signum.name})"
    assert after["last_error"].startswith(expected)
    assert master.database("db2")["pid"] == other


def test_a_hung_worker_is_dumped_and_replaced(start: Start) -> None:
    master = start("hang_a", "db1", hang_timeout=2)
    before = master.wait_state("hang_a", "ready")["pid"]
    master.wait_for("worker_reaped", database="hang_a", exit_code=-signal.SIGABRT)
    assert "in hang" in master.log_text()
    assert wait_until(lambda: master.database("hang_a")["pid"], "a new one") != before
    assert "no sign of life for 2 s" in master.database("hang_a")["last_error"]


def test_a_stopped_worker_is_replaced(start: Start) -> None:
    master = start("db1", "db2", hang_timeout=2)
    before = master.wait_state("db1", "ready")["pid"]
    other = master.wait_state("db2", "ready")["pid"]
    os.kill(before, signal.SIGSTOP)
    master.wait_for("worker_reaped", database="db1", exit_code=-signal.SIGKILL)
    assert master.wait_state("db1", "ready")["pid"] != before
    assert master.database("db2")["pid"] == other


def test_a_standstill_of_everything_makes_nobody_hung(start: Start) -> None:
    master = start("db1", "db2", hang_timeout=2)
    pids = {name: master.wait_state(name, "ready")["pid"] for name in ("db1", "db2")}
    everybody = [master.pid, *pids.values()]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    frozen = time.monotonic()
    wait_until(lambda: time.monotonic() > frozen + 6.5, "a long standstill", 10)
    os.kill(master.pid, signal.SIGCONT)
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 1.5, "the master had its turn first", 5)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    assert {name: master.database(name)["pid"] for name in pids} == pids
    assert not master.log_events("worker_aborted")


def test_one_that_never_becomes_ready_is_given_up_and_tried_again(start: Start) -> None:
    master = start("never_a", boot_timeout=1)
    master.wait_for("worker_aborted", database="never_a")
    reason = "not ready within 1 s: connection refused"
    assert wait_until(lambda: reason in (master.database("never_a")["last_error"] or ""), "a reason")
    assert wait_until(lambda: master.database("never_a").get("restarts", 0) >= 2, "tried again")


@pytest.mark.parametrize("kind", ["babble", "closed"])
def test_one_that_breaks_its_pipe_is_ended(start: Start, kind: str) -> None:
    master = start(f"{kind}_a", "db1", graceful_timeout=1)
    master.wait_for("worker_reaped", database=f"{kind}_a")
    assert master.wait_state("db1", "ready")["restarts"] == 0


def test_one_that_floods_its_pipe_holds_up_nobody(start: Start) -> None:
    master = start("flood_a", "db1", graceful_timeout=1)
    master.wait_state("flood_a", "ready")
    begun = time.monotonic()
    for _ in range(10):
        master.status()
    assert time.monotonic() - begun < 2
    master.set_databases(db1="ready", db2="ready")
    master.send_signal(signal.SIGHUP)
    master.wait_state("db2", "ready")


def test_without_descriptors_it_reports_retries_and_disturbs_nobody(start: Start) -> None:
    master = start("db1", "db2", rescan_interval=0.2)
    pids = {name: master.wait_state(name, "ready")["pid"] for name in ("db1", "db2")}
    _, hard = resource.prlimit(master.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (3, hard))
    os.kill(pids["db1"], signal.SIGKILL)
    failed = master.wait_for("fork_failed", database="db1")
    assert failed["reason"] == "Too many open files"
    with pytest.raises(NotRunning):
        ask(master.socket, {"do": "status"}, timeout_s=0.2)
    cpu = psutil.Process(master.pid).cpu_times()
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 1, "a second without descriptors")
    used = psutil.Process(master.pid).cpu_times()
    assert used.user + used.system - cpu.user - cpu.system < 0.3, "it must not spin"
    resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (hard, hard))
    wait_until(lambda: answers(master), "it answers again")
    assert master.wait_state("db1", "ready")["pid"] != pids["db1"]
    assert master.database("db2")["pid"] == pids["db2"]


def answers(master: Master) -> bool:
    with suppress(NotRunning):
        return bool(master.status())
    return False


def test_an_idle_master_uses_next_to_nothing(start: Start) -> None:
    master = start(*(f"db{number}" for number in range(20)))
    for number in range(20):
        master.wait_state(f"db{number}", "ready")
    process = psutil.Process(master.pid)
    before, switches, begun = process.cpu_times(), process.num_ctx_switches().voluntary, time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 3, "three idle seconds")
    after, seconds = process.cpu_times(), time.monotonic() - begun
    assert after.user + after.system - before.user - before.system <= 0.05 / 3 * seconds
    assert process.num_ctx_switches().voluntary - switches < 20 / 3 * seconds


def test_the_monitor_is_kept_running_and_shown_when_it_cannot(start: Start) -> None:
    port = unused_port()
    master = start("db1", monitor=f"127.0.0.1:{port}")
    master.wait_state("db1", "ready")
    first = master.wait_for("service_spawned")["worker_pid"]
    master.wait_for("monitor_started")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        assert answer.read() == b"ok\n"
    mark = master.mark()
    os.kill(first, signal.SIGKILL)
    master.wait_for("monitor_started", after=mark)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        master.configure("qjsupervisor", monitor=f"127.0.0.1:{taken.getsockname()[1]}")
        master.ask("reload")
        wait_until(lambda: "the monitor does not run" in str(master.status()["problems"]), "it is said")
    wait_until(lambda: master.status()["problems"] == [], "it runs again")


# -- databases -----------------------------------------------------------------------------------------------


def test_databases_come_and_go_and_untouched_workers_are_not_touched(start: Start) -> None:
    master = start("db1", "db2", rescan_interval=0.2)
    kept = master.wait_state("db1", "ready")["pid"]
    master.wait_state("db2", "ready")
    master.set_databases(db1="ready", db3="ready", db4="blocked", db5="absent", db6="unreachable")
    master.wait_state("db3", "ready")
    wait_until(lambda: not master.database("db2"), "db2 is gone")
    master.wait_for("worker_reaped", database="db2", exit_code=0)
    assert master.database("db4")["state"] == "failed"
    assert master.database("db4")["last_error"].startswith("the scan says blocked; looked at again in ")
    assert master.database("db6")["last_error"].startswith("the scan says unreachable; looked at again in ")
    assert not master.database("db5")
    assert [each["name"] for each in master.status()["ignored"]] == ["db5"]
    master.set_databases(db1="ready", db3="absent", db4="ready", db6="ready")
    for name in ("db4", "db6"):
        master.wait_state(name, "ready")
    wait_until(lambda: not master.database("db3"), "db3 is gone")
    assert master.database("db1")["pid"] == kept


@pytest.mark.parametrize("trouble", ["error", "crash"])
def test_a_scan_in_trouble_changes_nothing_and_is_tried_again(start: Start, trouble: str) -> None:
    master = start("db1", rescan_interval=0.5)
    pid = master.wait_state("db1", "ready")["pid"]
    master.set_databases(**{trouble: "no connection"})
    master.wait_for("scan_failed")
    assert master.status()["problems"]
    assert master.database("db1")["pid"] == pid
    master.set_databases(db1="ready", db2="ready")
    master.wait_state("db2", "ready")
    assert master.status()["problems"] == []
    assert master.database("db1")["pid"] == pid


def test_a_callback_that_raises_costs_what_it_was_called_for(start: Start) -> None:
    master = start("db1", rescan_interval=0.5)
    pid = master.wait_state("db1", "ready")["pid"]
    master.set_databases(db1="ready", db2="odd")
    assert "TypeError" in master.wait_for("callback_failed")["reason"]
    assert master.database("db1")["pid"] == pid
    master.set_databases(db1="ready", db2="ready")
    master.wait_state("db2", "ready")
    assert master.database("db1")["pid"] == pid


def test_a_running_worker_survives_an_unreachable_or_blocked_verdict(start: Start) -> None:
    master = start("db1", "db2", rescan_interval=0.2)
    pids = [master.wait_state(name, "ready")["pid"] for name in ("db1", "db2")]
    master.set_databases(db1="unreachable", db2="blocked", mark="ready")
    master.wait_state("mark", "ready")
    assert [master.database(name)["pid"] for name in ("db1", "db2")] == pids


def test_a_vanished_database_and_the_scan_do_not_chase_each_other(start: Start) -> None:
    master = start("vanish_a", rescan_interval=0.1)
    wait_until(lambda: len(master.log_events("worker_spawned")) == 3, "it was tried again, twice")
    spawned = [str(each["timestamp"]).replace("Z", "+00:00") for each in master.log_events("worker_spawned")]
    first, second, third = map(datetime.fromisoformat, spawned)
    assert (second - first).total_seconds() >= 1, "with pauses"
    assert (third - second).total_seconds() >= 1.6, "that grow"
    assert "exit code 69" in master.database("vanish_a")["last_error"]


def test_more_databases_than_places(start: Start) -> None:
    master = start("db1", "db2", "db3", max_databases=2, rescan_interval=0.2)
    for name in ("db1", "db2"):
        master.wait_state(name, "ready")
    assert "max_databases = 2" in master.wait_state("db3", "failed")["last_error"]
    master.set_databases(db1="ready", db3="ready")
    master.wait_state("db3", "ready")


# -- reload --------------------------------------------------------------------------------------------------


def test_reload_applies_capacities_in_place(start: Start) -> None:
    master = start("db1")
    pid = master.wait_state("db1", "ready")["pid"]
    master.configure("queue_job", channels="root:9,root.new:3")
    answer = master.ask("reload")
    assert answer["channels_changed"]
    assert answer["restarted"] == []
    channels = {each["name"]: each["capacity"] for each in master.status()["channels"]}
    assert channels == {"root": 9, "root.new": 3}
    master.wait_for("order_received", do="channels", database="db1")
    assert master.database("db1")["pid"] == pid


def test_an_invalid_reload_changes_nothing_and_says_why(start: Start) -> None:
    master = start("db1")
    pid = master.wait_state("db1", "ready")["pid"]
    master.configure("queue_job", channels="root:nonsense")
    master.send_signal(signal.SIGHUP)
    assert "channels" in master.wait_for("configuration_rejected")["reason"]
    assert "channels" in master.ask("reload")["error"]
    assert [each["capacity"] for each in master.status()["channels"]] == [4, 2]
    assert master.database("db1")["pid"] == pid


def test_a_configuration_on_a_file_system_that_hangs_holds_up_nobody(start: Start, tmp_path: Path) -> None:
    """Workers are replaced, the socket answers, TERM is obeyed; who asked for the reload is told why it is not done."""
    (tmp_path / "hangs").mkdir()
    master = start("db1")
    pid = master.wait_state("db1", "ready")["pid"]
    with HangingFolder(tmp_path / "hangs") as hanging, ThreadPoolExecutor() as pool:
        master.conf.unlink()
        master.conf.symlink_to(hanging.path / "odoo.conf")
        begun = time.monotonic()
        reload = pool.submit(ask, master.socket, {"do": "reload"}, timeout_s=20)
        wait_until(lambda: "qjsupervisor: configuration" in str(master.titles()), "read")
        master.send_signal(signal.SIGHUP)
        os.kill(pid, signal.SIGKILL)
        assert master.status()["reloads"]["refused"] == 0
        wait_until(lambda: master.database("db1")["pid"] not in (None, pid), "it is replaced", 5)
        assert "could not be read within 10 s: does its file system answer?" in reload.result(20)["error"]
        assert 9.5 < time.monotonic() - begun < 15
        assert "could not be read within 10 s" in master.wait_for("configuration_rejected")["reason"]
        assert master.status()["reloads"]["refused"] >= 1
        mark = master.mark()
        master.send_signal(signal.SIGHUP)
        master.wait_for("signal_received", after=mark, signal="SIGHUP")
        begun = time.monotonic()
        assert master.stop() == 0
        assert time.monotonic() - begun < 5


def test_reload_restarts_only_workers_whose_settings_changed(start: Start) -> None:
    master = start("db1", "prod_a")
    kept, old = (master.wait_state(name, "ready")["pid"] for name in ("db1", "prod_a"))
    master.configure("qjsupervisor", targets="prod_*:http://elsewhere:1")
    assert master.ask("reload")["restarted"] == ["prod_a"]
    wait_until(lambda: master.database("prod_a")["pid"] not in (None, old), "a new worker")
    restarted = master.wait_state("prod_a", "ready")
    assert restarted["restarts"] == 0
    assert restarted["target"]["url"] == "http://elsewhere:1"
    master.wait_for("worker_reaped", database="prod_a", exit_code=0)
    assert master.database("db1")["pid"] == kept


def test_what_cannot_change_is_said_and_kept(start: Start) -> None:
    master = start("db1")
    master.wait_state("db1", "ready")
    master.configure("qjsupervisor", fairness="priority", max_databases=3)
    assert sorted(master.ask("reload")["needs_restart"]) == ["fairness", "max_databases"]
    master.wait_for("option_ignored", option="fairness")
    assert master.status()["fairness"] == "round-robin"


def test_a_new_log_level_reaches_the_workers(start: Start) -> None:
    master = start("db1")
    master.wait_state("db1", "ready")
    master.configure("qjsupervisor", log_level="warning")
    master.ask("reload")
    mark = master.mark()
    master.ask("pause", database="db1")
    master.configure("qjsupervisor", log_level="info")
    master.ask("reload")
    master.wait_for("order_received", after=mark, do="resync")
    assert not master.log_events("order_received", do="pauses")


# -- orders --------------------------------------------------------------------------------------------------


def test_pauses_reach_the_worker_survive_it_and_end(start: Start) -> None:
    master = start("db1", "db2")
    master.wait_state("db2", "ready")
    pid = master.wait_state("db1", "ready")["pid"]
    master.ask("pause", database="db1", channel="slow", for_s=3600)
    master.ask("pause", database=None, channel=None, for_s=0.3)
    order = master.wait_for("order_received", database="db2", do="pauses")
    assert list(order["pauses"]) == ["root"]
    master.wait_for("pause_ended", scope="all databases:root")
    assert [each["channel"] for each in master.status()["pauses"]] == ["root.slow"]
    mark = master.mark()
    os.kill(pid, signal.SIGKILL)
    order = master.wait_for("order_received", after=mark, database="db1", do="pauses")
    assert 3500 < order["pauses"]["root.slow"] - time.monotonic() < 3600
    master.configure("queue_job", channels="root:9")
    master.ask("reload")
    assert master.status()["pauses"]
    mark = master.mark()
    master.ask("resume", database="db1", channel="root.slow")
    assert master.wait_for("order_received", after=mark, database="db1", do="pauses")["pauses"] == {}
    assert "not paused" in master.ask("resume", database="db1")["error"]


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        ({"do": "explode"}, "unknown order"),
        ({"do": ["status"]}, "unknown order"),
        ({}, "unknown order"),
        ({"do": "pause", "database": "no_such"}, "not served; known are db1"),
        ({"do": "pause", "database": 7}, "must be a name"),
        ({"do": "pause", "for_s": -1}, "seconds above 0"),
        ({"do": "pause", "for_s": float("inf")}, "seconds above 0"),
        ({"do": "pause", "for_s": float("nan")}, "seconds above 0"),
        ({"do": "pause", "for_s": True}, "seconds above 0"),
        ({"do": "pause", "for_s": 10**400}, "seconds above 0"),
        ({"do": "pause", "channel": "root.\udcff"}, "is not UTF-8"),
    ],
)
def test_nonsense_is_refused(start: Start, order: dict[str, object], complaint: str) -> None:
    master = start("db1")
    master.wait_state("db1", "ready")
    answer = ask(master.socket, order)
    assert not answer["ok"]
    assert complaint in answer["error"]


def test_only_so_many_channels_are_paused_as_a_worker_can_be_told(start: Start) -> None:
    master = start("db1")
    pid = master.wait_state("db1", "ready")["pid"]
    answers = (ask(master.socket, {"do": "pause", "channel": f"{'é' * 400}{number}"}) for number in range(100))
    refused = next(answer for answer in answers if not answer["ok"])
    assert "too many channels are paused" in refused["error"]
    paused = len(master.status()["pauses"])
    assert paused > 10

    def told() -> int:
        return len(master.log_events("order_received", database="db1", do="pauses")[-1]["pauses"])

    wait_until(lambda: told() == paused, "the worker has heard it all")
    mark = master.mark()
    os.kill(pid, signal.SIGKILL)
    order = master.wait_for("order_received", after=mark, database="db1", do="pauses")
    assert len(order["pauses"]) == paused


def test_stop_by_order(start: Start) -> None:
    master = start("db1")
    assert master.ask("stop")["pid"] == master.pid
    assert master.wait() == 0


def test_usr2_describes(start: Start) -> None:
    master = start("db1")
    master.wait_state("db1", "ready")
    master.send_signal(signal.SIGUSR2)
    assert master.wait_for("worker_described", database="db1")["state"] == "ready"
    assert master.wait_for("channel_described", channel="root.slow")["capacity"] == 2


def test_hostile_clients_do_not_disturb(start: Start) -> None:
    master = start("db1", "db2")
    pids = [master.wait_state(name, "ready")["pid"] for name in ("db1", "db2")]
    clients = []
    for payload in (
        b"",
        b"{",
        b"\x00" * 70_000,
        b"[" * 65_000 + b"\n",
        b'{"do":"status"}\n' * 3000,
        b"GET / HTTP/1.0\n\n",
    ):
        for _ in range(12):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(1)
            clients.append(client)
            with suppress(OSError):
                client.connect(master.socket)
                client.sendall(payload)
    begun = time.monotonic()
    assert [master.database(name)["pid"] for name in ("db1", "db2")] == pids
    assert time.monotonic() - begun < 3
    for client in clients:
        client.close()
    assert master.stop() == 0


# -- many ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_two_hundred_workers(start: Start) -> None:
    names = [f"db{number:03}" for number in range(200)]
    master = start(*names)
    begun = time.monotonic()
    wait_until(lambda: count(master, "ready") == 200, lambda: f"200 ready: {count(master, 'ready')}", 60)
    spawned_s = time.monotonic() - begun
    master.children()
    victims = [each["pid"] for each in master.status()["databases"][::10]]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: sum(each["restarts"] for each in master.status()["databases"]) == 20, "20 restarts", 30)
    wait_until(lambda: count(master, "ready") == 200, "200 ready again", 30)
    begun = time.monotonic()
    assert master.stop() == 0
    stopped_s = time.monotonic() - begun
    master.wait_all_gone(0.1)
    assert spawned_s < 30, spawned_s
    assert stopped_s < 8, stopped_s


def count(master: Master, state: str) -> int:
    with suppress(NotRunning):
        return sum(each["state"] == state for each in master.status()["databases"])
    return 0
