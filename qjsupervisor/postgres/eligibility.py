"""Decides whether a database's jobs can be run, from what was found in it. Pure: facts in, verdict out."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..states import Mode

#: The columns of queue_job that the worker reads and writes.
READ_COLUMNS = (
    "id",
    "uuid",
    "channel",
    "state",
    "priority",
    "date_created",
    "date_enqueued",
    "eta",
    "retry",
    "max_retries",
    "exc_name",
    "exc_message",
)
WRITTEN_COLUMNS = ("state", "date_enqueued", "date_started", "retry", "exc_name", "exc_message", "exc_info")
#: The columns of queue_job_channel, in per-database mode (queue_job 18.0.4).
CHANNEL_COLUMNS = (
    "complete_name",
    "capacity",
    "sequential",
    "throttle",
    "paused",
    "capacity_default",
    "sequential_default",
)
NOT_INSTALLED = (None, "uninstalled", "uninstallable")
#: Module states in which code and data may not match: jobs on half-installed code damage data.
TRANSITIONS = ("to install", "to upgrade", "to remove")
#: How many modules a sentence names; the rest is counted.
_NAMED = 3
#: pg_trigger.tgenabled: fires in ordinary sessions (origin), or always.
_FIRES = ("O", "A")
_TRIGGER_TROUBLE = {
    "D": "trigger queue_job_notify is disabled: ALTER TABLE queue_job ENABLE TRIGGER queue_job_notify",
    "R": "trigger queue_job_notify fires in replica sessions only: "
    "ALTER TABLE queue_job ENABLE TRIGGER queue_job_notify",
}

#: table -> column -> (may SELECT, may UPDATE)
Columns = Mapping[str, Mapping[str, tuple[bool, bool]]]


class Verdict(enum.Enum):
    """What to do with a database."""

    #: It gets a worker.
    READY = "ready"
    #: Its jobs cannot run until somebody changes something.
    BLOCKED = "blocked"
    #: It has no queue_job, so it does not concern us.
    ABSENT = "absent"
    #: Not known at the moment.
    UNREACHABLE = "unreachable"


NEUTRALIZED = (
    "a neutralised copy (database.is_neutralized in ir_config_parameter): its jobs are not run;"
    " serve_neutralized = yes serves such copies"
)
READ_ONLY = "sessions are read-only here: default_transaction_read_only is on, for the server, the database or the role"


class ProbeResult(NamedTuple):
    """What a probe found in a database."""

    role: str
    server_version: str
    in_recovery: bool
    #: Whether our role's sessions are read-only by default there.
    read_only: bool
    encoding: str
    module_table: bool
    #: Whether our role may read module states.
    module_readable: bool
    module_state: str | None
    #: Modules in transition, name to state.
    modules: Mapping[str, str]
    #: Whether it is a copy that must not act as production; None: our role may not read ir_config_parameter.
    neutralized: bool | None
    #: The schema of a table queue_job that is not on the search path.
    hidden_in: str | None
    #: The tables that the search path finds.
    columns: Columns
    #: pg_trigger.tgenabled; None: the trigger does not exist.
    trigger_enabled: str | None
    #: Whether it fires on INSERT and on UPDATE.
    trigger_complete: bool
    #: Who holds the leader lock; None: nobody, or not asked.
    leader: str | None

    #: When the server was started.
    started: str = ""
    #: Of the database: another one of the same name has another.
    oid: int = 0
    #: database.uuid, by which Odoo tells databases apart; None where our role may not read it.
    uuid: str | None = None
    #: Tables whose row-level security may hide rows from our role.
    policies: tuple[str, ...] = ()

    @property
    def has_lock_table(self) -> bool:
        return "queue_job_lock" in self.columns

    @property
    def has_channel_settings(self) -> bool:
        """Whether channels can be set up in the database (queue_job 18.0.4 or later)."""
        return all(name in self.columns.get("queue_job_channel", {}) for name in CHANNEL_COLUMNS)

    @property
    def may_read_channel_settings(self) -> bool:
        """Whether there are channel settings that our role may read."""
        granted = self.columns.get("queue_job_channel", {})
        return all(granted.get(name, (False, False))[0] for name in CHANNEL_COLUMNS)


def judge(
    facts: ProbeResult, mode: Mode, *, serve_neutralized: bool = False
) -> tuple[Verdict, str | None, tuple[str, ...]]:
    """(verdict, reason, warnings). The reason lists everything that is wrong, so that it can be fixed in one go."""
    if facts.hidden_in is not None:
        return Verdict.BLOCKED, _hidden(facts.hidden_in, facts.role), ()
    if not facts.module_table:
        return Verdict.ABSENT, "no Odoo database (it has no table ir_module_module)", ()
    if not facts.module_readable:
        if "queue_job" not in facts.columns:
            return Verdict.ABSENT, "queue_job is not installed (it has no table queue_job)", ()
        columns = facts.columns.get("ir_module_module", {})
        return Verdict.BLOCKED, _missing("SELECT", "ir_module_module", ("name", "state"), columns, facts.role), ()
    if facts.module_state in NOT_INSTALLED:
        return Verdict.ABSENT, "queue_job is not installed", ()
    trouble = write_trouble(in_recovery=facts.in_recovery, read_only=facts.read_only)
    if trouble is not None:
        return *trouble, ()
    wrong = [
        *([NEUTRALIZED] if facts.neutralized and not serve_neutralized else ()),
        *([waits_for(facts.modules)] if facts.modules else ()),
        *_wrong_tables(facts),
        *_wrong_trigger(facts),
        *_wrong_channels(facts, mode),
    ]
    if wrong:
        return Verdict.BLOCKED, "; ".join(wrong), ()
    return Verdict.READY, None, tuple(_warnings(facts))


def write_trouble(*, in_recovery: bool, read_only: bool) -> tuple[Verdict, str] | None:
    """Why nothing can be written there; None if it can. `read_only`: our role's sessions are so by default."""
    if in_recovery:
        return Verdict.UNREACHABLE, "the server is in recovery (a standby): nothing can be written there"
    return (Verdict.BLOCKED, READ_ONLY) if read_only else None


