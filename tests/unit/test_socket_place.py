"""Where a control socket may be, and where not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qjsupervisor.errors import ConfigError
from qjsupervisor.master.control_socket import ControlSocket


def test_unsafe_directories_are_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o770)
    (tmp_path / "file").touch()
    for name in ("link", "open", "file"):
        with pytest.raises(ConfigError, match="control_socket: "):
            ControlSocket(str(tmp_path / name / "control.sock"), lambda request: request).open()
    assert list(real.iterdir()) == []


def test_somebody_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(ConfigError, match="belongs to user id"):
        ControlSocket(str(tmp_path / "control.sock"), lambda request: request).open()


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than the 107 bytes"):
        ControlSocket(str(tmp_path / ("x" * 120)), lambda request: request).open()
