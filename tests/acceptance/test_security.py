"""Who may give orders, what is written where, and that no password is to be seen anywhere."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from qjsupervisor.control_client import ask
from qjsupervisor.states import EX_CONFIG
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, StandInFactory, SupervisorFactory
from ..helpers import Supervisor, odoo_conf, wait_until
from ..scripted import unused_port


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def order_as_nobody(path: Path) -> bytes:
    """What `stop` brings who is neither root nor the owner; PermissionError where he is not even let in."""
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as peer:
            peer.settimeout(5)
            peer.connect(str(path))
            with suppress(BrokenPipeError, ConnectionResetError):
                peer.sendall(b'{"do": "stop"}\n')
                return peer.recv(100)
            return b""
    finally:
        os.seteuid(0)


def test_only_owner_and_root_give_orders(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """By the file's mode, and, where somebody opened that, by who the kernel says he is."""
    one = database()
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name))
    running.wait_ready(one.name)
    path = running.runtime / "control.sock"
    assert (mode(path), mode(running.runtime)) == ("0o600", "0o700")
    assert path.stat().st_uid == os.geteuid()
    assert ask(str(path), {"do": "status"}, timeout_s=5)["status"]["pid"] == running.pid
    if os.geteuid() == 0:  # who is not root cannot become somebody else: then the mode is all there is to see
        with pytest.raises(PermissionError):
            order_as_nobody(path)
        running.runtime.chmod(0o755)
        path.chmod(0o666)
        assert order_as_nobody(path) == b""
        line = running.wait_for("client_refused")
        assert line["client_uid"] == pwd.getpwnam("nobody").pw_uid
    assert running.status()["pid"] == running.pid, "it was not stopped"


def test_links_are_not_followed(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory, tmp_path: Path
) -> None:
    """Somebody else's file would be overwritten: pidfile and control socket through a symbolic link are refused."""
    one = database()
    victim = tmp_path / "victim"
    victim.write_text("4711\n")
    link = tmp_path / "link"
    link.symlink_to(victim)
    folder = tmp_path / "linked"
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    for options in ({"pidfile": link}, {"control_socket": link}, {"control_socket": folder / "control.sock"}):
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": options}))
        assert running.wait() == EX_CONFIG
        (said,) = running.log_text().splitlines()
        assert next(iter(options)) in said
        assert victim.read_text() == "4711\n"
        assert not list((tmp_path / "elsewhere").iterdir())
    pidfile = tmp_path / "pid"
    running = supervisor(
        odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": {"pidfile": pidfile}})
    )
    running.wait_ready(one.name)
    assert pidfile.read_text() == f"{running.pid}\n"
    assert not pidfile.stat().st_mode & 0o022
    running.stop()
    assert not pidfile.exists()


# -- passwords ---------------------------------------------------------------------------------------------------

HTTP_PASSWORD, WRONG_PASSWORD = "http-s3cret%#", "wr0ng-s3cret"


def everything_visible(supervisor: Supervisor, port: int) -> str:
    """All that a user of this machine, or a reader of logs and metrics, gets to see."""
    seen = [supervisor.log_text()]
    for arguments in (("status",), ("status", "--json"), ("check",), ("check", "--json"), ("jobs", "secrets")):
        done = supervisor.run(*arguments)
        seen += [done.stdout, done.stderr]
    seen += [requests.get(f"http://127.0.0.1:{port}/{page}", timeout=5).text for page in ("metrics", "status", "")]
    for pid in (supervisor.pid, *(process.pid for process in supervisor.children())):
        with suppress(FileNotFoundError, ProcessLookupError):  # a scout that just ended
            seen += [Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace") for name in ("cmdline", "comm")]
    return "\n".join(seen)


def test_no_password_is_visible(
    postgres: ThrowawayPostgres, database: DatabaseFactory, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """While all is well, with a wrong password, with targets that fail, after a reload, in a dump of stacks."""
    one, other = database("secrets"), database("secrets_by_uri")
    odoo = stand_in(auth=f"runner:{HTTP_PASSWORD}")
    port = unused_port()
    place = f"{postgres.host}:{postgres.port}"
    right = f"postgresql://{postgres.user}:{quote(postgres.password)}@{place}/{other.name}"
    wrong = f"postgresql://{postgres.user}:{WRONG_PASSWORD}@{place}/{one.name}_too"
    sections: dict[str, dict[str, object]] = {
        "queue_job": {"http_auth_user": "runner", "http_auth_password": HTTP_PASSWORD},
        "qjsupervisor": {"monitor": f"127.0.0.1:{port}", "log_level": "debug", "rescan_interval": 1},
    }
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=f"{one.name},{right},{wrong}", sections=sections))
    running.wait_ready(one.name, other.name)
    running.wait_for("monitor_started")
    for each in (one, other):
        each.insert_jobs(3)
        each.wait_for_states(done=3)
    assert odoo.stats()["with_credentials"] == 6
    wait_until(lambda: "password authentication failed" in running.log_text(), "the wrong password is wrong")
    odoo.stop()
    one.insert_jobs(1)
    running.wait_for("target_down")
    assert running.run("reload").returncode == 0
    running.send_signal(signal.SIGUSR2)
    running.wait_for("worker_described")
    seen = everything_visible(running, port)
    running.send_signal(signal.SIGQUIT)
    running.wait()
    seen += running.log_text()
    for secret in (postgres.password, HTTP_PASSWORD, quote(HTTP_PASSWORD), WRONG_PASSWORD):
        assert secret not in seen
    assert "secrets" in seen, "it is looked at the right things"
    assert "Current thread" in running.log_text(), "the stacks were there"