def can_be_counted(facts: ProbeResult, mode: Mode, *, serve_neutralized: bool = False) -> bool:
    """Whether nothing is wrong except that the trigger is missing or a module is in transition.

    Then a worker can count the running jobs, and notices itself when new ones may start.
    """
    if facts.trigger_enabled not in _FIRES:
        facts = facts._replace(trigger_enabled=_FIRES[0], trigger_complete=True)
    return judge(facts._replace(modules={}), mode, serve_neutralized=serve_neutralized)[0] is Verdict.READY


def in_transition(states: Mapping[str, str]) -> dict[str, str]:
    """The modules (name to state) that are in transition."""
    return {name: state for name, state in states.items() if state in TRANSITIONS}


def named(modules: Mapping[str, str]) -> str:
    """Modules and their states: "module sale is 'to upgrade', module stock is 'to install' and 3 more"."""
    sentences = [f"module {name} is {state!r}" for name, state in list(modules.items())[:_NAMED]]
    more = len(modules) - len(sentences)
    return ", ".join(sentences) + (f" and {more} more" if more > 0 else "")


def waits_for(modules: Mapping[str, str]) -> str:
    """Why jobs wait while these modules are in transition."""
    return f"{named(modules)}: jobs wait until that is done or undone in Odoo"


def is_neutralized(rows: Sequence[tuple[str | None]]) -> bool:
    """Whether the rows of queries.NEUTRALIZED say so."""
    return any((value or "").strip().lower() not in ("", "false", "0") for (value,) in rows)


def _hidden(schema: str, role: str) -> str:
    return (
        f"table queue_job is in schema {schema}, which role {role} may not use or does not have "
        f"in its search path: GRANT USAGE ON SCHEMA {_quoted(schema)} TO {_quoted(role)}"
    )


def _wrong_tables(facts: ProbeResult) -> Iterator[str]:
    if "queue_job" not in facts.columns:
        yield "queue_job is installed, but there is no table queue_job"
        return
    columns = facts.columns["queue_job"]
    lacking = [name for name in dict.fromkeys(READ_COLUMNS + WRITTEN_COLUMNS) if name not in columns]
    if lacking:
        yield f"table queue_job has no column {', '.join(lacking)}: too old a version, or another table"
        return
    yield from privilege_troubles(columns, facts.role)


