"""The worker's SQL.  Constants only; the scout's is in scout_queries.py.

Timestamps in queue_job are UTC without time zone. They are read as float8 seconds since the epoch ('infinity' and
NULL survive that), and compared on the server against `now() AT TIME ZONE 'UTC'`.

JOB_COLUMNS, in every statement that reads jobs: (id, uuid, channel, state, priority, created_s, eta_s).
"""

from __future__ import annotations

from ..job import MAX_UUID_BYTES

JOB_COLUMNS = """id, uuid, channel, state, priority,
       extract(epoch FROM date_created)::float8 AS created_s, extract(epoch FROM eta)::float8 AS eta_s"""

#: The order of jobs in a channel, as `job.Key` has it. A NULL priority counts as queue_job's default.
JOB_ORDER = "coalesce(priority, 10), date_created, id"
#: In place of the priority where jobs age, as `job.aged_us` computes it: the same operations on the same float8, so
#: that both put jobs into the same order. Params: ageing_s.
AGED_RANK = """least(4611686018427387904::float8, greatest(-4611686018427387904::float8, round(
    (extract(epoch FROM greatest(coalesce(date_created, 'infinity'), eta))::float8
     + coalesce(priority, 10)::float8 * %(ageing_s)s::float8) * 1e6::float8)))"""


def in_order(statement: str, *, ages: bool) -> str:
    """A statement that reads jobs in JOB_ORDER, in the order that holds. Params besides its own: ageing_s."""
    return statement.replace(JOB_ORDER, f"{AGED_RANK}, date_created, id") if ages else statement


#: States of ir_module_module in which code and data of a module do not belong together.
IN_TRANSITION = "('to install', 'to upgrade', 'to remove')"
#: Rows: (name, state) of queue_job, if it is there, and of modules in transition; by name.
MODULES = f"SELECT name, state FROM ir_module_module WHERE name = 'queue_job' OR state IN {IN_TRANSITION} ORDER BY name"
#: What Odoo writes into a copy of a production database that must not act as one. Rows: (value), or none.
NEUTRALIZED = "SELECT value FROM ir_config_parameter WHERE key = 'database.is_neutralized'"

#: When the server was started, as text that does not depend on the session's time zone.
SERVER_START = "extract(epoch FROM pg_postmaster_start_time())::numeric(20, 6)::text"
#: Rows: one: (this backend's pid, encoding of the database, server in recovery, has lock table, may lock its rows,
#: has 18.0.4 channel table, bytes of queue_job, sessions are read-only, may read ir_config_parameter,
#: when the server was started, the database's oid, which tells it from another one of its name).
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

#: The trigger, from the catalog: information_schema hides it from a role that may only read, and does not tell
#: whether it is disabled. No params. Rows: (tgenabled, fires on INSERT and UPDATE), or none.
TRIGGER = """
SELECT tgenabled::text, (tgtype::int & 20) = 20
  FROM pg_trigger
 WHERE tgrelid = to_regclass('queue_job') AND tgname = 'queue_job_notify' AND NOT tgisinternal
"""

#: Params: may_read, may_write (names of columns). Rows: (column, privilege) of queue_job that our role lacks.
LACKING = """
SELECT name, privilege
  FROM (SELECT unnest(%(may_read)s::text[]), 'SELECT' UNION ALL SELECT unnest(%(may_write)s::text[]), 'UPDATE')
    AS wanted (name, privilege)
 WHERE NOT has_column_privilege('queue_job', name, privilege)
"""

#: The contract's leader lock: one bigint, session level, per database.
LEADER_LOCK = 2293787760715711918
#: Rows: one: (got it).
TRY_LEAD = f"SELECT pg_try_advisory_lock({LEADER_LOCK})"
#: Let a database go, and tell whoever stands by: the lock is free at once, the notification follows at the commit.
LET_GO = "SELECT pg_advisory_unlock_all(); NOTIFY qjsupervisor"
#: Hear of that.
STAND_BY = "LISTEN qjsupervisor"
#: Marks our session as this supervisor's; former ones may still carry the mark, hence shared. Params: mark (bigint).
MARK = "SELECT pg_try_advisory_lock_shared(%(mark)s)"
#: End our own former sessions, which the server still believes alive. By their mark, not by a process id: behind a
#: pooler, or some time later, that may be somebody else's. Params: mark.
#: Rows: (pid, has the leader lock, is a former session of ours), of all other sessions with one of the two locks.
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
#: Who has locks on our tables that statements of ours wait for. What other roles' sessions do is hidden from us.
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
#: The server is to notice within 25 s that our machine is gone, or the leader lock stays for hours and no other
#: supervisor can take over. Without effect on a local socket.
KEEPALIVES = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
#: A claim does not wait for the disk, or for a standby. A crash may undo it then, but never what came after it: Odoo's
#: own commit, `started`, is later in the log and waits for all that is before it. So a claim that is undone is one of a
#: job that was not begun, and its row says `pending` again.
COMMITS = "SET synchronous_commit = off"
#: From PostgreSQL 12 on. Keep-alives for what was sent and not confirmed. And what is prepared gets one plan, which
#: looks rows up by their keys however small the table was when it was made: planning it takes longer than running it,
#: and of itself the server would plan each call. Statements that read a whole table are sent in a transaction of their
#: own.
SETTINGS_12 = """
SET tcp_user_timeout = 20000;
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_mergejoin = off; SET jit = off
"""

