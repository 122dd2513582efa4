"""The worker's SQL that reads. Constants only; the scout has its own in scout/queries.py.

Claims are in claim_queries.py, the leader lock is in lead_queries.py, and dead jobs are in dead_queries.py.

Timestamps in queue_job are UTC without time zone. They are read as float8 seconds since the epoch, which preserves
'infinity' and NULL, and compared on the server with `now() AT TIME ZONE 'UTC'`.

JOB_COLUMNS, in every statement that reads jobs: (id, uuid, channel, state, priority, created_s, eta_s).
"""

from __future__ import annotations

from ..job import MAX_UUID_BYTES

JOB_COLUMNS = """id, uuid, channel, state, priority,
       extract(epoch FROM date_created)::float8 AS created_s, extract(epoch FROM eta)::float8 AS eta_s"""

#: The order of jobs in a channel, as `job.Key` has it. A NULL priority counts as queue_job's default.
JOB_ORDER = "coalesce(priority, 10), date_created, id"
#: Replaces the priority when jobs age. Computed like `job.aged_us`, with the same operations on float8, so that both
#: give the same order. Params: ageing_s.
AGED_RANK = """least(4611686018427387904::float8, greatest(-4611686018427387904::float8, round(
    (extract(epoch FROM greatest(coalesce(date_created, 'infinity'), eta))::float8
     + coalesce(priority, 10)::float8 * %(ageing_s)s::float8) * 1e6::float8)))"""


def in_order(statement: str, *, ages: bool) -> str:
    """A statement written with JOB_ORDER, changed to the order with ageing if `ages`. Additional params: ageing_s."""
    return statement.replace(JOB_ORDER, f"{AGED_RANK}, date_created, id") if ages else statement


#: States of ir_module_module in which a module's code and data may not match.
IN_TRANSITION = "('to install', 'to upgrade', 'to remove')"
#: Rows: (name, state) of queue_job, if present, and of modules in transition, by name.
MODULES = f"SELECT name, state FROM ir_module_module WHERE name = 'queue_job' OR state IN {IN_TRANSITION} ORDER BY name"
#: The mark that Odoo sets in a neutralised copy of a production database. Rows: (value), or none.
NEUTRALIZED = "SELECT value FROM ir_config_parameter WHERE key = 'database.is_neutralized'"

#: The server's start time, as text that does not depend on the session's time zone.
SERVER_START = "extract(epoch FROM pg_postmaster_start_time())::numeric(20, 6)::text"
#: Rows: one: (this backend's pid, encoding of the database, server in recovery, has lock table, may lock its rows,
#: has 18.0.4 channel table, bytes of queue_job, sessions are read-only, may read ir_config_parameter,
#: the server's start time, the database's oid, which distinguishes databases of one name, the server's clock).
ABOUT = f"""
SELECT pg_backend_pid(), current_setting('server_encoding'), pg_is_in_recovery(),
       to_regclass('queue_job_lock') IS NOT NULL,
       coalesce(has_any_column_privilege(to_regclass('queue_job_lock'), 'SELECT')
                AND has_any_column_privilege(to_regclass('queue_job_lock'), 'UPDATE'), false),
       EXISTS (SELECT 1 FROM pg_attribute
                WHERE attrelid = to_regclass('queue_job_channel') AND attname = 'capacity_default'),
       coalesce(pg_relation_size(to_regclass('queue_job')), 0),
       current_setting('default_transaction_read_only')::boolean,
       (SELECT count(*) = 2 FROM pg_attribute
         WHERE attrelid = to_regclass('ir_config_parameter') AND attname IN ('key', 'value')
           AND has_column_privilege(attrelid, attnum, 'SELECT')),
       {SERVER_START},
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
       extract(epoch FROM clock_timestamp())::float8
"""

#: The trigger, from pg_trigger: information_schema hides it from a role that may only read, and does not show whether
#: it is disabled. No params. Rows: (tgenabled, fires on INSERT and UPDATE), or none.
TRIGGER = """
SELECT tgenabled::text, (tgtype::int & 20) = 20
  FROM pg_trigger
 WHERE tgrelid = to_regclass('queue_job') AND tgname = 'queue_job_notify' AND NOT tgisinternal
"""

