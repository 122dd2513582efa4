"""The scout's statements: what a database contains and what our role may do there. All are read-only.

They wait for no lock that an Odoo upgrade may hold for long, except when reading ir_module_module and
ir_config_parameter (MODULES of the worker's queries, and PARAMETERS).
"""

from __future__ import annotations

from ..postgres.queries import SERVER_START

#: Databases as Odoo lists them. Params: not_served (list of text). Rows: (name as bytes), sorted.
#: Bytes, because a database name may be in any encoding.
LIST_DATABASES = """
SELECT convert_to(datname::text, 'SQL_ASCII')
  FROM pg_database
 WHERE datallowconn
   AND NOT datistemplate
   AND pg_get_userbyid(datdba) = current_user
   AND datname <> ALL (%(not_served)s)
 ORDER BY datname
"""

#: A read-only transaction with timeouts on the server as well; ends with the session. With: timeout_ms (int).
BEGIN = "BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout_ms}; SET LOCAL lock_timeout = {timeout_ms}"

#: The server and the database. No params. One row: (role, server version, in recovery, read-only, encoding,
#: has ir_module_module, has queue_job, server start time, oid of the database, tables whose policies may hide rows).
#: The search path decides which table a name refers to, as it does for the worker.
FACTS = f"""
SELECT current_user::text,
       current_setting('server_version'),
       pg_is_in_recovery(),
       current_setting('default_transaction_read_only')::boolean,
       current_setting('server_encoding'),
       to_regclass('ir_module_module') IS NOT NULL,
       to_regclass('queue_job') IS NOT NULL,
       {SERVER_START},
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
       ARRAY(SELECT name FROM unnest(ARRAY['ir_module_module', 'queue_job', 'queue_job_lock', 'queue_job_channel']) name
              WHERE to_regclass(name) IS NOT NULL AND row_security_active(to_regclass(name)))
"""

#: Whether there is no job that is not over, or failed. It waits only briefly for a lock. No params. One row: (boolean).
RESTS = """
SET LOCAL lock_timeout = '200ms';
SELECT NOT EXISTS (SELECT 1 FROM queue_job
                    WHERE state IN ('wait_dependencies', 'pending', 'enqueued', 'started', 'failed'))
"""

#: The schema of a queue_job that is not on the search path, or that the role may not use. No params.
#: One row: (schema or NULL).
ELSEWHERE = """
SELECT min(n.nspname)::text
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = 'queue_job' AND c.relkind IN ('r', 'p')
"""

#: What Odoo says of the database itself. No params. Rows: (key, value).
PARAMETERS = """
SELECT key, value FROM ir_config_parameter WHERE key IN ('database.is_neutralized', 'database.uuid')
"""

#: Columns of the tables that the worker uses, with our privileges. No params.
#: Rows: (table, column, may_select, may_update); a privilege on a table applies to its columns.
COLUMNS = """
SELECT c.relname::text,
       a.attname::text,
       has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
       has_column_privilege(a.attrelid, a.attnum, 'UPDATE')
  FROM unnest(ARRAY['ir_module_module', 'ir_config_parameter', 'queue_job', 'queue_job_lock', 'queue_job_channel'])
       AS wanted (name)
  JOIN pg_class c ON c.oid = to_regclass(wanted.name)
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
"""

#: Who holds the leader lock. Params: high, low (the halves of its key). Rows: (pid, application, user), or none.
#: Application and user may be NULL, because details of other roles' sessions are hidden from us.
LEADER = """
SELECT l.pid, a.application_name, a.usename::text
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory'
   AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.classid::bigint = %(high)s
   AND l.objid::bigint = %(low)s
   AND l.objsubid = 1
"""

#: The server process that answers. Behind a pooler in transaction mode it can change from one transaction to the next.
BACKEND_PID = "SELECT pg_backend_pid()"
