"""Jobs as tests and the demo insert them."""

from __future__ import annotations

import pytest

from qjsupervisor.testing import jobs
from tests.conftest import DatabaseFactory


class TestJobs:
    def test_defaults_of_a_new_row(self, database: DatabaseFactory) -> None:
        one = database()
        (uuid,) = one.insert_jobs(1)
        job = one.job(uuid)
        wanted = {"state": "pending", "priority": 10, "retry": 0, "max_retries": 5, "eta": None}
        assert {name: job[name] for name in wanted} == wanted

    def test_eta_and_creation_are_utc(self, database: DatabaseFactory) -> None:
        one = database()
        one.insert_jobs(1, eta_s=60)
        ages = one.execute(
            "SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - date_created)::float,"
            " extract(epoch FROM eta - date_created)::float FROM queue_job"
        )
        ((age_s, wait_s),) = ages
        assert age_s == pytest.approx(0, abs=10)
        assert wait_s == pytest.approx(60, abs=1)

    def test_dependencies_know_both_ends(self, database: DatabaseFactory) -> None:
        one = database()
        parents = one.insert_jobs(2)
        (child,) = jobs.insert_dependent_jobs(one.connection, 1, parents)
        assert one.state(child) == "wait_dependencies"
        ends = "SELECT uuid, dependencies::jsonb FROM queue_job"
        known = dict(one.execute(ends))
        assert known[child] == {"depends_on": parents, "reverse_depends_on": []}
        assert all(known[parent] == {"depends_on": [], "reverse_depends_on": [child]} for parent in parents)

    def test_odd_row(self, database: DatabaseFactory) -> None:
        one = database()
        uuid = jobs.insert_row(one.connection, uuid="not a uuid", channel=None, priority=None)
        assert one.job(uuid)["priority"] is None
