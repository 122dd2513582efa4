"""The commands that talk to a running supervisor."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import requests

from qjsupervisor.control_client import ask
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import REPOSITORY, Supervisor, odoo_conf, wait_until
from ..scripted import unused_port


def conf(postgres: ThrowawayPostgres, name: str, **options: object) -> str:
    """Port 1: nobody answers there, so that jobs wait."""
    return odoo_conf(postgres, 1, db_name=name, channels="root:4,root.slow:1", sections={"qjsupervisor": options})


def why(supervisor: Supervisor, database: str) -> dict[str, list[str]]:
    done = supervisor.run("jobs", database, "--json")
    assert done.returncode == 0, done.stderr
    return {job["uuid"]: [reason["code"] for reason in job["reasons"]] for job in json.loads(done.stdout)["jobs"]}


def test_pause_and_resume(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    done = running.run("pause", f"{one.name}:slow", "--for", "30m")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"paused for 30 min: channel root.slow of {one.name}" in done.stdout
    (uuid,) = one.insert_jobs(1, channel="root.slow")
    (pause,) = running.status()["pauses"]
    assert (pause["database"], pause["channel"]) == (one.name, "root.slow")
    assert 1700 < pause["remaining_s"] <= 1800
    assert "paused" in why(running, one.name)[uuid]
    assert running.run("resume", f"{one.name}:slow").returncode == 0
    assert running.status()["pauses"] == []
    assert "paused" not in why(running, one.name)[uuid]


def test_what_the_supervisor_refuses(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    for arguments, said in (
        (("pause", "no_such"), "is not served"),
        (("resume", one.name), "is not paused"),
    ):
        done = running.run(*arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_reload(postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    running.write_conf(conf(postgres, one.name, max_databases=7, log_level="debug"))
    done = running.run("reload")
    assert done.returncode == 0
    assert "configuration read again" in done.stdout
    assert "max_databases: takes effect at the next start only" in done.stdout
    running.write_conf(conf(postgres, one.name, log_level="loud"))
    done = running.run("reload")
    assert done.returncode == 78, "the command reads the same file"
    assert "log_level" in done.stderr


def test_channels_are_renamed_without_end(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """The shared table has room for 256 channels more than there were at the start, and gives it to others again."""
    one, other = database(), database()

    def configured(turn: int) -> str:
        channels = ",".join(["root:4", *(f"root.area{turn}.c{number}:1" for number in range(29))])
        return odoo_conf(postgres, odoo.port, db_name=f"{one.name},{other.name}", channels=channels)

    running = supervisor(configured(0))
    running.wait_ready(one.name, other.name)
    pids = running.pids()
    socket_path = str(running.runtime / "control.sock")
    for turn in range(1, 35):  # a thousand
        running.write_conf(configured(turn))
        mark = running.mark()
        assert ask(socket_path, {"do": "reload"}, timeout_s=20)["ok"]
        for each in (one, other):
            running.wait_for("channels_read", after=mark, database=each.name)
    one.insert_jobs(2, channel="root.area34.c7")
    other.insert_jobs(2, channel="root.area34.c28")
    for each in (one, other):
        each.wait_for_states(done=2)
    names = [channel["name"] for channel in running.status()["channels"]]
    assert names.count("root.area34.c7") == 1
    assert len(names) == 31
    assert odoo.stats()["peak"]["root.area34.c7"] == 1
    assert running.pids() == pids


def test_status_is_asked_without_end_while_channels_are_shared(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    """A channel that appeared between two looks at the table ended the master, and so everything."""
    one, other = database(), database()
    text = odoo_conf(
        postgres, odoo.port, db_name=f"{one.name},{other.name}", channels="root:50,root.sub:50:capacity_default=2"
    )
    running = supervisor(text)
    running.wait_ready(one.name, other.name)
    pids, path = running.pids(), str(running.runtime / "control.sock")
    done = threading.Event()
    seen: list[int] = []

    def hammer() -> None:
        while not done.is_set():
            answer = ask(path, {"do": "status"}, timeout_s=5)
            assert answer["ok"], answer
            seen.append(len(answer["status"]["channels"]))

    with ThreadPoolExecutor() as pool:
        hammers = [pool.submit(hammer) for _ in range(2)]
        try:
            for number in range(120):
                for each in (one, other):
                    each.insert_jobs(1, channel=f"root.sub.c{number}")
            for each in (one, other):
                each.wait_for_states(done=120, timeout_s=60)
            wait_until(lambda: max(seen) == 122, "all channels are seen")
        finally:
            done.set()
        for asked in hammers:
            asked.result(30)
    assert len(set(seen)) > 10, "channels appeared between the answers"
    assert max(seen) == 122
    assert running.pids() == pids
    assert not running.log_events("request_failed")
    assert not running.log_events("callback_failed")


def test_a_new_log_level_holds_for_running_workers(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()

    def configured(level: str, log_jobs: str = "yes") -> str:
        own = {"log_level": level, "log_jobs": log_jobs}
        return odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": own})

    running = supervisor(configured("warning"))
    running.wait_ready(one.name)
    pids = running.pids()
    uuids = []
    for level in ("info", "warning", "info"):
        running.write_conf(configured(level))
        assert running.run("reload").returncode == 0
        uuids += one.insert_jobs(1)
        one.wait_for_states(done=len(uuids))
    first, _, third = uuids
    running.wait_for("job_finished", job_uuid=third)
    running.write_conf(configured("info", "no"))
    assert running.run("reload").returncode == 0
    one.insert_jobs(1)
    one.wait_for_states(done=4)
    assert running.run("pause", one.name).returncode == 0
    running.wait_for("order_accepted", order="pause", database=one.name, client_uid=os.getuid())
    assert [entry["job_uuid"] for entry in running.log_events("job_finished")] == [first, third]
    assert len(running.log_events("job_dispatched")) == 2
    assert running.pids() == pids
    assert len(running.log_events("order_accepted", order="reload")) == 2, "those at level info"


def test_status_for_people(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    done = running.run("status")
    assert done.returncode == 0
    for text in (one.name, "ready", "root.slow", "http://127.0.0.1:1"):
        assert text in done.stdout
    (view,) = json.loads(running.run("status", "--json").stdout)["databases"]
    assert (view["name"], view["state"], view["pid"]) == (one.name, "ready", running.pids()[one.name])


def test_target_down(postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    (uuid,) = one.insert_jobs(1)
    wait_until(lambda: "target down" in why(running, one.name)[uuid], "the job waits for its target")


def test_stop(
    postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory, tmp_path: Path
) -> None:
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    done = running.run("stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"stopped (was process {running.pid})" in done.stdout
    assert running.wait() == 0
    assert running.run("stop").returncode == 69


def test_watch(postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory) -> None:
    """On a terminal, until Ctrl-C; the supervisor may come and go meanwhile."""
    one = database()
    running = supervisor(conf(postgres, one.name))
    running.wait_ready(one.name)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        running.command("status", "--watch"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**running.env, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        cwd=REPOSITORY,
        start_new_session=True,
    ) as watch:
        os.close(theirs)
        shown = Screen(ours)
        shown.wait_for("root.slow")
        running.stop()
        shown.wait_for("no supervisor runs")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 130
        os.close(ours)
    assert "Traceback" not in shown.text


class Screen:
    """What was written to a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self.text = ""

    def wait_for(self, wanted: str) -> None:
        wait_until(lambda: wanted in self._read(), lambda: f"{wanted!r} on the screen: {self.text[-2000:]!r}")

    def _read(self) -> str:
        with suppress(BlockingIOError, OSError):
            while chunk := os.read(self._descriptor, 65536):
                self.text += chunk.decode(errors="replace")
        return self.text


def test_monitor(postgres: ThrowawayPostgres, database: DatabaseFactory, supervisor: SupervisorFactory) -> None:
    """The master's monitor tells the same as `status`, and ends with a killed master."""
    one = database()
    port = unused_port()
    running = supervisor(conf(postgres, one.name, monitor=f"127.0.0.1:{port}"))
    running.wait_ready(one.name)
    one.insert_jobs(3, eta_s=600)
    wait_until(lambda: not _refuses(port), "the monitor, a process of its own, listens")
    url = f"http://127.0.0.1:{port}"
    metric = f'qjsupervisor_database_pending{{database="{one.name}"}} 3.0'
    wait_until(lambda: metric in requests.get(f"{url}/metrics", timeout=5).text, "three jobs in the metrics")
    assert requests.get(f"{url}/healthz", timeout=5).text == "ok\n"
    assert requests.get(f"{url}/status", timeout=5).json()["pid"] == running.pid
    assert one.name in requests.get(url, timeout=5).text
    running.children()
    running.kill()
    wait_until(lambda: _refuses(port), "the monitor ends with its master")


def _refuses(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
