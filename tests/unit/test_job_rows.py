"""Rows of jobs for people. All of it against a database: tests/integration/test_commands_jobs.py."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qjsupervisor.commands.job_rows import JobRow, Wanted, parents_of, read_rows, to_jobs
from qjsupervisor.postgres.session import Session


class Connection(Session):
    """A session that answers by the words of the statement, and keeps what it was asked."""

    version = 150000

    def __init__(self, *answers: tuple[str, list[Any]]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, Any]] = []

    def rows(self, statement: str, params: Any = None, *, of_row: bool = False) -> list[Any]:
        self.asked.append((statement, params))
        return next(rows for words, rows in self._answers if words in statement)


def row(uuid: str, state: str = "pending", **more: Any) -> JobRow:
    facts: dict[str, Any] = dict.fromkeys(JobRow._fields)
    return JobRow(**{**facts, "uuid": uuid, "state": state, "channel": "root", "ahead": 0, **more})


@pytest.mark.parametrize(
    ("text", "parents"),
    [
        (None, []),
        ("", []),
        ('{"depends_on": ["a", "b"]}', ["a", "b"]),
        ('{"depends_on": ["a", 7, null]}', ["a"]),
        ('{"depends_on": "a"}', []),
        ('{"reverse_depends_on": ["a"]}', []),
        ("[1]", []),
        ("{nonsense", []),
        ("[" * 100_000, []),
    ],
)
def test_dependencies_are_read_whatever_they_hold(text: str | None, parents: list[str]) -> None:
    assert parents_of(text) == parents


def test_parents_that_are_not_done_are_named_with_their_state() -> None:
    connection = Connection(("uuid", [("a", "failed"), ("b", "done")]))
    rows = [
        row("child", "wait_dependencies", dependencies='{"depends_on": ["a", "b", "c", "\\u0000", "\\ud800"]}'),
        row("other", dependencies='{"depends_on": ["never asked"]}'),
    ]
    child, other = to_jobs(connection, rows)
    assert child.parents == ("a (failed)", "c (deleted)", "\0 (deleted)", "\ud800 (deleted)")
    assert other.parents == ()
    ((_, params),) = connection.asked
    assert sorted(params["uuids"]) == ["a", "b", "c"], "what no column can hold is not asked for"


def test_a_date_without_end_is_no_age() -> None:
    (job,) = to_jobs(Connection(), [row("u", since_s=math.inf)])
    assert job.since_s is None
    (job,) = to_jobs(Connection(), [row("u" * 300)])
    assert job.unsendable


def test_what_is_wanted_reaches_the_statement() -> None:
    connection = Connection(("information_schema", [("uuid",)]), ("pg_attribute", [("uuid",)]), ("queue_job", []))
    assert read_rows(connection, Wanted(uuids=("u",), state="failed", channel="root.a", limit=2**80)) == []
    _, params = connection.asked[-1]
    assert (params["uuids"], params["states"], params["channel"], params["places"]) == (
        ["u"],
        ["failed"],
        "root.a",
        False,
    )
    assert params["limit"] == 2**62
    read_rows(connection, Wanted(), ageing_s=60.0)
    _, params = connection.asked[-1]
    assert (params["uuids"], params["states"], params["places"], params["ageing_s"]) == (None, None, True, 60.0)
