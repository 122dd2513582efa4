"""The work of the demo: when it comes in, and what is counted."""

from __future__ import annotations

from qjsupervisor.demo import work
from qjsupervisor.demo.work import Batch, Work
from tests.conftest import DatabaseFactory


def test_jobs_come_in_when_their_time_has_come(database: DatabaseFactory) -> None:
    plan = [
        Batch(about="parent", database=work.SHOP, count=1, at_s=2.0),
        Batch(about="child", database=work.SHOP, count=1, at_s=2.0, dependent=True),
        Batch(about="first", database=work.SHOP, count=3),
    ]
    one = database()
    todo = Work({work.SHOP: one.connection}, plan)
    assert [batch.about for batch in todo.put_due(1.0)] == ["first"]
    assert not todo.is_all_in()
    assert one.states() == {"pending": 3}
    assert [batch.about for batch in todo.put_due(2.0)] == ["parent", "child"]
    assert todo.is_all_in()
    assert one.states() == {"pending": 4, "wait_dependencies": 1}


def test_counts_are_by_database_and_channel(database: DatabaseFactory) -> None:
    one = database()
    one.insert_jobs(2)
    one.insert_jobs(1, state="started", channel="root.slow")
    (uuid,) = one.insert_jobs(1, state="done", channel="root.slow")
    one.execute("UPDATE queue_job SET date_started = date_created + interval '3 s' WHERE uuid = %s", (uuid,))
    root, slow = work.counts({work.SHOP: one.connection})
    assert (root.channel, root.waiting, root.running, root.total) == ("root", 2, 0, 2)
    assert root.median_wait_s is None
    assert (slow.channel, slow.running, slow.done, slow.longest_wait_s) == ("root.slow", 1, 1, 3.0)
    assert not work.is_over([root, slow])
