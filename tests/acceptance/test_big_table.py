"""A start on a big table: the best jobs run before the rest was read, and the order holds where the two meet."""

from __future__ import annotations

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn
from qjsupervisor.worker.reading import BIG_BYTES, HEAD

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import Database, odoo_conf, wait_until

ROWS = 60_000


def fill(database: Database) -> None:
    """Rows in an order that is not that of their ids; one in a hundred is not due for an hour."""
    database.execute(
        """
        INSERT INTO queue_job (uuid, channel, state, priority, date_created, eta, retry, max_retries, kwargs)
        SELECT 'job-' || n, 'root', 'pending', 1 + (n * 7919) %% 50,
               (now() AT TIME ZONE 'UTC') - make_interval(secs => (n * 10473) %% 9973),
               CASE WHEN n %% 100 = 0 THEN (now() AT TIME ZONE 'UTC') + interval '1 hour' END, 0, 5, '{}'
          FROM generate_series(1, %(rows)s) n
        """,
        {"rows": ROWS},
    )
    database.execute("ANALYZE queue_job")


def test_the_best_jobs_first(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory
) -> None:
    big = database()
    fill(big)
    assert big.execute("SELECT pg_relation_size('queue_job')")[0][0] > BIG_BYTES
    best = big.execute(
        """SELECT uuid FROM queue_job WHERE eta IS NULL
            ORDER BY coalesce(priority, 10), date_created, id LIMIT %(limit)s""",
        {"limit": 3 * HEAD},
    )
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=big.name, channels="root:1"))
    running.wait_ready(big.name)
    wait_until(lambda: big.states().get("done", 0) >= 3 * HEAD, lambda: str(big.states()), 60)
    started = [entry["job_uuid"] for entry in running.log_events("job_dispatched")]
    assert started[: len(best)] == [uuid for (uuid,) in best]
    shown = running.database_status(big.name)
    assert shown is not None
    assert ROWS - 5000 < shown["pending"] <= ROWS, "what is not read is counted"
    assert running.log_events("table_read_failed") == []
    assert running.run("pause", f"{big.name}:unheard").returncode == 0  # the tree is made anew
    running.wait_for("channels_read")
    (urgent,) = big.insert_jobs(1, priority=0)
    wait_until(lambda: big.state(urgent) == "done", "an urgent job", 10)
    wait_until(lambda: (running.database_status(big.name) or {})["pending"] > ROWS - 10_000, "all are counted again")
