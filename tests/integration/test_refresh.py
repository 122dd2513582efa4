"""When a worker reads its jobs and channels again: by order, where it may have missed something, and on its own."""

from __future__ import annotations

import json
import time

from qjsupervisor.states import Phase
from qjsupervisor.testing.jobs import insert_row
from qjsupervisor.testing.postgres import ThrowawayPostgres

from .served import MakeRig, Rig

SILENT = "SET session_replication_role = replica; INSERT INTO queue_job (uuid, state) VALUES ('silent', 'pending')"


def test_by_order_everything_is_read_again(rig: Rig, postgres: ThrowawayPostgres) -> None:
    assert len(rig.heard("read")) == 1
    postgres.execute(rig.one.name, SILENT, superuser=True)
    rig.go_on(0.2)
    assert rig.one.state("silent") == "pending", "nobody said anything"
    rig.order(do="channels")
    rig.until(lambda: rig.one.state("silent") == "enqueued", "it is found")
    assert len(rig.heard("read")) == 2


def test_more_notifications_than_can_be_kept_are_made_up_for_by_a_read(rig: Rig, postgres: ThrowawayPostgres) -> None:
    postgres.execute(rig.one.name, SILENT, superuser=True)
    rig.worker.parts.database.notified.overflowed = True
    rig.until(lambda: rig.one.state("silent") == "enqueued", "it is found")
    assert not rig.worker.parts.database.notified.overflowed


def test_running_jobs_hold_their_permits_before_anything_is_told(make_rig: MakeRig, rig: Rig) -> None:
    uuid = insert_row(rig.one.connection, state="started")
    rig.order(do="stop")
    rig.until(lambda: rig.worker.progress.exit_code is not None, "the first one ends")
    next_one = make_rig(rig.one)
    assert len(next_one.heard("read")) == 1
    assert next_one.running == 1
    next_one.one.execute("UPDATE queue_job SET state = 'done' WHERE uuid = %s", (uuid,))
    next_one.until(lambda: next_one.running == 0, "it is over")


def test_a_throttle_goes_on_where_a_former_supervisor_left_it(make_rig: MakeRig, rig: Rig) -> None:
    """The last start is in the rows; without it the first job would be started at once."""
    rig.one.execute(
        "INSERT INTO queue_job (uuid, state, channel, date_enqueued, date_done)"
        " VALUES ('last', 'done', 'root.t', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')"
    )
    rig.order(do="stop")
    rig.until(lambda: rig.worker.progress.exit_code is not None, "the first one ends")
    next_one = make_rig(rig.one, "root:4,root.t:4:throttle=60")
    throttled = next(view for view in next_one.table.channel_views() if view.name == "root.t")
    left_s = (throttled.throttled_until_ns - time.monotonic_ns()) / 1e9
    assert 30 < left_s <= 60
    assert next_one.phase is Phase.SERVING


def test_what_a_read_took_is_known(rig: Rig) -> None:
    rig.one.execute(
        "INSERT INTO queue_job (uuid, state, dependencies) VALUES ('child', 'wait_dependencies', %s)",
        (json.dumps({"depends_on": ["x"]}),),
    )
    rig.order(do="channels")
    rig.until(lambda: rig.worker.parts.reporting.wait_dependencies == 1, "it is counted")
