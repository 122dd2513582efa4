"""What a master keeps over restarts: real files, real processes, real deaths."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from qjsupervisor.states import EX_CONFIG
from tests.hanging import HangingFolder
from tests.helpers import wait_until

from .test_master import Master, Start, start  # noqa: F401  (the fixture)


def restart(master: Master) -> None:
    before = len(master.log_events("master_started"))
    master.start()
    wait_until(lambda: len(master.log_events("master_started")) > before, lambda: f"started anew: {master.tail()}")
    master.wait_state("db1", "ready")


def kept(path: Path) -> list[str]:
    """The channels of the pauses that are in the file."""
    return [pause["channel"] for pause in json.loads(path.read_text()).get("pauses", [])] if path.exists() else []


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_pauses_survive_the_supervisor(start: Start, end: str) -> None:  # noqa: F811
    master = start("db1", "db2", graceful_timeout=2)
    file = Path(f"{master.socket}.state")
    master.wait_state("db1", "ready")
    assert not file.exists()
    master.ask("pause", database="db1", channel="slow", for_s=60, by="anna (command line)")
    master.ask("release", database="db2")
    master.ask("pause", channel="other", for_s=1.5)
    if end == "kill":
        wait_until(lambda: len(kept(file)) == 3, lambda: f"written: {kept(file)}", 3)
        master.kill()
    else:
        assert master.stop() == 0
        assert len(kept(file)) == 3, "the stop writes the last change"
    over_s = time.time() + 1.5
    wait_until(lambda: time.time() > over_s, "one pause is over")
    restart(master)
    by_channel = {(each["database"], each["channel"]): each for each in master.status()["pauses"]}
    assert set(by_channel) == {("db1", "root.slow"), ("db2", "root")}, "one is over"
    slow = by_channel["db1", "root.slow"]
    assert slow["by"] == "anna (command line)"
    assert 50 < slow["remaining_s"] < 59
    assert by_channel["db2", "root"]["released"]
    assert [*master.log_events("order_received", database="db1")[-1]["pauses"]] == ["root.slow"]
    master.ask("resume", database="db1", channel="slow")
    master.ask("resume", database="db2")
    wait_until(lambda: kept(file) == [], "an empty file", 3)


def test_a_state_dir_is_made_and_is_one_supervisors_own(start: Start, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "state"
    first = start("db1", state_dir=folder)
    wait_until(lambda: (folder / "state.json").exists(), "it is written at once", 3)
    second = Master(tmp_path, "db1", state_dir=folder, pidfile=None)
    try:
        second.start()
        assert second.wait() == EX_CONFIG
        assert f"is in use by the supervisor at {first.socket}" in second.tail()
    finally:
        second.close()


def test_a_state_dir_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    master = Master(tmp_path, "db1", state_dir=tmp_path / "file")
    try:
        master.start()
        assert master.wait() == EX_CONFIG
        assert "state_dir: " in master.tail()
    finally:
        master.close()


def test_a_broken_file_costs_one_line(start: Start, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "state.json").write_bytes(b'{"version": 1, "pauses": [null, {"database": "db1", "channel": "root"}')
    master = start("db1", state_dir=folder)
    master.wait_state("db1", "ready")
    assert master.status()["pauses"] == []
    assert len(master.log_events("state_ignored")) == 1
    assert "Traceback" not in master.tail()


def test_a_file_system_that_hangs_holds_up_nothing_but_the_start_for_a_while(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    master = Master(tmp_path, "db1", state_dir=folder, graceful_timeout=2)
    with HangingFolder(folder):
        try:
            master.start()
            master.wait_for("state_ignored", timeout_s=10)
            master.wait_state("db1", "ready")
            began_s = time.monotonic()
            master.ask("pause", database="db1")
            master.ask("pause", database="db1", channel="slow")
            assert time.monotonic() - began_s < 1
            assert len(master.status()["pauses"]) == 2
            assert "does its file system answer?" in master.status()["state_file"]["error"]
            began_s = time.monotonic()
            assert master.stop() == 0
            assert time.monotonic() - began_s < 5
        finally:
            master.close()
