"""The worker's SQL. Constants only; the scout has its own in scout/queries.py.

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

#: queue_job's leader lock: an advisory lock on one bigint, at session level, per database.
LEADER_LOCK = 2293787760715711918
#: Rows: one: (got it).
TRY_LEAD = f"SELECT pg_try_advisory_lock({LEADER_LOCK})"
#: Release a database and notify standbys. The lock is free at once; the notification follows at commit.
LET_GO = "SELECT pg_advisory_unlock_all(); NOTIFY qjsupervisor"
#: Receive that notification.
STAND_BY = "LISTEN qjsupervisor"
#: Mark our session as this supervisor's. A shared lock, as former sessions may still hold it. With: mark (int).
MARK = "SELECT pg_try_advisory_lock_shared(%(mark)s)"
#: Terminate our own former sessions that the server still believes alive. They are found by their mark, because a
#: process id may belong to somebody else, behind a pooler or after some time. Params: mark.
#: Rows: (pid, holds the leader lock, is a former session of ours) for every other session with one of the two locks.
END_FORMER = f"""
WITH held AS (
    SELECT pid, bool_or(key = {LEADER_LOCK}) AS leads, bool_or(key = %(mark)s) AS marked
      FROM (SELECT pid, (classid::bigint << 32) + objid::bigint AS key
              FROM pg_locks
             WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS locks
     WHERE key IN ({LEADER_LOCK}, %(mark)s)
     GROUP BY pid)
SELECT pid, leads,
       marked AND CASE WHEN pg_has_role(usesysid, 'USAGE') THEN pg_terminate_backend(pid) IS NOT NULL ELSE false END
  FROM held JOIN pg_stat_activity USING (pid)
"""
#: For the hand-over of a database between a worker and the porter. The one who takes over waits for the lock, so that
#: nobody else gets it in between: other runners only try it, and a try fails while somebody waits.
WAIT_TO_LEAD = f"SET lock_timeout = '{{wait_ms}}ms'; SELECT pg_advisory_lock({LEADER_LOCK})"
#: The one who has it gives it up, with the mark, once a session with our mark waits for it. Params: mark.
#: Rows: one if it was given up, else none.
HAND_OVER = f"""
SELECT pg_advisory_unlock_all()::text
 WHERE EXISTS (
     SELECT 1
       FROM (SELECT pid, granted, (classid::bigint << 32) + objid::bigint AS key
               FROM pg_locks
              WHERE locktype = 'advisory' AND objsubid = 1 AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS locks
      WHERE (key = {LEADER_LOCK} AND NOT granted) OR (key = %(mark)s AND granted)
      GROUP BY pid
     HAVING count(*) = 2)
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

#: Prepared once per connection; see READ and TURN. Written so that the only possible plan looks each row up by key. A
#: join to `former`, or an index on the state (hence || ''), would read all rows that are or recently were `pending`
#: or `enqueued`, which looks cheap while the table is small.
#: Nothing is claimed while a module is in transition, unless an operator said to run anyway (the last parameter). The
#: claim itself checks that, without another statement; ir_module_module has an index on the state.
_NOT_IN_TRANSITION = f"NOT EXISTS (SELECT 1 FROM ir_module_module WHERE state IN {IN_TRANSITION})"
_CLAIMABLE = "state || '' = 'pending' AND (eta IS NULL OR eta <= now() AT TIME ZONE 'UTC')"
#: The one claim: `which` rows, and what is read besides. One prepared statement for jobs by id, one for a job of which
#: only the uuid is known: in one for both, each would pay for the other's part (20 us of 170).
_CLAIM = f"""
 WITH claimed AS (
     UPDATE queue_job SET state = 'enqueued', date_enqueued = now() AT TIME ZONE 'UTC'
      WHERE id {{which}}
     RETURNING {JOB_COLUMNS})
 SELECT true, * FROM claimed
 UNION ALL
 SELECT false, {JOB_COLUMNS} FROM queue_job
  WHERE ({{read}}) AND id NOT IN (SELECT id FROM claimed);
"""
_BY_ID = f"""IN (
          SELECT next.id
            FROM unnest($1, $2) AS pair (id, former),
                 LATERAL (SELECT id FROM queue_job WHERE id = pair.id AND {_CLAIMABLE} FOR UPDATE SKIP LOCKED) AS next
           WHERE ($4 OR {_NOT_IN_TRANSITION})
             AND NOT coalesce((SELECT state IN ('enqueued', 'started') FROM queue_job WHERE id = pair.former), false)
      )"""
_BY_UUID = f"""= (
          SELECT id FROM queue_job
           WHERE uuid = $1 AND channel || '' = $2 AND {_CLAIMABLE} AND ($3 OR {_NOT_IN_TRANSITION})
           LIMIT 1 FOR UPDATE SKIP LOCKED)"""
PREPARE = f"""
PREPARE qjs_read (varchar[]) AS
 SELECT false, {JOB_COLUMNS} FROM queue_job WHERE uuid = ANY($1);
PREPARE qjs_turn (bigint[], bigint[], varchar[], bool) AS
{_CLAIM.format(which=_BY_ID, read="uuid = ANY($3) OR id = ANY($1)")}
PREPARE qjs_unseen (varchar, varchar, bool) AS
{_CLAIM.format(which=_BY_UUID, read="uuid = $1")}
"""
#: Read the jobs named by notifications and by finished requests. Rows: (false, *JOB_COLUMNS).
READ = "EXECUTE qjs_read (%(uuids)s::varchar[])"
#: READ, and claim pending jobs. `former` (0: none) is the job whose permit a claimed job takes over, which must be over
#: for that. Rows: (claimed, *JOB_COLUMNS); a job that could not be claimed is returned in its current state.
#: A row that another session has locked is skipped: waiting for it would hold up all the others.
TURN = "EXECUTE qjs_turn (%(claim)s::bigint[], %(former)s::bigint[], %(uuids)s::varchar[], %(anyway)s)"
#: The same for one job before its row was read: claimed if it is due, and in this very channel. Rows: as TURN.
UNSEEN = "EXECUTE qjs_unseen (%(uuid)s, %(channel)s, %(anyway)s)"

#: Read jobs. Params: ids. Rows: JOB_COLUMNS.
READ_IDS = f"SELECT {JOB_COLUMNS} FROM queue_job WHERE id = ANY(%(ids)s::bigint[])"

#: The ids among these that no longer have a row. Params: ids. Rows: (id).
GONE = """
SELECT id FROM unnest(%(ids)s::bigint[]) AS known (id)
 WHERE coalesce((SELECT false FROM queue_job WHERE queue_job.id = known.id), true)
"""

#: Set back jobs whose request was never sent, or that nobody ran. Params: ids. Rows: (id) of those set back.
GIVE_BACK = """
UPDATE queue_job SET state = 'pending', date_enqueued = NULL, date_started = NULL
 WHERE id IN (SELECT id FROM queue_job WHERE id = ANY(%(ids)s) AND state = 'enqueued' FOR UPDATE SKIP LOCKED)
RETURNING id
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

#: Enqueued long ago, or at an impossible time: NULL, infinity, the year 9999. The hour allows for clocks that differ.
_LONG_AGO = """coalesce(date_enqueued NOT BETWEEN (now() AT TIME ZONE 'UTC') - make_interval(secs => %(grace_s)s)
                                               AND (now() AT TIME ZONE 'UTC') + interval '1 hour', true)"""
_DATED = "coalesce(isfinite(date_enqueued) AND date_enqueued <= (now() AT TIME ZONE 'UTC'), false)"
#: When the server last ended all sessions, as far as can be told: by a start; by a crash of one server process, which
#: resets the statistics; by a promotion, which is later than what was replayed last; by the change to another server.
#: Params: changed_s, for the latter.
_ALL_ENDED = """greatest(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_bgwriter),
                         pg_last_xact_replay_timestamp(), to_timestamp(%(changed_s)s))"""
#: Started before the server last ended all sessions, and so freed its lock row. Odoo may not have noticed yet, so the
#: job's commit or failure may still come.
_MAY_GO_ON = f"""state = 'started' AND date_enqueued < {_ALL_ENDED} AT TIME ZONE 'UTC'
       AND now() < {_ALL_ENDED} + make_interval(secs => %(after_restart_s)s)"""
#: Which of the jobs that hold a permit without a request of ours look dead by queue_job's rule.
#: Params: ids, grace_s, after_restart_s, changed_s. Rows: (id, state, whether the row says when it was enqueued). The
#: lock rows stay locked only for the duration of this statement.
LOOK_DEAD = f"""
WITH suspect AS (
    SELECT id, state, {_DATED} AS dated FROM queue_job
     WHERE id = ANY(%(ids)s) AND state IN ('enqueued', 'started')
       AND {_LONG_AGO} AND NOT coalesce({_MAY_GO_ON}, false)),
free AS (
    SELECT queue_job_id FROM queue_job_lock WHERE queue_job_id IN (SELECT id FROM suspect)
       FOR NO KEY UPDATE SKIP LOCKED)
SELECT id, state, dated FROM suspect
 WHERE id IN (SELECT queue_job_id FROM free)
    OR NOT EXISTS (SELECT 1 FROM queue_job_lock l WHERE l.queue_job_id = suspect.id)
"""
#: Without lock rows, only `enqueued` jobs are known to be safe. Params and rows as LOOK_DEAD.
LOOK_DEAD_UNLOCKED = f"""
SELECT id, state, {_DATED} FROM queue_job
 WHERE id = ANY(%(ids)s) AND state = 'enqueued'
   AND {_LONG_AGO}
"""
#: queue_job compares before it increments.
_USED_UP = "max_retries <> 0 AND retry > max_retries"
_REVIVE = f"""
UPDATE queue_job
   SET state = CASE WHEN {_USED_UP} THEN 'failed' ELSE 'pending' END,
       retry = CASE WHEN state = 'started' THEN least(coalesce(retry, 0), 2147483646) + 1 ELSE retry END,
       exc_name = CASE WHEN {_USED_UP} THEN 'JobFoundDead' ELSE exc_name END,
       exc_message = CASE WHEN {_USED_UP} THEN 'The process that ran this job died, and its retries are used up.'
                          ELSE exc_message END,
       exc_info = CASE WHEN {_USED_UP} THEN 'JobFoundDead: the process that ran it died, and its retries are used up.'
                       ELSE exc_info END,
       date_enqueued = NULL, date_started = NULL
 WHERE id IN (SELECT id FROM queue_job
               WHERE id = ANY(%(ids)s) AND {{still_dead}} FOR UPDATE SKIP LOCKED)
RETURNING {JOB_COLUMNS}
"""
#: Set dead jobs back. Params: ids, grace_s, started (ids of those that were seen `started`).
#: Rows: JOB_COLUMNS, with the new state. The rule is applied again, and jobs that Odoo took between the two statements
#: are left alone: a job seen `enqueued` that is `started` now is not dead.
REVIVE = """
WITH free AS (
    SELECT queue_job_id FROM queue_job_lock WHERE queue_job_id = ANY(%(ids)s)
       FOR NO KEY UPDATE SKIP LOCKED)
""" + _REVIVE.format(
    still_dead=f"""{_LONG_AGO}
                 AND (state = 'enqueued' OR state = 'started' AND id = ANY(%(started)s))
                 AND (id IN (SELECT queue_job_id FROM free)
                      OR NOT EXISTS (SELECT 1 FROM queue_job_lock l WHERE l.queue_job_id = queue_job.id))"""
)
#: REVIVE without lock rows.
REVIVE_UNLOCKED = _REVIVE.format(still_dead=f"state = 'enqueued' AND {_LONG_AGO}")

#: The channel tree of queue_job 18.0.4. Rows: (complete_name, capacity, sequential, throttle, paused, capacity_default,
#: sequential_default).
CHANNELS = """
SELECT complete_name, capacity, sequential, throttle, paused, capacity_default, sequential_default
  FROM queue_job_channel
"""

#: Jobs that have been running for longer than least_s. Params: ids, least_s.
#: Rows: (id, uuid, channel, seconds since the start).
RUNNING_FOR = """
SELECT id, uuid, channel, extract(epoch FROM (now() AT TIME ZONE 'UTC') - date_started)::float8
  FROM queue_job
 WHERE id = ANY(%(ids)s::bigint[]) AND state = 'started' AND isfinite(date_started)
   AND date_started < (now() AT TIME ZONE 'UTC') - make_interval(secs => %(least_s)s)
"""
#: Terminate the session that holds a job's lock row; the row's xmax is its transaction. Params: id.
#: Rows: one (whether it was terminated; false: our role may not), or none if no session holds it.
END_SESSION_OF = """
SELECT CASE WHEN (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
             AND (NOT owner.rolsuper OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))
            THEN pg_terminate_backend(a.pid) ELSE false END
  FROM queue_job_lock AS job
  JOIN pg_locks AS lock ON lock.locktype = 'transactionid' AND lock.granted AND lock.transactionid = job.xmax
  JOIN pg_stat_activity AS a ON a.pid = lock.pid
  JOIN pg_roles AS owner ON owner.oid = a.usesysid
 WHERE job.queue_job_id = %(id)s AND a.pid <> pg_backend_pid()
"""
#: The number of a tenure of the leader lock, taken while holding it; larger than that of any earlier holder.
#: No params. Rows: one (number).
TENURE = "SELECT txid_current()"
