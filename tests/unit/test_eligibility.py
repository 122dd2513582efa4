"""From facts to a verdict: each reason, in an operator's words."""

from __future__ import annotations

from typing import Any

import pytest

from qjsupervisor.postgres.eligibility import (
    CHANNEL_COLUMNS,
    READ_COLUMNS,
    WRITTEN_COLUMNS,
    ProbeResult,
    Verdict,
    can_be_counted,
    is_neutralized,
    judge,
)
from qjsupervisor.states import Mode

ALL = (True, True)
JOB = dict.fromkeys((*READ_COLUMNS, *WRITTEN_COLUMNS, "exc_info"), ALL)
LOCK = dict.fromkeys(("id", "queue_job_id"), ALL)
CHANNEL = dict.fromkeys(CHANNEL_COLUMNS, ALL)
MODULE = dict.fromkeys(("id", "name", "state"), ALL)

GOOD = ProbeResult(
    role="odoo",
    server_version="18.1",
    in_recovery=False,
    read_only=False,
    encoding="UTF8",
    module_table=True,
    module_readable=True,
    module_state="installed",
    modules={},
    neutralized=False,
    hidden_in=None,
    columns={"ir_module_module": MODULE, "queue_job": JOB, "queue_job_lock": LOCK, "queue_job_channel": CHANNEL},
    trigger_enabled="O",
    trigger_complete=True,
    leader=None,
)


def with_table(name: str, columns: dict[str, tuple[bool, bool]] | None) -> dict[str, Any]:
    tables = {**GOOD.columns, name: columns}
    return {"columns": {table: found for table, found in tables.items() if found is not None}}


@pytest.mark.parametrize("mode", list(Mode))
def test_all_is_well(mode: Mode) -> None:
    assert judge(GOOD, mode) == (Verdict.READY, None, ())


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"module_table": False, "columns": {}}, Verdict.ABSENT, "no Odoo database"),
        ({"module_state": None}, Verdict.ABSENT, "not installed"),
        ({"module_state": "uninstalled"}, Verdict.ABSENT, "not installed"),
        ({"modules": {"sale": "to upgrade"}}, Verdict.BLOCKED, "module sale is 'to upgrade': jobs wait"),
        (
            {"modules": dict.fromkeys("abcde", "to remove")},
            Verdict.BLOCKED,
            "module a is 'to remove', module b is 'to remove', module c is 'to remove' and 2 more: jobs wait",
        ),
        ({"neutralized": True}, Verdict.BLOCKED, "serve_neutralized = yes serves such copies"),
        ({"in_recovery": True}, Verdict.UNREACHABLE, "in recovery"),
        ({"read_only": True}, Verdict.BLOCKED, "default_transaction_read_only"),
        ({"trigger_enabled": None}, Verdict.BLOCKED, "trigger queue_job_notify is missing"),
        ({"trigger_enabled": "D"}, Verdict.BLOCKED, "trigger queue_job_notify is disabled"),
        ({"trigger_enabled": "R"}, Verdict.BLOCKED, "replica sessions only"),
        ({"trigger_complete": False}, Verdict.BLOCKED, "does not fire on both INSERT and UPDATE"),
        (
            with_table("queue_job", None),
            Verdict.BLOCKED,
            "installed, but there is no table queue_job",
        ),
        (
            {"hidden_in": "public", **with_table("queue_job", None)},
            Verdict.BLOCKED,
            "schema public, which role odoo may not use",
        ),
        (
            {"module_readable": False},
            Verdict.BLOCKED,
            "no SELECT privilege on ir_module_module",
        ),
        (
            with_table("queue_job", dict.fromkeys(JOB, (True, False))),
            Verdict.BLOCKED,
            "no UPDATE privilege on queue_job for role odoo: GRANT UPDATE ON queue_job TO odoo",
        ),
        (
            with_table("queue_job", {**JOB, "retry": (True, False)}),
            Verdict.BLOCKED,
            "no UPDATE privilege on queue_job (retry) for role odoo: GRANT UPDATE (retry) ON queue_job TO odoo",
        ),
        (
            with_table("queue_job", dict.fromkeys(JOB, (False, True))),
            Verdict.BLOCKED,
            "no SELECT privilege on queue_job for role odoo",
        ),
        (
            with_table("queue_job", {name: ALL for name in JOB if name != "max_retries"}),
            Verdict.BLOCKED,
            "no column max_retries",
        ),
    ],
)
def test_reasons(changes: dict[str, Any], verdict: Verdict, reason: str) -> None:
    found, said, _ = judge(GOOD._replace(**changes), Mode.SERVER_WIDE)
    assert found is verdict
    assert reason in (said or "")