#: Our privileges on columns of queue_job. Params: columns (names). Rows: (column, may_select, may_update, our role).
PRIVILEGES = """
SELECT name, has_column_privilege('queue_job', name, 'SELECT'), has_column_privilege('queue_job', name, 'UPDATE'),
       current_user::text
  FROM unnest(%(columns)s::text[]) AS wanted (name)
"""

#: No params. Rows: one: (oid of the database).
OID = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
#: Whether a database needs a worker. No params. Rows: one: (a job is enqueued or started, when the earliest pending job
#: is due (-infinity: it has no eta; NULL: there is none), the server's clock, the failed jobs: number and sum of ids).
AT_REST = """
SELECT EXISTS (SELECT 1 FROM queue_job WHERE state IN ('enqueued', 'started')),
       extract(epoch FROM (SELECT min(coalesce(eta, '-infinity')) FROM queue_job WHERE state = 'pending'))::float8,
       extract(epoch FROM clock_timestamp())::float8,
       (SELECT count(*) || '/' || coalesce(sum(id), 0) FROM queue_job WHERE state = 'failed')
"""
#: Sessions with locks on our tables that block our statements. Details of other roles' sessions are hidden from us.
#: Rows: (table, pid, lock mode, application, user, seconds since its transaction began, statement).
LOCK_HOLDERS = """
SELECT l.relation::regclass::text, l.pid, l.mode, a.application_name, a.usename::text,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.query
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
   AND l.relation IN (to_regclass('queue_job'), to_regclass('queue_job_lock'), to_regclass('queue_job_channel'),
                      to_regclass('ir_module_module'))
 ORDER BY a.xact_start
"""
#: Makes the server notice within 25 s that our machine is gone. Otherwise it would keep the leader lock for hours, and
#: no other supervisor could take over. No effect on a local socket.
KEEPALIVES = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
#: A claim does not wait for the disk or for a standby, so a crash may undo it, but nothing that came after it: Odoo's
#: own commit of `started` is later in the log and waits for everything before it. So only the claim of a job that never
#: started can be undone, and its row says `pending` again.
COMMITS = "SET synchronous_commit = off"
#: From PostgreSQL 12 on. A timeout for data that was sent and not acknowledged. And one generic plan per prepared
#: statement, which looks rows up by key however small the table was at the time. Planning takes longer than running the
#: statement, and by default the server would plan each call. Statements that read a whole table run in a transaction of
#: their own.
SETTINGS_12 = """
SET tcp_user_timeout = 20000;
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_mergejoin = off; SET jit = off
"""

#: Read jobs. Params: ids. Rows: JOB_COLUMNS.
READ_IDS = f"SELECT {JOB_COLUMNS} FROM queue_job WHERE id = ANY(%(ids)s::bigint[])"

#: The ids among these that no longer have a row. Params: ids. Rows: (id).
GONE = """
SELECT id FROM unnest(%(ids)s::bigint[]) AS known (id)
 WHERE coalesce((SELECT false FROM queue_job WHERE queue_job.id = known.id), true)
"""

_SINCE = "(now() AT TIME ZONE 'UTC') - make_interval(secs => %(within_s)s)"
#: When jobs were last started, as far as the rows tell. Params: within_s. Rows: (channel as in the row, seconds ago).
#: Of finished rows, only those that finished within that time are read, channel by channel, using queue_job's index on
#: channel and date_done: there may be millions of others.
LAST_STARTS = f"""
WITH RECURSIVE names AS (
    (SELECT channel FROM queue_job WHERE channel IS NOT NULL ORDER BY channel LIMIT 1)
    UNION ALL
    SELECT (SELECT channel FROM queue_job WHERE channel > names.channel ORDER BY channel LIMIT 1)
      FROM names WHERE names.channel IS NOT NULL),
begun AS (
    SELECT channel, date_enqueued FROM queue_job WHERE state IN ('enqueued', 'started', 'failed')
    UNION ALL
    SELECT names.channel, over.date_enqueued
      FROM names, LATERAL (SELECT date_enqueued FROM queue_job
                            WHERE channel = names.channel AND date_done > {_SINCE}) AS over
    UNION ALL
    SELECT channel, date_enqueued FROM queue_job WHERE channel IS NULL AND date_done > {_SINCE})
SELECT channel, extract(epoch FROM (now() AT TIME ZONE 'UTC') - max(date_enqueued))::float8
  FROM begun
 WHERE date_enqueued > {_SINCE} AND date_enqueued <= (now() AT TIME ZONE 'UTC')
 GROUP BY channel
"""

