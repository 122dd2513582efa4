"""The files in conf/ for systemd and containers, and what systemd is told, by a socket as systemd's."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from qjsupervisor.config.options import OPTIONS, QUEUE_JOB_OPTIONS
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import REPOSITORY, odoo_conf, wait_until
from ..scripted import unused_port

CONF = REPOSITORY / "conf"
VARIABLES = {str(option.variable) for option in (*OPTIONS, *QUEUE_JOB_OPTIONS)}


class Systemd:
    """The socket that a service of Type=notify speaks to."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/notify.sock"
        self.said: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)

    def count(self, name: str) -> int:
        """How often a variable was sent so far."""
        try:
            while True:
                lines = self._socket.recv(65536).decode().splitlines()
                self.said.append(dict(line.split("=", 1) for line in lines))
        except BlockingIOError:
            return sum(name in message for message in self.said)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    with tempfile.TemporaryDirectory(prefix="qjs-sd-", dir="/tmp") as folder, closing(Systemd(folder)) as one:
        yield one


def test_systemd_is_told(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
    systemd: Systemd,
) -> None:
    """Ready, reloading and ready again, signs of life only while the loop turns, stopping; and who the pid says."""
    name = database().name
    variables = {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "600000"}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=name), env=variables)
    wait_until(lambda: systemd.count("READY"), "it is ready")
    running.wait_ready(name)
    wait_until(lambda: systemd.count("WATCHDOG") > 2, "signs of life")
    wait_until(lambda: systemd.count("READY") >= 2, "the databases were read")

    def status() -> str:
        systemd.count("STATUS")
        return [message["STATUS"] for message in systemd.said if "STATUS" in message][-1]

    wait_until(lambda: status() == "1 of 1 databases ready", status)
    ready = systemd.count("READY")
    assert running.run("reload").returncode == 0
    wait_until(lambda: systemd.count("READY") > ready, "the reload is over")
    order = [next(iter(message)) for message in systemd.said if "WATCHDOG" not in message]
    assert order[-2:] == ["RELOADING", "READY"]
    running.process.send_signal(signal.SIGSTOP)
    systemd.count("WATCHDOG")
    before = len(systemd.said)
    with pytest.raises(AssertionError):
        wait_until(lambda: systemd.count("WATCHDOG") and len(systemd.said) > before + 1, "none comes", 1.0)
    running.process.send_signal(signal.SIGCONT)
    running.process.terminate()
    wait_until(lambda: systemd.count("STOPPING"), "it stops")
    assert running.process.wait(30) == 0


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program and a user that are there."""
    text = (CONF / "qjsupervisor.service").read_text()
    text = text.replace("/opt/qjsupervisor/bin/qjsupervisor", "/bin/true")
    text = re.sub(r"(?m)^(User|Group)=odoo$", r"\1=daemon", text)
    file = tmp_path / "qjsupervisor.service"
    file.write_text(text)
    return file


def analyze(*arguments: str) -> str:
    path = shutil.which("systemd-analyze")
    assert path is not None, "there is no systemd-analyze: apt-get install systemd"
    done = subprocess.run([path, *arguments], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_unit_is_right(unit: Path) -> None:
    assert analyze("verify", str(unit)) == ""


def test_the_unit_exposes_little(unit: Path) -> None:
    level = re.search(r"exposure level for \S+: ([\d.]+)", analyze("--offline=true", "security", str(unit)))
    assert level is not None
    assert float(level[1]) <= 2.0


def test_containerfile() -> None:
    """A number for its user, variables that there are, and a health check that does what it says."""
    text = (CONF / "Containerfile").read_text()
    assert re.search(r"(?m)^USER \d+:\d+$", text)
    assert set(re.findall(r"\b((?:QJSUPERVISOR|ODOO_QUEUE_JOB)_[A-Z_]+)=", text)) <= VARIABLES


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CONF / "kubernetes.yml").read_text()))


def test_kubernetes(documents: list[dict[str, Any]]) -> None:
    kinds = {document["kind"]: document for document in documents}
    assert list(kinds) == ["ConfigMap", "Secret", "Deployment", "Service", "ServiceMonitor"]
    assert set(kinds["Secret"]["stringData"]) <= VARIABLES
    pod = kinds["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert kinds["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert kinds["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == kinds["Service"]["metadata"]["labels"]


def test_the_probes_of_kubernetes_are_answered_by_its_configuration(
    postgres: ThrowawayPostgres,
    odoo: StandIn,
    database: DatabaseFactory,
    supervisor: SupervisorFactory,
    documents: list[dict[str, Any]],
) -> None:
    """Its odoo.conf, with our addresses in place of its names."""
    name, port = database().name, unused_port()
    conf = documents[0]["data"]["odoo.conf"]
    ours = f"db_host = {postgres.host}\ndb_port = {postgres.port}\ndb_password = {postgres.password}\ndb_name = {name}"
    conf = conf.replace("db_host = postgresql", ours).replace("db_user = odoo", f"db_user = {postgres.user}")
    conf = conf.replace("host = odoo\n", f"host = 127.0.0.1\nport = {odoo.port}\n")
    running = supervisor(conf, env={"QJSUPERVISOR_MONITOR": f"127.0.0.1:{port}"})
    running.wait_ready(name)
    (container,) = documents[2]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        wait_until(lambda path=path: is_answered(f"http://127.0.0.1:{port}{path}"), f"{probe} is answered")


def is_answered(url: str) -> bool:
    """With 200."""
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:  # the monitor does not listen yet
        return False
