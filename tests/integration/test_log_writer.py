"""The process that writes `log_file`: a file system that hangs holds up nobody else; no line is lost at an end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor.monitor.health import warnings
from tests.hanging import HangingFolder
from tests.helpers import wait_until, written

from .test_master import Master


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "logs"
    made.mkdir()
    return made


@pytest.fixture
def master(tmp_path: Path, folder: Path) -> Iterator[Master]:
    made = Master(tmp_path, "db1", log_file=folder / "log", log_format="json", pidfile=folder / "pid")
    made.start()
    made.wait_state("db1", "ready")
    yield made
    made.close()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(file).splitlines()]


def events(file: Path) -> list[str]:
    return [line["event"] for line in lines(file)]


def writer(master: Master) -> int:
    return int(master.titled("qjsupervisor: log").pid)


def test_a_file_system_that_hangs_stops_nobody(master: Master, folder: Path) -> None:
    """Lines wait, `status` says so, they are written when it answers again; and the master ends while it hangs."""
    with HangingFolder(folder):
        for number in range(20):
            began_s = time.monotonic()
            master.ask("pause", database="db1", channel=f"c{number}")
            assert time.monotonic() - began_s < 1
        wait_until(lambda: "does its file system answer?" in str(warnings(master.status())), "it is told", 15)
        (worker,) = [each for each in master.status()["databases"] if each["name"] == "db1"]
        assert worker["state"] == "ready"
    wait_until(lambda: events(folder / "log").count("pauses_changed") == 20, lambda: f"{events(folder / 'log')}")
    wait_until(lambda: not warnings(master.status()), lambda: f"{warnings(master.status())}")
    with HangingFolder(folder):
        began_s = time.monotonic()
        assert master.stop() == 0
        assert time.monotonic() - began_s < 10
        master.wait_all_gone()
    assert (folder / "pid").exists(), "it could not be removed"
    master.start()
    master.wait_state("db1", "ready")


def test_every_line_is_in_the_file_at_the_end(master: Master, folder: Path) -> None:
    """Also after the writer was replaced, the file rotated and renamed by a reload; and after the master was killed."""
    first = writer(master)
    os.kill(first, signal.SIGKILL)
    master.ask("pause", database="db1")
    wait_until(lambda: "pauses_changed" in events(folder / "log"), "a new writer goes on where the former one ended")
    assert writer(master) != first
    (folder / "log").rename(folder / "log.1")
    master.send_signal(signal.SIGUSR1)
    wait_until(lambda: (folder / "log").exists(), "it is opened again")
    master.configure("qjsupervisor", log_file=folder / "other")
    assert master.ask("reload")["ok"]
    wait_until(lambda: "configuration_loaded" in events(folder / "other"), "it goes elsewhere")
    master.configure("qjsupervisor", log_file=folder / "none" / "log")
    refused = master.ask("reload")
    assert (refused["ok"], refused["option"]) == (False, "log_file")
    assert master.stop() == 0
    assert events(folder / "other")[-1] == "master_stopped"
    assert (folder / "other").read_text().endswith("}\n")
    assert not (folder / "pid").exists()


def test_what_the_others_say_after_the_masters_death_is_written(master: Master, folder: Path) -> None:
    master.children()
    master.kill()
    master.wait_all_gone()
    assert {"master_started", "worker_began"} <= set(events(folder / "log"))
    assert all(line["timestamp"] for line in lines(folder / "log"))
    assert (folder / "log").read_text().endswith("}\n")
