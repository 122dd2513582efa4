"""`requeue`: sets jobs of one or all databases back to `pending` on an operator's order.

A row is changed only while it is in the requested state, so it is safe beside a running supervisor and a running
Odoo. Jobs Odoo is working on are left alone wherever the database can tell.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..config.load import Config
from ..errors import QJSupervisorError
from ..postgres.session import Session
from . import statements
from .client import note
from .databases import in_all
from .job_rows import columns, fetch
from .output import print_line, print_lines
from .session import session

STATES = ("enqueued", "started", "failed")
#: sysexits.h EX_USAGE.
_EX_USAGE = 64
_EXIT_LEFT_ALONE = 1


#: Most jobs of a database listed individually; the rest is counted.
_NAMED = 100
#: Most databases named in the question.
_NAMED_DATABASES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs to requeue; without a state, the given uuids in any state that permits it."""

    uuids: tuple[str, ...] = ()
    state: str | None = None
    #: Complete name; includes its subchannels.
    channel: str | None = None
    older_than_s: float | None = None

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the statements."""
        return {
            "uuids": list(self.uuids) or None,
            "states": list(STATES) if self.state is None else [self.state],
            "channel": self.channel,
            "older_than_s": self.older_than_s,
        }

    @property
    def facts(self) -> dict[str, object]:
        """Details for the log."""
        return {"state": self.state, "channel": self.channel}


class Attempt(NamedTuple):
    """The outcome for one requested job."""

    uuid: str
    state: str
    moved: bool


class Result(NamedTuple):
    """The result in one database."""

    outcomes: Sequence[Attempt]
    #: Whether the database can tell which jobs are being worked on.
    has_locks: bool


class NothingChosen(QJSupervisorError):
    """Neither a state nor uuids were given, or there is no terminal to confirm on."""

    exit_status = _EX_USAGE


def run(config: Config, database: str | None, wanted: Selection, *, sure: bool = False) -> int:
    """Requeue jobs of one database, or (None) of all, and print which.

    `sure`: do not ask. Exit status 1 if a job was left alone or not found, or the answer was no.
    """
    if wanted.state is None and not wanted.uuids:
        raise NothingChosen("requeue needs --state, or the UUIDs of the jobs to put back")
    wide = database is None or wanted.channel is not None
    if wide and not sure and not _can_ask():
        raise NothingChosen(
            "there is no terminal to ask whether that is meant: see with `qjsupervisor jobs` which jobs it is,"
            " and say --yes"
        )
    names = None if database is None else [database]
    if not sure and not wanted.uuids and _can_ask():
        names = _names_if_meant(config, names, wanted)
        if not names:
            return _EXIT_LEFT_ALONE if names is None else 0
    return _requeue_in(config, names, wanted)


def _requeue_in(config: Config, names: Sequence[str] | None, wanted: Selection) -> int:
    absent, left, databases, moved = set(wanted.uuids), 0, 0, 0
    for done in in_all(config, lambda name: _work(config, name, wanted), names):
        if done.error is not None:
            if names is not None and len(names) == 1:
                raise done.error
            print_line(f"nothing put back: {done.error}")
            left += 1
        if done.result is not None:
            outcomes = done.result.outcomes
            absent.difference_update(outcome.uuid for outcome in outcomes)
            put_back = sum(outcome.moved for outcome in outcomes)
            left += len(outcomes) - put_back
            moved += put_back
            databases += bool(put_back)
            if put_back:
                note(config, "requeue", database=done.database, jobs=put_back, **wanted.facts)
            if outcomes or names is not None:
                _print(done.database, done.result)
    for uuid in sorted(absent):
        print_line(f"  {uuid}: there is no such job")
    if names is None or len(names) > 1:
        print_line(f"{_jobs(moved)} of {databases} databases put back to pending")
    return _EXIT_LEFT_ALONE if absent or left else 0


def _work(config: Config, database: str, wanted: Selection) -> Result:
    with session(config, database, "requeue") as connection:
        has_locks = bool(columns(connection, "queue_job_lock"))
        return Result(requeue(connection, wanted, has_locks=has_locks), has_locks)


# -- the question --------------------------------------------------------------------------------------------------


def _can_ask() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _names_if_meant(config: Config, names: Sequence[str] | None, wanted: Selection) -> list[str] | None:
    """Count the jobs and ask for confirmation; returns the databases that have some, or None for no."""
    counts: dict[str, int] = {}
    for done in in_all(config, lambda name: _count(config, name, wanted), names):
        if done.error is not None:
            if names is not None:
                raise done.error
            print_line(f"nothing to be put back: {done.error}")
        if done.result:
            counts[done.database] = done.result
    if not counts:
        print_line("there is no such job")
        return []
    if not _agrees(question(counts, wanted)):
        print_line("nothing was changed")
        return None
    return sorted(counts)


def _count(config: Config, database: str, wanted: Selection) -> int:
    with session(config, database, "requeue") as connection:
        return sum(count for _state, count in fetch(connection, statements.COUNT_REQUEUE, wanted.params))


def question(counts: Mapping[str, int], wanted: Selection) -> str:
    """The question to confirm, with the number of jobs by database."""
    most = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    named = ", ".join(f"{name} {count:,}" for name, count in most[:_NAMED_DATABASES])
    more = len(counts) - _NAMED_DATABASES
    where = most[0][0] if len(counts) == 1 else f"{len(counts)} databases ({named}"
    where += "" if len(counts) == 1 else f" and {more} more)" if more > 0 else ")"
    channel = f" in channel {wanted.channel}" if wanted.channel else ""
    kind = f"{wanted.state} job" if wanted.state else "job"
    return f"Put {_jobs(sum(counts.values()), kind)}{channel} of {where} back to pending?"


def _agrees(text: str) -> bool:
    print_lines([text])
    try:
        return input("[y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print_line()
        return False


def _jobs(count: int, kind: str = "job") -> str:
    return f"{count:,} {kind}{'' if count == 1 else 's'}"


# -- the work ------------------------------------------------------------------------------------------------------


def requeue(connection: Session, wanted: Selection, *, has_locks: bool) -> list[Attempt]:
    """Requeue in one statement; the outcome of every requested job, in order of id."""
    statement = statements.REQUEUE.format(idle=statements.IDLE if has_locks else statements.NO_LOCKS)
    return [Attempt._make(row) for row in fetch(connection, statement, wanted.params)]


def _print(database: str, result: Result) -> None:
    moved = [outcome for outcome in result.outcomes if outcome.moved]
    left = [outcome for outcome in result.outcomes if not outcome.moved]
    print_line(f"{database}: {_jobs(len(moved))} put back to pending")
    _print_some([f"{outcome.uuid} (was {outcome.state})" for outcome in moved])
    if left:
        print_line(f"{database}: {len(left)} left alone")
        _print_some([f"{outcome.uuid}: {_why_left(outcome.state)}" for outcome in left])
    if not result.has_locks and any(outcome.state == "started" for outcome in moved):
        print_line("this queue_job has no queue_job_lock: whether those `started` still ran, nobody can tell")


def _print_some(lines: Sequence[str]) -> None:
    for line in lines[:_NAMED]:
        print_line(f"  {line}")
    if len(lines) > _NAMED:
        print_line(f"  and {len(lines) - _NAMED:,} more")


def _why_left(state: str) -> str:
    if state == "started":
        return "started, and Odoo works on it, began a moment ago, or it is too young for --older-than"
    if state in STATES:
        return f"{state}, and changed just now, too young for --older-than, or not as it was asked for"
    return f"is {state}"