def test_a_foreign_role_is_quoted() -> None:
    facts = GOOD._replace(role='O"doo', **with_table("queue_job", dict.fromkeys(JOB, (True, False))))
    assert 'TO "O""doo"' in str(judge(facts, Mode.SERVER_WIDE)[1])


def test_all_reasons_at_once() -> None:
    facts = GOOD._replace(trigger_enabled="D", **with_table("queue_job", dict.fromkeys(JOB, (False, False))))
    reason = judge(facts, Mode.SERVER_WIDE)[1] or ""
    assert [word in reason for word in ("SELECT", "UPDATE", "disabled")] == [True] * 3


@pytest.mark.parametrize(
    ("channels", "verdict", "reason"),
    [
        (None, Verdict.BLOCKED, "before 18.0.4"),
        ({"complete_name": ALL}, Verdict.BLOCKED, "before 18.0.4"),
        (dict.fromkeys(CHANNEL, (False, False)), Verdict.BLOCKED, "no SELECT privilege on queue_job_channel"),
        (CHANNEL, Verdict.READY, ""),
    ],
)
def test_channel_table_matters_where_it_is_used(channels: Any, verdict: Verdict, reason: str) -> None:
    facts = GOOD._replace(**with_table("queue_job_channel", channels))
    assert judge(facts, Mode.SERVER_WIDE)[0] is Verdict.READY
    found, said, _ = judge(facts, Mode.PER_DATABASE)
    assert found is verdict
    assert reason in (said or "")


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (with_table("queue_job_lock", None), "no table queue_job_lock"),
        (with_table("queue_job_lock", dict.fromkeys(LOCK, (True, False))), "SELECT and UPDATE on queue_job_lock"),
        (with_table("queue_job_lock", dict.fromkeys(LOCK, (False, True))), "SELECT and UPDATE on queue_job_lock"),
        ({"encoding": "SQL_ASCII"}, "SQL_ASCII"),
    ],
)
def test_warnings_do_not_keep_it_from_running(changes: dict[str, Any], warning: str) -> None:
    verdict, reason, warnings = judge(GOOD._replace(**changes), Mode.SERVER_WIDE)
    assert (verdict, reason) == (Verdict.READY, None)
    assert len(warnings) == 1
    assert warning in warnings[0]


def test_a_worker_counts_what_runs_where_a_module_is_in_transition() -> None:
    """And sees for itself when the rest may run; not in a copy that is not to be served, nor in a broken database."""
    upgraded = GOOD._replace(modules={"sale": "to upgrade"})
    assert can_be_counted(upgraded, Mode.SERVER_WIDE)
    assert can_be_counted(upgraded._replace(trigger_enabled="D"), Mode.SERVER_WIDE)
    assert not can_be_counted(upgraded._replace(**with_table("queue_job", None)), Mode.SERVER_WIDE)
    copy = upgraded._replace(neutralized=True)
    assert not can_be_counted(copy, Mode.SERVER_WIDE)
    assert can_be_counted(copy, Mode.SERVER_WIDE, serve_neutralized=True)
    assert judge(GOOD._replace(neutralized=True), Mode.SERVER_WIDE, serve_neutralized=True)[0] is Verdict.READY


def test_who_cannot_tell_a_copy_is_warned() -> None:
    verdict, _, warnings = judge(GOOD._replace(neutralized=None), Mode.SERVER_WIDE)
    assert verdict is Verdict.READY
    assert "GRANT SELECT (key, value) ON ir_config_parameter TO odoo" in " ".join(warnings)


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("True", True), ("1", True), ("false", False), ("", False), (None, False)]
)
def test_what_odoo_writes_into_a_copy(value: str | None, expected: bool) -> None:
    assert is_neutralized([(value,)]) is expected
    assert not is_neutralized([])