#: The same of each start, the latest first. Params: also like (patterns for the channel; NULL and '' are root), limit.
#: Rows: (channel as in the row, seconds ago).
PAST_STARTS = (
    LAST_STARTS.replace("max(date_enqueued)", "date_enqueued").partition(" GROUP BY")[0]
    + """   AND coalesce(nullif(channel, ''), 'root') LIKE ANY(%(like)s::varchar[])
 ORDER BY date_enqueued DESC
 LIMIT %(limit)s
"""
)

#: Everything up to the end of the transaction sees the rows as of one moment.
BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = on"
END_SNAPSHOT = "COMMIT"

#: The length in bytes is known without reading the text, which would take a third of the time for a million rows.
_SENDABLE = f"octet_length(uuid) BETWEEN 1 AND {MAX_UUID_BYTES}"

_WAITING = f"state = 'pending' AND {_SENDABLE} AND id <> ALL(%(deferred)s::bigint[])"
#: Selects the rows first and computes their epochs afterwards. In one step PostgreSQL would compute them for each row
#: that it sorts, which takes longer than all the rest.
_CHOSEN = "id, uuid, channel, state, priority, date_created, eta"
_DUE = f"""
SELECT {{kind}}{JOB_COLUMNS} FROM (
    SELECT {_CHOSEN} FROM queue_job
     WHERE {{where}}{_WAITING} AND (eta IS NULL OR eta <= now() AT TIME ZONE 'UTC')
     ORDER BY {JOB_ORDER} LIMIT %(limit)s) AS due
"""
_LATER = f"""
SELECT {{kind}}{JOB_COLUMNS} FROM (
    SELECT {_CHOSEN} FROM queue_job
     WHERE {{where}}{_WAITING} AND eta > now() AT TIME ZONE 'UTC'
     ORDER BY eta, {JOB_ORDER} LIMIT %(limit)s) AS later
"""
#: What a worker must know before it starts anything: jobs that hold permits, and the first jobs that are due.
#: Params: limit, for the due jobs; deferred (ids of jobs that are left alone for now).
#: Rows: ('held' | 'due', *JOB_COLUMNS), each kind in its order.
HEAD = f"""
SELECT 'held', {JOB_COLUMNS} FROM queue_job WHERE state IN ('enqueued', 'started')
UNION ALL ({_DUE.format(kind="'due', ", where="")})
"""
#: Everything, including the jobs due next. Params: limit, for each kind but 'held'; deferred.
#: Rows: ('held' | 'due' | 'later', *JOB_COLUMNS), each kind in its order.
LOAD = f"""{HEAD}
UNION ALL ({_LATER.format(kind="'later', ", where="")})
"""
_IN_CHANNELS = "(channel = ANY(%(channels)s) OR (%(and_null)s AND channel IS NULL))"
#: LOAD for some channels. Params: channels (raw names), and_null (bool), limit, deferred. Rows: as LOAD.
READ_CHANNELS = f"""
({_DUE.format(kind="'due', ", where=_IN_CHANNELS + " AND ")})
UNION ALL ({_LATER.format(kind="'later', ", where=_IN_CHANNELS + " AND ")})
"""

#: Number of jobs by channel, in the states that are counted. Rows: (channel, state, number).
COUNTS = """
SELECT channel, state, count(*) FROM queue_job
 WHERE state IN ('pending', 'failed', 'wait_dependencies') GROUP BY 1, 2
"""
#: Failed jobs, those of some channels first. Params: limit, first (raw names, '' for NULL too).
#: Rows: (id, channel).
FAILED = """
SELECT id, channel FROM queue_job WHERE state = 'failed'
 ORDER BY coalesce(channel, '') = ANY(%(first)s) DESC, id DESC LIMIT %(limit)s
"""

#: The channel tree of queue_job 18.0.4. Rows: (complete_name, capacity, sequential, throttle, paused, capacity_default,
#: sequential_default).
CHANNELS = """
SELECT complete_name, capacity, sequential, throttle, paused, capacity_default, sequential_default
  FROM queue_job_channel
"""
