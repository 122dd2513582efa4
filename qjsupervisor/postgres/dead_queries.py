"""The SQL about jobs that nobody runs any more, or that run for too long. Constants only.

The rule of what is dead is queue_job's (docs/contract.md); worker/suspects.py and worker/long_runs.py say which jobs
are asked about, and when. Columns of a job: queries.JOB_COLUMNS.
"""

from __future__ import annotations

from .queries import JOB_COLUMNS

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