#: Prepared once a connection; see READ and TURN. Written so that no other plan is possible than to look each row up by
#: its key: a join to `former` or an index on the state (hence || '') reads all rows that are, or lately were, `pending`
#: or `enqueued`, which looks cheap while the table is small.
#: Nothing is claimed while a module is in transition, unless an operator said to run anyway (the last parameter): it is
#: seen in the very moment of the claim, without a statement for it. ir_module_module has an index on the state.
_NOT_IN_TRANSITION = f"NOT EXISTS (SELECT 1 FROM ir_module_module WHERE state IN {IN_TRANSITION})"
PREPARE = f"""
PREPARE qjs_read (varchar[]) AS
 SELECT false, {JOB_COLUMNS} FROM queue_job WHERE uuid = ANY($1);
PREPARE qjs_turn (bigint[], bigint[], varchar[], bool) AS
 WITH claimed AS (
     UPDATE queue_job SET state = 'enqueued', date_enqueued = now() AT TIME ZONE 'UTC'
      WHERE id IN (
          SELECT next.id
            FROM unnest($1, $2) AS pair (id, former),
                 LATERAL (SELECT id FROM queue_job WHERE id = pair.id AND state || '' = 'pending'
                                AND (eta IS NULL OR eta <= now() AT TIME ZONE 'UTC')
                             FOR UPDATE SKIP LOCKED) AS next
           WHERE ($4 OR {_NOT_IN_TRANSITION})
             AND NOT coalesce((SELECT state IN ('enqueued', 'started') FROM queue_job WHERE id = pair.former), false))
     RETURNING {JOB_COLUMNS})
 SELECT true, * FROM claimed
 UNION ALL
 SELECT false, {JOB_COLUMNS} FROM queue_job
  WHERE (uuid = ANY($3) OR id = ANY($1)) AND id NOT IN (SELECT id FROM claimed);
"""
#: Read the jobs of notifications and of finished requests. Rows: (false, *JOB_COLUMNS).
READ = "EXECUTE qjs_read (%(uuids)s::varchar[])"
#: The same, and claim pending jobs; `former` (0: none) is the job whose permit a claimed one takes over, which has to
#: be over for that. Rows: (claimed, *JOB_COLUMNS); a job that could not be claimed comes as it is.
#: A row that somebody else has locked is left alone: waiting for it would hold up all the others.
TURN = "EXECUTE qjs_turn (%(claim)s::bigint[], %(former)s::bigint[], %(uuids)s::varchar[], %(anyway)s)"

#: Read jobs. Params: ids. Rows: JOB_COLUMNS.
READ_IDS = f"SELECT {JOB_COLUMNS} FROM queue_job WHERE id = ANY(%(ids)s::bigint[])"

#: Of these jobs those that have no row any more. Params: ids. Rows: (id).
GONE = """
SELECT id FROM unnest(%(ids)s::bigint[]) AS known (id)
 WHERE coalesce((SELECT false FROM queue_job WHERE queue_job.id = known.id), true)
"""

#: Give back jobs that nobody was asked to run, or that nobody ran. Params: ids. Rows: (id) of those put back.
GIVE_BACK = """
UPDATE queue_job SET state = 'pending', date_enqueued = NULL, date_started = NULL
 WHERE id IN (SELECT id FROM queue_job WHERE id = ANY(%(ids)s) AND state = 'enqueued' FOR UPDATE SKIP LOCKED)
RETURNING id
"""

_SINCE = "(now() AT TIME ZONE 'UTC') - make_interval(secs => %(within_s)s)"
#: When jobs were last started, as far as the rows tell. Params: within_s. Rows: (channel as in the row, seconds ago).
#: Of the rows that are over only those are read that were over within that time, by queue_job's index on channel and
#: date_done, channel by channel: there may be millions of others.
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

#: All that follows, up to the end of the transaction, sees the rows as they are at one moment.
BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = on"
END_SNAPSHOT = "COMMIT"

#: Bytes are known without reading the text: of a million rows that is a third of the time.
_SENDABLE = f"octet_length(uuid) BETWEEN 1 AND {MAX_UUID_BYTES}"

