"""The SQL of `jobs`, `requeue` and `check`.

Times are returned as seconds or text, because a row may contain 'infinity' or the year 20000, which Python cannot
represent.
"""

from __future__ import annotations

_POSTGRESQL_12 = 120000


def for_version(statement: str, version: int) -> str:
    """The statement for a server of that version (e.g. 150004): before 12 every CTE is materialised implicitly."""
    if version >= _POSTGRESQL_12:
        return statement
    return statement.replace(" AS MATERIALIZED (", " AS (").replace(" AS NOT MATERIALIZED (", " AS (")


#: The columns of a table. Params: table (text). Rows: (column,).
COLUMNS = """
SELECT attname
  FROM pg_attribute
 WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
"""

#: The complete channel name of the row called `job`.
_CHANNEL = """
CASE WHEN coalesce(job.channel, '') IN ('', 'root') THEN 'root'
     WHEN job.channel LIKE 'root.%%' THEN job.channel
     ELSE 'root.' || job.channel
 END
"""

_NOW = "now() AT TIME ZONE 'UTC'"


def _seconds(time: str) -> str:
    return f"extract(epoch FROM {time})::float8"


#: Jobs: running ones first, then waiting ones in the order of their channel's queue.
#: Params: uuids (text[] or NULL), states (text[] or NULL), channel (complete name or NULL: any), limit, places (whether
#: the place of waiting jobs in the queue is wanted).
#: `{dependencies}` is the column, or NULL where the branch has none; `{rank}` the priority, or queries.AGED_RANK;
#: `{kept}` is MATERIALIZED, or NOT MATERIALIZED if no places are wanted, so that few of millions of rows are kept.
#: Rows: see job_rows.Row.
#: All waiting rows are sorted to find places, so `job` has only the columns needed for that, and channels are compared
#: as bytes; the columns to show are read for the listed rows only.
LIST_JOBS = f"""
WITH job AS {{kept}} (
    SELECT job.id, job.uuid, job.state, ({_CHANNEL}) COLLATE "C" AS channel, job.date_created,
           coalesce(job.eta > {_NOW}, false) AS not_due, {{rank}} AS rank
      FROM queue_job AS job
     WHERE (%(places)s AND job.state NOT IN ('done', 'cancelled'))
        OR job.uuid = ANY(%(uuids)s)
        OR job.state = ANY(%(states)s)
), listed AS MATERIALIZED (
    SELECT id, state, channel, rank, date_created,
           array_position(
               ARRAY['started', 'enqueued', 'pending', 'wait_dependencies', 'failed'], job.state::text) AS part
      FROM job
     WHERE (%(uuids)s::text[] IS NULL OR job.uuid = ANY(%(uuids)s))
       AND (%(states)s::text[] IS NULL OR job.state = ANY(%(states)s))
       AND (%(channel)s::text IS NULL
            OR job.channel = %(channel)s OR left(job.channel, length(%(channel)s) + 1) = %(channel)s || '.')
     ORDER BY part, rank, date_created, id
     LIMIT %(limit)s
), due AS MATERIALIZED (
    SELECT id, row_number() OVER (PARTITION BY channel ORDER BY rank, date_created, id) - 1 AS ahead
      FROM job
     WHERE state = 'pending' AND NOT not_due
       AND channel IN (SELECT channel FROM listed WHERE state = 'pending')
), late AS MATERIALIZED (
    SELECT DISTINCT ON (channel) channel, uuid, rank, date_created, id
      FROM job
     WHERE state = 'pending' AND not_due AND channel IN (SELECT channel FROM listed)
     ORDER BY channel, rank, date_created, id
)
SELECT job.uuid, job.state, listed.channel, job.priority, job.name, job.retry, job.max_retries,
       job.exc_name, left(job.exc_message, 500), {{dependencies}},
       job.date_created::text, job.eta::text,
       {_seconds("job.eta")} - {_seconds(_NOW)},
       {_seconds(_NOW)} - CASE job.state WHEN 'started' THEN {_seconds("job.date_started")}
                                         ELSE {_seconds("job.date_enqueued")} END,
       coalesce(due.ahead, 0), late.uuid, {_seconds(_NOW)} - {_seconds("job.date_created")}
  FROM listed
  JOIN queue_job AS job ON job.id = listed.id
  LEFT JOIN due ON due.id = listed.id
  LEFT JOIN late ON late.channel = listed.channel
        AND (late.rank, late.date_created, late.id) < (listed.rank, listed.date_created, listed.id)
 ORDER BY listed.part, listed.rank, listed.date_created, listed.id
"""

#: Rows: (state, count) of all jobs.
COUNT_STATES = "SELECT state, count(*) FROM queue_job GROUP BY state ORDER BY state"

#: Rows: (channel, jobs enqueued or started).
COUNT_RUNNING = f"""
SELECT {_CHANNEL}, count(*) FROM queue_job AS job WHERE state IN ('enqueued', 'started') GROUP BY 1
"""

#: Rows: (channel, jobs pending and due).
COUNT_DUE = f"""
SELECT {_CHANNEL}, count(*) FROM queue_job AS job
 WHERE state = 'pending' AND coalesce(job.eta <= {_NOW}, true) GROUP BY 1
"""

