"""The mark of our sessions: kept from one life to the next, and believed only where it is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.typing import EventDict

from qjsupervisor.master.session_mark import session_mark


def test_is_kept_for_us_alone_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    mark = session_mark(str(path))
    assert 0 <= mark < 2**63
    assert session_mark(str(path)) == mark
    assert path.stat().st_mode & 0o777 == 0o600
    assert session_mark(str(tmp_path / "other")) != mark


@pytest.mark.parametrize(
    "content",
    ["", "12", "12 another-host\n", f"-12 {os.uname().nodename}\n", f"{2**63} {os.uname().nodename}\n", "x" * 4096],
)
def test_what_is_not_ours_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mark"
    path.write_text(content)
    mark = session_mark(str(path))
    assert path.read_text() == f"{mark} {os.uname().nodename}\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(f"12 {os.uname().nodename}\n")
    (tmp_path / "mark").symlink_to(tmp_path / "elsewhere")
    session_mark(str(tmp_path / "mark"))
    assert (tmp_path / "elsewhere").read_text() == f"12 {os.uname().nodename}\n"
    assert not (tmp_path / "mark").is_symlink()


def test_what_an_interrupted_write_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "mark.new").write_text("half")
    mark = session_mark(str(tmp_path / "mark"))
    assert session_mark(str(tmp_path / "mark")) == mark
    assert not (tmp_path / "mark.new").exists()


def test_where_it_cannot_be_kept_one_line_says_so(tmp_path: Path, log_events: list[EventDict]) -> None:
    path = str(tmp_path / "no" / "where")
    assert session_mark(path) != session_mark(path)
    assert [event["event"] for event in log_events] == ["session_mark_not_kept"] * 2
    assert path in log_events[0]["reason"]
