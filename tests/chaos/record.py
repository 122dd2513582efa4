"""PostgreSQL's own record of what became of each job: a trigger that writes every change of state into a table.

It survives every fault, and is committed or rolled back with what it records. A stamp is taken before the commit of
its change, and the supervisor starts a job only after the end of another one is committed: so, sorted by time, ends
come before the starts that they made possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from psycopg2 import extensions

from qjsupervisor.channelspec import complete_name, parent_name

#: The name of rows that are not judged: see faults.odd_rows.
ODD = "odd"
BUSY = ("enqueued", "started")

INSTALL = """
CREATE TABLE chaos_record (
    number bigserial PRIMARY KEY, at_s float8 NOT NULL, job integer, uuid varchar, channel varchar, former varchar,
    state varchar, who varchar);
CREATE FUNCTION chaos_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_record (at_s, job, uuid, channel, former, state, who)
    VALUES (extract(epoch FROM clock_timestamp()), NEW.id, NEW.uuid, NEW.channel, OLD.state, NEW.state,
            current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_record AFTER UPDATE ON queue_job FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION chaos_record();
"""

_READ = "SELECT at_s, job, uuid, channel, former, state, who FROM chaos_record ORDER BY number"


class Change(NamedTuple):
    """One job's change of state."""

    at_s: float
    job: int
    uuid: str
    channel: str | None
    former: str
    state: str
    who: str


def read(connection: extensions.connection) -> list[Change]:
    with connection.cursor() as cursor:
        cursor.execute(_READ)
        return [Change(*row) for row in cursor.fetchall()]


def path(channel: str | None) -> Iterator[str]:
    """The channel and all above it."""
    name: str | None = complete_name(channel)
    while name is not None:
        yield name
        name = parent_name(name)
