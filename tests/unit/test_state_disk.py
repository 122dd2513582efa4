"""The state file on a disk: what is no file of ours, and a folder that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qjsupervisor.master import state_disk, state_file


def read(path: str) -> tuple[int, bytes]:
    memory = os.memfd_create("test")
    try:
        return state_disk.run_read(path, memory), state_file._content(memory)
    finally:
        os.close(memory)


def test_reads_what_was_written_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    assert read(str(path)) == (state_disk.MISSING, b"")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_bytes(b"{}")
    assert read(str(path)) == (state_disk.READ, b"{}")


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "huge"])
def test_what_is_no_file_of_ours_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state.json"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, state_disk.MAX_BYTES + 1)
    code, reason = read(str(path))
    assert code == state_disk.BROKEN
    assert reason


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, reason = read(str(tmp_path / "file" / "state.json"))
    assert code == state_disk.UNUSABLE
    assert b"file" in reason
