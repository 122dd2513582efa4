"""What a log line looks like, and what it must not be able to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from qjsupervisor import logs
from qjsupervisor.config.load import load
from qjsupervisor.errors import ConfigError

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Configure]:
    """configure(log_level="debug", ...) -> the file that is logged to; everything is as before afterwards."""
    before = structlog.get_config()

    def call(file: str = "log", **options: str) -> Path:
        path = tmp_path / file
        logs.configure(load({"log_file": str(path), **options}, {"HOME": str(tmp_path)}))
        return path

    yield call
    logs.configure(load({}, {"HOME": str(tmp_path)}))
    structlog.configure(**before)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_one_object_a_line_with_when_how_grave_and_what_first(configure: Configure) -> None:
    path = configure(log_format="json")
    log = logs.get_logger(database="db", slot=3)
    log.info("job_dispatched", job_uuid="u")
    log.bind(worker_pid=7).warning("worker_reaped", exit_code=-9)
    first, second = records(path)
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert first["timestamp"].endswith("Z")
    assert first.items() >= {"level": "info", "event": "job_dispatched", "database": "db", "job_uuid": "u"}.items()
    assert second.items() >= {"level": "warning", "slot": 3, "worker_pid": 7, "exit_code": -9}.items()
    assert isinstance(first["pid"], int)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(configure: Configure, level: str, written: list[str]) -> None:
    path = configure(log_level=level)
    log = logs.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event_happened")
    assert [record["level"] for record in records(path)] == written


def test_logger_made_before_follows_a_new_configuration(configure: Configure) -> None:
    log = logs.get_logger(database="db")
    first = configure("first", log_level="error")
    log.info("not_wanted")
    second = configure("second", log_level="info")
    log.info("wanted")
    assert records(first) == []
    assert [record["event"] for record in records(second)] == ["wanted"]


def test_same_file_goes_on(configure: Configure) -> None:
    path = configure()
    sink = logs._sink
    logs.get_logger().info("first")
    configure(log_level="debug")
    logs.get_logger().debug("second")
    assert logs._sink is sink
    assert [record["event"] for record in records(path)] == ["first", "second"]


def test_auto_is_json_in_a_file(configure: Configure) -> None:
    path = configure(log_format="auto")
    logs.get_logger().info("started")
    assert records(path)[0]["event"] == "started"


def test_for_people(configure: Configure) -> None:
    path = configure(log_format="console")
    logs.get_logger(database="my db", slot=3).info("worker_spawned", reason='say "hi"', empty="", none=None, n=1.5)
    line = path.read_text()
    assert 'info    worker_spawned database="my db" slot=3' in line
    assert 'reason="say \\"hi\\"" empty="" none=None n=1.5' in line
    assert line.count("\n") == 1
    assert "\x1b" not in line


HOSTILE = [
    "\x1b[31mred\x1b]0;title\x07",
    "a\nworker_spawned database=forged",
    "c1 \x9b31m",
    "\u202eright to left",
    "\u2028separator",
    "half \udc80",
    "nul \x00",
    "back\rslash",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "wrap", [str, lambda text: [text], lambda text: {text: 1}, lambda text: text.encode("utf-8", "replace")]
)
def test_nothing_reaches_a_terminal(
    configure: Configure, log_format: str, text: str, wrap: Callable[[str], object]
) -> None:
    path = configure(log_format=log_format)
    logs.get_logger(database=text).error("job_refused", channel=wrap(text))
    (line,) = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert line.isprintable()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_traceback(configure: Configure, log_format: str) -> None:
    path = configure(log_format=log_format)
    try:
        raise ValueError("bad \x1b[31m payload")
    except ValueError:
        logs.get_logger().error("worker_failed", exc_info=True)
    text = path.read_text()
    assert "Traceback (most recent call last)" in text
    assert "ValueError: bad" in text
    assert "\x1b" not in text
    if log_format == "json":
        assert "exc_info" not in records(path)[0]
    else:
        assert all(line.startswith("    ") for line in text.splitlines()[1:])


class Odd:
    def __repr__(self) -> str:
        return "odd \x1b[31m"


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, Odd(), b"\xff", {b"key": 1}, object],
    ids=lambda value: str(type(value)),
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_any_value_can_be_logged(configure: Configure, log_format: str, value: object) -> None:
    path = configure(log_format=log_format)
    logs.get_logger().info("value_seen", value=value)
    (line,) = path.read_text().splitlines()
    assert line.isprintable()
    if log_format == "json":
        assert json.loads(line, parse_constant=pytest.fail)["event"] == "value_seen"


def test_value_that_holds_itself(configure: Configure) -> None:
    path = configure(log_format="json")
    endless: list[object] = []
    endless.append(endless)
    logs.get_logger().info("value_seen", value=endless)
    assert records(path)[0]["value"] == "[[...]]"


def test_endless_text_is_cut(configure: Configure) -> None:
    path = configure(log_format="json")
    logs.get_logger().info("notification_refused", payload="x" * 10_000_000)
    assert path.stat().st_size < 3000
    assert records(path)[0]["payload"].endswith("... (10000000 characters)")


@pytest.mark.parametrize("place", ["missing/log", "file/log", "."])
def test_file_that_cannot_be_is_a_wrong_configuration(configure: Configure, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    good = configure()
    with pytest.raises(ConfigError, match=r"log_file .* cannot be opened: .*; name a file that can be written"):
        configure(place)
    logs.get_logger().info("still_there")
    assert records(good)[0]["event"] == "still_there"


def test_rotation(configure: Configure, tmp_path: Path) -> None:
    path = configure()
    log = logs.get_logger()
    log.info("first")
    path.rename(tmp_path / "log.1")
    log.info("second")
    path.unlink()
    logs.reopen()
    assert path.exists()
    log.info("third")
    assert [record["event"] for record in records(tmp_path / "log.1")] == ["first"]
    assert [record["event"] for record in records(path)] == ["third"]


def test_what_is_lost_is_counted_and_told(configure: Configure) -> None:
    path = configure(log_format="json")
    log, before = logs.get_logger(), logs.lost_lines()

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            log.info("lost")
    assert logs.lost_lines() == before + 3
    log.info("back")
    told, back = records(path)
    assert told.items() >= {
        "event": "log_lines_lost", "level": "warning", "lines": 3, "reason": "No space left on device"
    }.items()  # fmt: skip
    assert back["event"] == "back"
    assert logs.lost_lines() == before + 3
    configure("other")
    assert logs.lost_lines() == before + 3, "a counter does not begin again with another file"


def test_captured_logs_stay_out_of_the_file(configure: Configure) -> None:
    path = configure()
    with capture_logs() as events:
        logs.get_logger(database="db").info("seen")
    assert events == [{"event": "seen", "log_level": "info", "database": "db"}]
    assert path.read_text() == ""


def test_logging_brings_nothing_for_terminals_and_asyncio_into_every_process() -> None:
    code = (
        "import sys, qjsupervisor.logs; names = ('structlog', 'rich', 'colorama', 'asyncio.events');"
        " print(*(name for name in names if name in sys.modules));"
        " import asyncio, structlog; print(structlog.stdlib.BoundLogger.__name__, asyncio.run(asyncio.sleep(0, 'ran')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["structlog", "BoundLogger ran"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_journal_is_told_how_grave_a_line_is(tmp_path: Path, log_format: str) -> None:
    """Standard output is the journal where systemd says so by its device and inode, and only there."""
    program = (
        "import os, sys\n"
        "from qjsupervisor import logs\n"
        "from qjsupervisor.config.load import load\n"
        "found = os.fstat(1)\n"
        "if sys.argv[2] == 'journal':\n"
        "    os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}'\n"
        "logs.configure(load({'log_format': sys.argv[1], 'log_level': 'debug'}, {'HOME': '/'}))\n"
        "log = logs.get_logger()\n"
        "log.debug('a'); log.info('b'); log.warning('c'); log.error('d')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('e')\n"
    )

    def lines(where: str) -> list[str]:
        command = [sys.executable, "-c", program, log_format, where]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()

    marks = [line[:3] for line in lines("journal")]
    assert marks[:4] == ["<7>", "<6>", "<4>", "<3>"]
    assert set(marks[4:]) == {"<3>"}
    assert not any(line.startswith("<") for line in lines("file"))
