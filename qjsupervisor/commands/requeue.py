"""`requeue`: put jobs of one database back to `pending`, by an operator's word.

Each row is changed only while it is in the state that was asked for, so it is safe beside a running
supervisor and a running Odoo. What Odoo is working on is left alone wherever the database can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..config.load import Config
from ..errors import QJSupervisorError
from ..postgres.session import Session
from . import statements
from .job_rows import columns, fetch
from .output import print_line
from .session import session

STATES = ("enqueued", "started", "failed")
#: sysexits.h EX_USAGE.
_EX_USAGE = 64
_EXIT_LEFT_ALONE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs to put back; without a state, those of the uuids in any state from which it can be done."""

    uuids: tuple[str, ...] = ()
    state: str | None = None
    older_than_s: float | None = None


class Outcome(NamedTuple):
    """One job that was asked for."""

    uuid: str
    state: str
    moved: bool


class NothingChosen(QJSupervisorError):
    """Neither a state nor uuids were given."""

    exit_status = _EX_USAGE


def run(config: Config, database: str, wanted: Wanted) -> int:
    """Put them back and say which; exit status 1 if something was left alone or is not there."""
    if wanted.state is None and not wanted.uuids:
        raise NothingChosen("requeue needs --state, or the UUIDs of the jobs to put back")
    with session(config, database, "requeue") as connection:
        has_locks = bool(columns(connection, "queue_job_lock"))
        outcomes = requeue(connection, wanted, has_locks=has_locks)
    absent = set(wanted.uuids) - {outcome.uuid for outcome in outcomes}
    _print(database, outcomes, absent)
    if not has_locks and any(outcome.state == "started" and outcome.moved for outcome in outcomes):
        print_line("this queue_job has no queue_job_lock: whether those `started` still ran, nobody can tell")
    return _EXIT_LEFT_ALONE if absent or not all(outcome.moved for outcome in outcomes) else 0


def requeue(connection: Session, wanted: Wanted, *, has_locks: bool) -> list[Outcome]:
    """One statement, one transaction; every job that was asked for, in order of id."""
    statement = statements.REQUEUE.format(idle=statements.IDLE if has_locks else statements.NO_LOCKS)
    params = {
        "uuids": list(wanted.uuids) or None,
        "states": list(STATES) if wanted.state is None else [wanted.state],
        "older_than_s": wanted.older_than_s,
    }
    return [Outcome._make(row) for row in fetch(connection, statement, params)]


def _print(database: str, outcomes: Sequence[Outcome], absent: Iterable[str]) -> None:
    moved = [outcome for outcome in outcomes if outcome.moved]
    print_line(f"{database}: {len(moved)} job{'' if len(moved) == 1 else 's'} put back to pending")
    for outcome in moved:
        print_line(f"  {outcome.uuid} (was {outcome.state})")
    left = [outcome for outcome in outcomes if not outcome.moved]
    if left:
        print_line(f"{database}: {len(left)} left alone")
    for outcome in left:
        print_line(f"  {outcome.uuid}: {_why_left(outcome.state)}")
    for uuid in sorted(absent):
        print_line(f"  {uuid}: there is no such job")


def _why_left(state: str) -> str:
    if state == "started":
        return "started, and Odoo works on it, began a moment ago, or it is too young for --older-than"
    if state in STATES:
        return f"{state}, and changed just now, too young for --older-than, or not in the state asked for"
    return f"is {state}"