def test_no_password_in_the_command_line(
    postgres: ThrowawayPostgres, database: DatabaseFactory, stand_in: StandInFactory, supervisor: SupervisorFactory
) -> None:
    """One that was given there is used, and is not shown to whoever lists the processes."""
    one = database()
    odoo = stand_in(auth=f"runner:{HTTP_PASSWORD}")
    target = f"http://runner:{quote(HTTP_PASSWORD, safe='')}@127.0.0.1:{odoo.port}"
    both = f"other_*:http://runner:{WRONG_PASSWORD} {WRONG_PASSWORD}@odoo,*:{target}"
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name), arguments=("--targets", both))
    running.wait_ready(one.name)
    one.insert_jobs(1)
    one.wait_for_states(done=1)
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (running.pid, *running.pids().values())]
    assert f"--targets other_*:http://...@127.0.0.1:{odoo.port}" in lines[0]
    secrets = (HTTP_PASSWORD, quote(HTTP_PASSWORD, safe=""), WRONG_PASSWORD)
    assert not any(secret in line for line in lines for secret in secrets)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"options": {"db_name": f"postgresql://odoo:{WRONG_PASSWORD}@[::1/x"}}, id="uri"),
        pytest.param({"options": {"db_password": WRONG_PASSWORD, "db_port": "many"}}, id="port"),
        pytest.param({"queue_job": {"http_auth_password": WRONG_PASSWORD, "port": "many"}}, id="target"),
        pytest.param({"qjsupervisor": {"targets": f"*:http://runner:{WRONG_PASSWORD}@odoo:80:80"}}, id="targets"),
    ],
)
def test_no_password_in_what_is_refused(
    postgres: ThrowawayPostgres, tmp_path: Path, options: dict[str, dict[str, object]]
) -> None:
    text = odoo_conf(postgres, 8069, sections=options)
    for command in ("check", "start", "status"):
        done = Supervisor(text, tmp_path).run(command)
        assert done.returncode == EX_CONFIG, done.stdout
        assert WRONG_PASSWORD not in done.stdout + done.stderr
        assert done.stderr


def test_log_file_is_not_for_everybody(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory, tmp_path: Path
) -> None:
    one, log = database(), tmp_path / "qjsupervisor.log"
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": {"log_file": log}}))
    running.wait_ready(one.name)
    wait_until(log.exists, "its process has opened it")
    assert not log.stat().st_mode & 0o007


def test_password_changed_under_a_worker(
    postgres: ThrowawayPostgres, database: DatabaseFactory, odoo: StandIn, supervisor: SupervisorFactory
) -> None:
    """Its connection ends then: said without either password, and served again when it is changed back."""
    one, old, new = database(), "Erstes-Wort", "Zweites-Wort"
    postgres.execute("postgres", f"CREATE ROLE changing LOGIN PASSWORD '{old}' IN ROLE odoo", superuser=True)
    try:
        sections: dict[str, dict[str, object]] = {
            "options": {"db_user": "changing", "db_password": old},
            "qjsupervisor": {"log_level": "debug", "rescan_interval": 1},
        }
        running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections=sections))
        running.wait_ready(one.name)
        pids = running.pids()
        postgres.execute("postgres", f"ALTER ROLE changing PASSWORD '{new}'", superuser=True)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'changing'"
        postgres.execute("postgres", end, superuser=True)
        one.insert_jobs(2)

        def refused() -> bool:
            entry = running.database_status(one.name)
            return entry is not None and "authentication failed" in str(entry["last_error"])

        wait_until(refused, lambda: f"said so: {running.database_status(one.name)}")
        shown = [running.log_text()]
        for command in (("status",), ("status", "--json"), ("check",), ("check", "--json"), ("jobs", one.name)):
            done = running.run(*command)
            shown += [done.stdout, done.stderr]
        postgres.execute("postgres", f"ALTER ROLE changing PASSWORD '{old}'", superuser=True)
        one.wait_for_states(done=2, timeout_s=30)
        assert not any(password in text for text in shown for password in (old, new))
        assert running.pids() == pids
        assert len(running.log_events("database_lost")) <= 2
        running.stop()
    finally:
        one.drop()
        postgres.execute("postgres", "DROP ROLE changing", superuser=True)
