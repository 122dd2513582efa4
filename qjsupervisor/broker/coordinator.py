"""The coordinator: one row per cluster in a PostgreSQL database, and all the SQL for it.

A statement reads the row, changes the document in this process (rules.py), and writes it back unless somebody else has
written meanwhile. So no lock is held while a member computes, and a member that is stopped in between blocks nobody.
Each write has its own version, a random number, which also serves the ledger's FENCE: a write that is still on its way
when its connection breaks has no effect once anybody else has written. A write is durable before it is answered
(synchronous_commit).

Blocks while waiting for the server, for a few seconds at most. Every error is raised as a DatabaseError.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import DatabaseError, DatabaseUnavailable, DatabaseUnfit
from ..postgres.failures import NO_PRIVILEGE
from ..postgres.session import Session
from ..postgres.waiter import Waiter
from .counts import Counts
from .ledger import FORMAT, Answer, Ledger, LedgerError, Statement
from .rules import execute, forget

T = TypeVar("T")

#: Where members notify each other; the payload is the cluster and the member.
CHANNEL = "qjsupervisor_cluster"
#: A server that does not answer a statement for this long counts as unavailable.
LIMIT_S = 4.0
#: undefined_table, invalid_schema_name.
_NO_SCHEMA = ("42P01", "3F000")
#: insufficient_privilege; read_only_sql_transaction.
_READ_ONLY = "25006"
#: How often a write is retried because others wrote in between.
_TRIES = 50

#: What `qjsupervisor cluster init` runs. Idempotent. A new version makes a write that is on its way do nothing.
INIT = f"""\
CREATE SCHEMA IF NOT EXISTS qjsupervisor;
CREATE TABLE IF NOT EXISTS qjsupervisor.ledger (
    cluster  text PRIMARY KEY,
    version  bigint NOT NULL,
    changed  timestamptz NOT NULL DEFAULT now(),
    document jsonb NOT NULL
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
COMMENT ON TABLE qjsupervisor.ledger IS 'What each supervisor of a cluster may use of each channel; of qjsupervisor';
UPDATE qjsupervisor.ledger SET document = jsonb_set(document, '{{format}}', '{FORMAT}'), version = version # 1
 WHERE document <> '{{}}' AND NOT document ? 'format';
"""
#: What a supervisor's role needs if another role ran INIT.
GRANTS = """\
GRANT USAGE ON SCHEMA qjsupervisor TO {role};
GRANT SELECT, INSERT, UPDATE ON qjsupervisor.ledger TO {role};
"""

#: The server's start time and timeline, which change with a restart, a failover or a restored backup.
_INCARNATION = "pg_postmaster_start_time()::text || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)"
_SETTINGS = """SET statement_timeout = '3s'; SET lock_timeout = '3s'; SET jit = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
#: Make sure that the row exists. Params: cluster, first (a version).
_BEGIN = """
INSERT INTO qjsupervisor.ledger (cluster, version, document)
VALUES (%(cluster)s, %(first)s, '{}') ON CONFLICT DO NOTHING
"""
#: Params: cluster. Rows: one (version, document as text, the clock in seconds, incarnation; NULL while in recovery).
_READ = f"""
SELECT version, document::text, extract(epoch FROM clock_timestamp())::float8,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE {_INCARNATION} END
  FROM qjsupervisor.ledger WHERE cluster = %(cluster)s
"""
#: Params: cluster, old and new version, document, incarnation, notify, payload. Rows: one, or none if another wrote.
_WRITE = f"""
WITH written AS (
    UPDATE qjsupervisor.ledger SET document = %(document)s, version = %(new)s, changed = now()
     WHERE cluster = %(cluster)s AND version = %(old)s AND {_INCARNATION} = %(incarnation)s
 RETURNING 1)
SELECT CASE WHEN %(notify)s THEN pg_notify('{CHANNEL}', %(payload)s)::text END FROM written
"""
#: For `check`. Rows: one (the server takes writes, the schema is there, the role may use it).
USABLE = """
SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool,
       to_regnamespace('qjsupervisor') IS NOT NULL,
       coalesce(has_schema_privilege(to_regnamespace('qjsupervisor')::oid, 'USAGE'), false)
"""
#: Where the role may use the schema. Rows: one (missing privileges on the table in words; NULL: there is no table).
PRIVILEGES = """
SELECT CASE WHEN t IS NOT NULL THEN (
           SELECT coalesce(string_agg(p, ', '), '') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p
            WHERE NOT has_table_privilege(t, p)) END
  FROM to_regclass('qjsupervisor.ledger') t
"""
#: For `cluster init`. Rows: (cluster, document) of all clusters.
READ_ALL = "SELECT cluster, document FROM qjsupervisor.ledger ORDER BY cluster"
#: For commands. Params: cluster. Rows: one (document, the clock in seconds), or none if there was never a member.
READ_FOR_STATUS = """
SELECT document, extract(epoch FROM clock_timestamp())::float8 FROM qjsupervisor.ledger WHERE cluster = %(cluster)s
"""


@contextmanager
def readable(database: str, cluster: str) -> Iterator[None]:
    """Raise DatabaseUnfit, with the place, if the ledger cannot be read by this version."""
    try:
        yield
    except LedgerError as error:
        raise DatabaseUnfit(database, f"{database}: the ledger of cluster {cluster!r}: {error}") from error


class Coordinator:
    """One broker's session with the coordinator."""

    def __init__(self, dsn: Mapping[str, Any], cluster: str, heartbeat: Callable[[], None]) -> None:
        self._cluster = cluster
        self._name = str(dsn.get("dbname", ""))
        self._session = Session(self._name, dsn, Waiter(heartbeat), settings=[(0, _SETTINGS)])
        self._session.limit_s = LIMIT_S
        self._notifies: list[Any] = []
        #: The ledger as last seen, for `status`.
        self.ledger = Ledger()
        self.clock_s = 0.0

    @property
    def connected(self) -> bool:
        return self._session.connected

    def fileno(self) -> int:
        return self._session.fileno()

    def connect(self) -> None:
        """Connect and listen. Raises DatabaseError."""
        self._notifies.clear()
        self._session.connect()
        self._session.hear(self._notifies)
        try:
            if self._rows("SELECT pg_is_in_recovery()")[0][0]:
                raise DatabaseUnavailable(self._name, f"cluster {self._cluster!r}: the server is a standby")
            self._rows(f"LISTEN {CHANNEL}")
            self._rows(_BEGIN, {"cluster": self._cluster, "first": secrets.randbits(62)})
        except DatabaseError:
            self.close()
            raise

    def _rows(self, statement: str, params: dict[str, Any] | None = None) -> list[Any]:
        """Execute it. What an operator has to mend is told in his words."""
        try:
            return self._session.rows(statement, params)
        except DatabaseError as error:
            if error.sqlstate in _NO_SCHEMA:
                why = f"{self._name} has no schema qjsupervisor: run `qjsupervisor cluster init`"
            elif error.sqlstate == NO_PRIVILEGE:
                why = f"{error}: see the GRANTs that `qjsupervisor cluster init --print` ends with"
            elif error.sqlstate == _READ_ONLY:
                why = f"{self._name} is read-only, and the coordinator must write: connect to the primary"
            else:
                raise
            raise DatabaseUnfit(self._name, why) from error

    def execute(self, said: Statement) -> Answer:
        """Execute a statement and return the answer. Raises DatabaseError; then its effect is unknown."""

        def change(ledger: Ledger, now_s: float, incarnation: str) -> tuple[Answer, bool]:
            answer = execute(ledger, said, now_s, incarnation)
            return answer, answer.notify

        return self._change(change, said.member)

    def forget(self, who: str) -> Counts:
        """Free what the lost member `who` (host:pid) left; returns that. Raises LedgerError, DatabaseError."""
        return self._change(lambda ledger, now_s, incarnation: (forget(ledger, who, now_s, incarnation), True), "")

    def _change(self, change: Callable[[Ledger, float, str], tuple[T, bool]], member: str) -> T:
        """Read, change and write the ledger. `change` returns its result, and whether to notify the members."""
        for _ in range(_TRIES):
            found = self._try(change, member)
            if found is not None:
                return found[0]
        self.close()
        raise DatabaseUnavailable(self._name, f"{_TRIES} writes in a row met another one")

    def _try(self, change: Callable[[Ledger, float, str], tuple[T, bool]], member: str) -> tuple[T, bool] | None:
        params: dict[str, Any] = {"cluster": self._cluster}
        row = next(iter(self._rows(_READ, params)), None)
        if row is None or row[3] is None:
            self.close()
            why = "its row in qjsupervisor.ledger is gone" if row is None else "the server is a standby"
            raise DatabaseUnavailable(self._name, f"cluster {self._cluster!r}: {why}")
        version, document, now_s, incarnation = row
        with readable(self._name, self._cluster):
            ledger = Ledger.from_json(json.loads(document))
        result = change(ledger, now_s, incarnation)
        params |= {"old": version, "new": secrets.randbits(62), "document": json.dumps(ledger.to_json())}
        payload = f"{self._cluster} {member}"
        params |= {"incarnation": incarnation, "notify": result[1], "payload": payload}
        if not self._rows(_WRITE, params):
            return None
        self.ledger, self.clock_s = ledger, now_s
        return result

    def heard(self, member: str) -> bool:
        """Collect notifications; whether another member of this cluster has notified us."""
        self._session.receive()
        payloads = [notify.payload for notify in self._notifies]
        self._notifies.clear()
        return any(p.startswith(f"{self._cluster} ") and p != f"{self._cluster} {member}" for p in payloads)

    def close(self) -> None:
        """Close the session."""
        self._session.close()