_WAITING = f"state = 'pending' AND {_SENDABLE} AND id <> ALL(%(deferred)s::bigint[])"
#: The rows are chosen first, and then the epochs of those computed; in one step PostgreSQL would compute them for each
#: row that it sorts, which takes longer than all the rest.
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
#: What a worker has to know before it starts anything: jobs that hold permits, and the best that are due.
#: Params: limit, for the latter; deferred (ids of jobs that are left alone for now).
#: Rows: ('held' | 'due', *JOB_COLUMNS), each kind in its order.
HEAD = f"""
SELECT 'held', {JOB_COLUMNS} FROM queue_job WHERE state IN ('enqueued', 'started')
UNION ALL ({_DUE.format(kind="'due', ", where="")})
"""
#: Everything: those that are due next too. Params: limit, for each kind but 'held'; deferred.
#: Rows: ('held' | 'due' | 'later', *JOB_COLUMNS), each kind in its order.
LOAD = f"""{HEAD}
UNION ALL ({_LATER.format(kind="'later', ", where="")})
"""
_IN_CHANNELS = "(channel = ANY(%(channels)s) OR (%(and_null)s AND channel IS NULL))"
#: The same for some channels. Params: channels (raw names), and_null (bool), limit, deferred. Rows: as LOAD.
READ_CHANNELS = f"""
({_DUE.format(kind="'due', ", where=_IN_CHANNELS + " AND ")})
UNION ALL ({_LATER.format(kind="'later', ", where=_IN_CHANNELS + " AND ")})
"""

#: Rows: (channel, state, number) of the states that are counted.
COUNTS = """
SELECT channel, state, count(*) FROM queue_job
 WHERE state IN ('pending', 'failed', 'wait_dependencies') GROUP BY 1, 2
"""
#: Failed jobs one by one, those of some channels first. Params: limit, first (raw names, '' for NULL too).
#: Rows: (id, channel).
FAILED = """
SELECT id, channel FROM queue_job WHERE state = 'failed'
 ORDER BY coalesce(channel, '') = ANY(%(first)s) DESC, id DESC LIMIT %(limit)s
"""

#: Enqueued long ago, or at a time that cannot be: NULL, infinity, the year 9999. The hour is for clocks that differ.
_LONG_AGO = """coalesce(date_enqueued NOT BETWEEN (now() AT TIME ZONE 'UTC') - make_interval(secs => %(grace_s)s)
                                               AND (now() AT TIME ZONE 'UTC') + interval '1 hour', true)"""
_DATED = "coalesce(isfinite(date_enqueued) AND date_enqueued <= (now() AT TIME ZONE 'UTC'), false)"
#: Started before the server's last start, which broke its session and so freed its lock row: Odoo may not have noticed
#: yet, and its commit, or its failure, is still to come.
_MAY_GO_ON = """state = 'started' AND date_enqueued < pg_postmaster_start_time() AT TIME ZONE 'UTC'
       AND now() < pg_postmaster_start_time() + make_interval(secs => %(after_restart_s)s)"""
#: Of jobs that hold a permit without a request of ours, those that look dead by the contract's rule.
#: Params: ids, grace_s, after_restart_s. Rows: (id, state, whether the row says when it was enqueued). The lock rows
#: are locked for the length of this statement only.
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
#: Where the lock rows cannot tell: only `enqueued` is known to be safe. Params and rows as LOOK_DEAD.
LOOK_DEAD_UNLOCKED = f"""
SELECT id, state, {_DATED} FROM queue_job
 WHERE id = ANY(%(ids)s) AND state = 'enqueued'
   AND {_LONG_AGO}
"""
#: queue_job compares the number before it is raised.
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
#: Put dead jobs back. Params: ids, grace_s, started (ids of those that were seen `started`).
#: Rows: JOB_COLUMNS, with the new state. The rule is asked again, and what was taken by Odoo between the two
#: statements is left alone: a job seen `enqueued` that is `started` now is not dead.
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
#: The same where the lock rows cannot tell.
REVIVE_UNLOCKED = _REVIVE.format(still_dead=f"state = 'enqueued' AND {_LONG_AGO}")

#: Trees of queue_job 18.0.4. Rows: (complete_name, capacity, sequential, throttle, paused, capacity_default,
#: sequential_default).
CHANNELS = """
SELECT complete_name, capacity, sequential, throttle, paused, capacity_default, sequential_default
  FROM queue_job_channel
"""

#: Jobs that run, for how long. Params: ids, least_s. Rows: (id, uuid, channel, seconds since the start) of those that
#: run for longer than least_s.
RUNNING_FOR = """
SELECT id, uuid, channel, extract(epoch FROM (now() AT TIME ZONE 'UTC') - date_started)::float8
  FROM queue_job
 WHERE id = ANY(%(ids)s::int[]) AND state = 'started' AND isfinite(date_started)
   AND date_started < (now() AT TIME ZONE 'UTC') - make_interval(secs => %(least_s)s)
"""
#: End the session that holds the lock row of a job: its transaction's id stands in the row. Params: id.
#: Rows: (whether it was ended; false: our role may not), or none where no session holds it.
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
#: The number of a tenure of the leader lock, taken while it is held: larger than that of any former holder.
#: Params: none. Rows: one (number).
TENURE = "SELECT txid_current()"
