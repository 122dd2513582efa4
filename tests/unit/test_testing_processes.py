"""Accounts and ports of the demo. Its child processes: tests/integration/test_testing_postgres.py."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from pathlib import Path

import pytest

from qjsupervisor.testing.processes import (
    Account,
    DemoError,
    free_port,
    last_lines,
    server_account,
    temporary_directory,
)


def test_what_an_account_may_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    owner, stranger = Account("me", os.getuid(), os.getgid()), Account("them", 54321, 54321)
    file.chmod(0o640)
    assert not stranger.may_read(file)
    file.chmod(0o440)
    assert owner.may_read(file) is owner.may_enter(tmp_path)
    file.chmod(0o310)
    assert not owner.may_read(file), "a program has to be read too"
    tmp_path.chmod(0o700)
    file.chmod(0o444)
    assert not stranger.may_read(file), "nobody else gets there"


def test_an_ordinary_user_is_the_server_s_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    assert server_account().uid == 65534


def test_root_has_no_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert server_account().uid != 0

    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(DemoError, match="add one"):
        server_account()


def test_a_directory_in_which_a_socket_s_path_is_not_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    assert temporary_directory(Account("me", os.getuid(), os.getgid())) == Path("/tmp")


def test_a_free_port_can_be_had() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_the_end_of_a_log(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none") == "(no log)"
    (tmp_path / "log").write_bytes(b"".join(b"line %d\n" % n for n in range(30)) + b"\xff")
    assert last_lines(tmp_path / "log", 2) == "line 29\n\ufffd"