def privilege_troubles(columns: Mapping[str, tuple[bool, bool]], role: str) -> Iterator[str]:
    """What a role has to do with queue_job and may not, with the GRANT. `columns`: of queue_job, as in Columns."""
    unreadable = [name for name in READ_COLUMNS if not columns[name][0]]
    unwritable = [name for name in WRITTEN_COLUMNS if not columns[name][1]]
    if unreadable:
        yield _missing("SELECT", "queue_job", unreadable, columns, role)
    if unwritable:
        yield _missing("UPDATE", "queue_job", unwritable, columns, role)


def _wrong_trigger(facts: ProbeResult) -> Iterator[str]:
    if "queue_job" in facts.columns:
        trouble = trigger_trouble(facts.trigger_enabled, complete=facts.trigger_complete)
        if trouble is not None:
            yield trouble


def trigger_trouble(enabled: str | None, *, complete: bool) -> str | None:
    """Why the trigger does not notify us, and what to do; None if it does. `enabled`: tgenabled, None: no trigger."""
    if enabled is None:
        return "trigger queue_job_notify is missing: upgrade queue_job in Odoo"
    if enabled not in _FIRES:
        return _TRIGGER_TROUBLE[enabled]
    return (
        None
        if complete
        else "trigger queue_job_notify does not fire on both INSERT and UPDATE: upgrade queue_job in Odoo"
    )


def _wrong_channels(facts: ProbeResult, mode: Mode) -> Iterator[str]:
    if not mode.has_own_tree(facts.has_channel_settings):
        return
    if not facts.has_channel_settings:
        yield (
            "queue_job_channel has no settings (queue_job before 18.0.4), but max_capacity is set without "
            "channels: upgrade queue_job, or set channels"
        )
        return
    columns = facts.columns["queue_job_channel"]
    unreadable = [name for name in CHANNEL_COLUMNS if not columns[name][0]]
    if unreadable:
        yield _missing("SELECT", "queue_job_channel", unreadable, columns, facts.role)


def _warnings(facts: ProbeResult) -> Iterator[str]:
    if facts.policies:
        yield (
            f"row-level security is on for {', '.join(facts.policies)}: rows that it hides from role {facts.role} "
            f"are not run and not counted: ALTER ROLE {_quoted(facts.role)} BYPASSRLS, or a policy for it"
        )
    lock = facts.columns.get("queue_job_lock")
    if lock is None:
        yield (
            "no table queue_job_lock (an older queue_job): a job whose Odoo worker was killed stays 'started' "
            "until `qjsupervisor requeue`"
        )
    elif not any(may_update for _, may_update in lock.values()) or not lock.get("queue_job_id", (False,))[0]:
        yield (
            f"role {facts.role} needs SELECT and UPDATE on queue_job_lock to find dead jobs: "
            f"GRANT SELECT, UPDATE ON queue_job_lock TO {_quoted(facts.role)}"
        )
    if facts.neutralized is None:
        yield (
            f"role {facts.role} may not read ir_config_parameter, so a neutralised copy of a database would be served: "
            f"GRANT SELECT (key, value) ON ir_config_parameter TO {_quoted(facts.role)}"
        )
    if facts.encoding == "SQL_ASCII":
        yield "the database's encoding is SQL_ASCII: jobs whose uuid or channel is not UTF-8 are refused"


def _missing(
    privilege: str, table: str, missing: Iterable[str], columns: Mapping[str, tuple[bool, bool]], role: str
) -> str:
    """The sentence, with the statement that puts it right; single columns are named where some are granted."""
    column = 0 if privilege == "SELECT" else 1
    some = any(granted[column] for granted in columns.values())
    named = f" ({', '.join(missing)})" if some else ""
    grant = f"GRANT {privilege}{named} ON {table} TO {_quoted(role)}"
    return f"no {privilege} privilege on {table}{named} for role {role}: {grant}"


def _quoted(name: str) -> str:
    """An identifier as SQL wants it."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
