"""Inserts jobs into a database as Odoo does, and reads their states."""

from __future__ import annotations

import json
import uuid as uuid_module
from collections.abc import Mapping, Sequence

from psycopg2 import extensions

#: Rows: (uuid,), one per number of the series.
_INSERT = """
INSERT INTO queue_job (uuid, channel, state, priority, retry, max_retries, eta, kwargs, args, records,
                       user_id, company_id, name, model_name, method_name, func_string, date_created)
SELECT gen_random_uuid(), %(channel)s, %(state)s, %(priority)s, %(retry)s, %(max_retries)s,
       now() AT TIME ZONE 'UTC' + make_interval(secs => %(eta_s)s), %(kwargs)s, '[]',
       '{"_type": "odoo_recordset", "model": "res.partner", "ids": [], "uid": 1, "su": false}',
       1, 1, 'Stand-in job', 'res.partner', 'stand_in', 'res.partner().stand_in()',
       clock_timestamp() AT TIME ZONE 'UTC'
  FROM generate_series(1, %(count)s)
RETURNING uuid
"""

#: Both ends of a dependency refer to each other, as queue_job writes them.
_DEPEND = """
UPDATE queue_job AS job
   SET dependencies = jsonb_set(
           coalesce(job.dependencies::jsonb, '{"depends_on": [], "reverse_depends_on": []}'),
           ARRAY[%(side)s], coalesce(job.dependencies::jsonb -> %(side)s, '[]') || %(others)s::jsonb)::text
 WHERE uuid = ANY(%(uuids)s)
"""


def insert_jobs(
    connection: extensions.connection,
    count: int,
    *,
    channel: str | None = "root",
    priority: int = 10,
    eta_s: float | None = None,
    kwargs: Mapping[str, object] | None = None,
    state: str = "pending",
    retry: int = 0,
    max_retries: int = 5,
) -> list[str]:
    """Insert `count` equal jobs with one statement; returns their uuids in order of id.

    `eta_s`: seconds from now until due. `kwargs`: what the stand-in does for the job (see odoo_jobs).
    """
    params = {
        "count": count,
        "channel": channel,
        "priority": priority,
        "eta_s": eta_s,
        "kwargs": json.dumps(kwargs or {}),
        "state": state,
        "retry": retry,
        "max_retries": max_retries,
    }
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, params)
        return [row[0] for row in cursor.fetchall()]


def insert_dependent_jobs(
    connection: extensions.connection,
    count: int,
    parents: Sequence[str],
    *,
    channel: str | None = "root",
    kwargs: Mapping[str, object] | None = None,
) -> list[str]:
    """Insert jobs in `wait_dependencies` that each depend on all `parents`; returns their uuids."""
    children = insert_jobs(connection, count, channel=channel, kwargs=kwargs, state="wait_dependencies")
    links = (("depends_on", parents, children), ("reverse_depends_on", children, parents))
    with connection.cursor() as cursor:
        for side, others, uuids in links:
            params = {"side": side, "others": json.dumps(list(others)), "uuids": list(uuids)}
            cursor.execute(_DEPEND, params)
    return children


def insert_row(connection: extensions.connection, **columns: object) -> str:
    """Insert one job with only the given columns set (and the required uuid and state)."""
    row = {"uuid": str(uuid_module.uuid4()), "state": "pending", **columns}
    names = ", ".join(f'"{name}"' for name in row)
    values = ", ".join(["%s"] * len(row))
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO queue_job ({names}) VALUES ({values})", list(row.values()))
    return str(row["uuid"])


def states(connection: extensions.connection) -> dict[str, int]:
    """Number of jobs in each state that occurs."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT state, count(*) FROM queue_job GROUP BY state")
        return dict(cursor.fetchall())


def state(connection: extensions.connection, uuid: str) -> str | None:
    """The state of a job, or None if there is no such row."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT state FROM queue_job WHERE uuid = %s", (uuid,))
        row = cursor.fetchone()
        return None if row is None else str(row[0])
