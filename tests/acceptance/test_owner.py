"""A supervisor that runs as an ordinary user, as it should; root looks after it, strangers do not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import REPOSITORY, Supervisor, odoo_conf

OWNER, STRANGER = 65534, 65533

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def as_user(uid: int, command: Sequence[str]) -> list[str]:
    """With the one capability that lets it read the interpreter, which may lie in root's home."""
    who = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *who, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", *command]


class OwnedSupervisor(Supervisor):
    """`start` runs as OWNER, every other command as root; `run_as` as anybody."""

    def command(self, *arguments: str) -> list[str]:
        command = super().command(*arguments)
        return as_user(OWNER, command) if arguments[0] == "start" else command

    def run_as(self, uid: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = as_user(uid, super().command(*arguments))
        return subprocess.run(
            command, check=False, env=self.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=30
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """OWNER's directory, with a short name, and open to all."""
    path = Path(tempfile.mkdtemp(prefix="qjs-own-", dir="/tmp"))
    path.chmod(0o755)
    os.chown(path, OWNER, OWNER)
    yield path
    shutil.rmtree(path)


def test_owner_and_root_give_orders(
    postgres: ThrowawayPostgres, database: DatabaseFactory, folder: Path, tmp_path: Path
) -> None:
    one = database()
    own = {"qjsupervisor": {"control_socket": folder / "run" / "control.sock"}}
    running = OwnedSupervisor(odoo_conf(postgres, 1, db_name=one.name, sections=own), tmp_path)
    try:
        running.start()
        running.wait_ready(one.name)  # root asks
        processes = [psutil.Process(running.pid), *running.children()]
        assert {process.uids().real for process in processes} == {OWNER}
        assert json.loads(running.run_as(OWNER, "status", "--json").stdout)["pid"] == running.pid
        stranger = running.run_as(STRANGER, "stop")  # the capability lets it past the modes
        assert stranger.returncode != 0
        running.wait_for("client_refused", client_uid=STRANGER)
        assert running.run("reload").returncode == 0
        assert running.run("stop").returncode == 0
        assert running.wait() == 0
    finally:
        running.close()


def test_an_impostor_is_not_believed(folder: Path, tmp_path: Path) -> None:
    """Somebody listens in a directory that is neither his nor ours: no command is sent to him, root's neither."""
    path = folder / "control.sock"
    folder.chmod(0o777)
    running = Supervisor(f"[qjsupervisor]\ncontrol_socket = {path}\n", tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        os.seteuid(STRANGER)
        try:
            listener.bind(str(path))
            listener.listen()
        finally:
            os.seteuid(0)
        done = running.run("stop")
        assert done.returncode != 0
        assert f"user id {STRANGER}" in done.stderr
        listener.settimeout(30)
        client, _ = listener.accept()
        with client:
            assert client.recv(100) == b""
