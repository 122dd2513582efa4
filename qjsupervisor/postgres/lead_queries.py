"""The SQL of queue_job's leader lock: take it, wait for it, hand it over, end former holders. Constants only.

Reads and writes no job. Who waits for what, and when, is in leadership.py.
"""

from __future__ import annotations

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
#: The number of a tenure of the leader lock, taken while holding it; larger than that of any earlier holder.
#: No params. Rows: one (number).
TENURE = "SELECT txid_current()"
