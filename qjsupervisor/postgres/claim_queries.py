"""The SQL of a job's way through a worker: read it, claim it, give it back. Constants only.

These are the statements that run for each job, so they are prepared, and nothing may be added to them without a
measurement. Which jobs are claimed is decided in worker/claiming.py. Columns of a job: queries.JOB_COLUMNS.
"""

from __future__ import annotations

from .queries import IN_TRANSITION, JOB_COLUMNS

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

#: Set back jobs whose request was never sent, or that nobody ran. Params: ids. Rows: (id) of those set back.
GIVE_BACK = """
UPDATE queue_job SET state = 'pending', date_enqueued = NULL, date_started = NULL
 WHERE id IN (SELECT id FROM queue_job WHERE id = ANY(%(ids)s) AND state = 'enqueued' FOR UPDATE SKIP LOCKED)
RETURNING id
"""