#: Rows: (channel, uuids of its first failed jobs).
LIST_FAILED = f"""
SELECT {_CHANNEL}, (array_agg(job.uuid::text ORDER BY job.id))[1:6]
  FROM queue_job AS job WHERE state = 'failed' GROUP BY 1
"""

#: Params: uuids (text[]). Rows: (uuid, state), several of a uuid that is not unique.
LIST_STATES = "SELECT uuid, state FROM queue_job WHERE uuid = ANY(%(uuids)s)"

_SINCE = """
CASE job.state WHEN 'enqueued' THEN coalesce(job.date_enqueued, job.date_created)
               WHEN 'started' THEN coalesce(job.date_started, job.date_enqueued, job.date_created)
               ELSE coalesce(job.date_done, job.date_started, job.date_enqueued, job.date_created)
 END
"""

_WITHIN = f"""(%(channel)s::text IS NULL OR ({_CHANNEL}) = %(channel)s
               OR left({_CHANNEL}, length(%(channel)s) + 1) = %(channel)s || '.')"""

_OLD_ENOUGH = f"(%(older_than_s)s::float8 IS NULL OR {_seconds(_NOW)} - {_seconds(_SINCE)} > %(older_than_s)s::float8)"

#: Counts what REQUEUE would try to move. Params: as there. Rows: (state, count).
COUNT_REQUEUE = f"""
SELECT job.state, count(*)
  FROM queue_job AS job
 WHERE job.state = ANY(%(states)s) AND (%(uuids)s::text[] IS NULL OR job.uuid = ANY(%(uuids)s))
   AND {_WITHIN} AND {_OLD_ENOUGH}
 GROUP BY job.state
"""

#: Sets jobs back to pending: those in a permitted state that nobody has locked, each once.
#: Params: uuids (text[] or NULL), states (text[]), channel (complete name or NULL: any), older_than_s (float or NULL).
#: `{idle}` is IDLE or NO_LOCKS.
#: Rows: (uuid, former state, moved). A job that is not moved is being worked on, or is in another state.
#: Writes only columns that the worker writes too, so the same privileges suffice.
#: A failed job starts again with its first attempt, as with Odoo's own button; otherwise `retry` is unchanged.
REQUEUE = f"""
WITH wanted AS MATERIALIZED (
    SELECT job.id, job.uuid, job.state,
           job.state = ANY(%(states)s) AND {_WITHIN} AND {_OLD_ENOUGH} AS fits
      FROM queue_job AS job
     WHERE CASE WHEN %(uuids)s::text[] IS NULL THEN job.state = ANY(%(states)s)
                ELSE job.uuid = ANY(%(uuids)s) END
), idle AS MATERIALIZED ({{idle}}), free AS MATERIALIZED (
    SELECT job.id
      FROM queue_job AS job
      JOIN wanted ON wanted.id = job.id AND wanted.state = job.state AND wanted.fits
     WHERE job.id IN (SELECT id FROM idle)
       FOR NO KEY UPDATE OF job SKIP LOCKED
), moved AS (
    UPDATE queue_job AS job
       SET state = 'pending', date_enqueued = NULL, date_started = NULL,
           retry = CASE WHEN job.state = 'failed' THEN 0 ELSE job.retry END
      FROM free
     WHERE job.id = free.id
    RETURNING job.id
)
SELECT wanted.uuid, wanted.state, moved.id IS NOT NULL
  FROM wanted
  LEFT JOIN moved ON moved.id = wanted.id
 WHERE wanted.fits OR %(uuids)s::text[] IS NOT NULL
 ORDER BY wanted.id
"""

#: A started job whose lock row is locked is running. A job enqueued within the last 10 s is left alone, since Odoo
#: locks that row a moment after it sets `started`.
IDLE = f"""
    SELECT wanted.id
      FROM wanted
      JOIN queue_job AS job ON job.id = wanted.id
     WHERE wanted.state <> 'started'
        OR (coalesce({_seconds(_NOW)} - {_seconds("job.date_enqueued")}, 11) > 10
            AND NOT EXISTS (SELECT FROM queue_job_lock AS lock WHERE lock.queue_job_id = wanted.id))
    UNION
    SELECT * FROM (
        SELECT lock.queue_job_id
          FROM queue_job_lock AS lock
          JOIN wanted ON wanted.id = lock.queue_job_id AND wanted.state = 'started'
          JOIN queue_job AS job ON job.id = wanted.id
         WHERE coalesce({_seconds(_NOW)} - {_seconds("job.date_enqueued")}, 11) > 10
           FOR UPDATE OF lock SKIP LOCKED
    ) AS unlocked
"""

#: Without queue_job_lock we must trust the operator.
NO_LOCKS = "SELECT id FROM wanted"

#: One row: (module server_environment is installed, our role may read ir_config_parameter).
ODOO_FACTS = """
SELECT EXISTS (SELECT FROM ir_module_module WHERE name = 'server_environment' AND state = 'installed'),
       coalesce(has_table_privilege(to_regclass('ir_config_parameter'), 'SELECT'), false)
"""

#: At most one row: (uuid,).
DATABASE_UUID = "SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'"

#: Connections of the server and their use. One row: (max_connections, reserved, limit of our role or -1, in use by
#: others).
CONNECTIONS = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
       (SELECT count(*)
          FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
           AND coalesce(application_name, '') NOT LIKE 'qjsupervisor%%')
"""
