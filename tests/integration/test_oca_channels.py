"""Our channels against OCA's own channel manager, from the package index: the same histories, the same decisions.

The differences, all of them on purpose, are the last tests here. The first is the only one that matters: OCA gives a
job its place in its own channel as soon as it could have it, hands it on to the queue of the parent channel, and does
not look back; we decide for all channels of a path at the moment of the start. What follows from that:

- a better job overtakes one of its own channel that waits further down;
- a throttle counts from start to start, not from the moment of being handed on;
- what a channel learns meanwhile (an earlier job that is not due yet) counts for the one that waits further down too;
- a job that is found running while it waits further down is not started again.

Others: OCA goes on to hold a job as pending, or failed, that now waits for another job, until the runner is restarted;
and a root of capacity 0 has no limit for OCA's channel manager, while nothing runs in ours, as the contract has it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qjsupervisor.config.channel_string import parse_channels
from tests.channel_examples import EXAMPLES, Example
from tests.differential import Ours, OursShared, compare
from tests.oca import Oca

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.title for example in EXAMPLES])
def test_the_documented_examples_are_ocas(example: Example) -> None:
    example.play(Oca)


@pytest.mark.parametrize("seed", range(0, 100, 10))
def test_identical_where_nothing_waits_further_down(seed: int) -> None:
    """OCA's manager as it is; limits only in channels that have none below them."""
    started = [compare(one, 300, nested=False) for one in range(seed, seed + 10)]
    assert sum(jobs for jobs, _taken_back in started) > 100


@pytest.mark.parametrize("seed", range(100, 200, 10))
def test_identical_when_what_waits_further_down_is_taken_back(seed: int) -> None:
    """Limits at every level. OCA's manager is untouched but for that; so this is the whole difference."""
    ended = [compare(one, 300, nested=True) for one in range(seed, seed + 10)]
    assert sum(jobs for jobs, _taken_back in ended) > 100
    assert sum(taken_back for _jobs, taken_back in ended) > 100


def test_the_long_form_runs() -> None:
    """scripts/differential, for as many operations as one likes."""
    command = [str(_ROOT / "scripts" / "differential"), "--operations", "3000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, cwd="/")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^3000 operations, \d+ jobs started, \d+ taken back: no difference", done.stdout, re.MULTILINE)


# -- the differences -----------------------------------------------------------------------------------------------


class Both:
    """OCA's manager as it is, OCA's with what waits further down taken back, and both forms of ours."""

    def __init__(self, channels: str) -> None:
        specs = parse_channels(channels)
        self.oca = Oca(specs)
        self.corrected = Oca(specs, takes_back=True)
        self.ours: list[Ours] = [Ours(specs), OursShared(specs)]

    def job(self, job_id: int, channel: str | None, state: str, *, priority: int = 10, eta: int | None = None) -> None:
        managers: list[Oca | Ours] = [self.oca, self.corrected, *self.ours]
        for manager in managers:
            manager.notify(job_id, channel, priority, 0, eta, state)

    def decide(self, now: int, *, corrected: bool = True) -> tuple[list[int], list[int]]:
        """OCA's decision, and that of both of ours; with `corrected` the other OCA decides as ours do."""
        ours, again = [manager.decide(now) for manager in self.ours]
        assert ours == again
        if corrected:
            assert self.corrected.decide(now) == ours
        return self.oca.decide(now), ours

    def close(self) -> None:
        for manager in self.ours:
            manager.close()


@pytest.fixture
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    made = Both(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("both", ["root:1, a:1"], indirect=True)
def test_a_better_job_overtakes_one_of_its_channel_that_waits_further_down(both: Both) -> None:
    both.job(1, None, "started")
    both.job(2, "a", "pending")
    assert both.decide(0) == ([], [])
    both.job(3, "a", "pending", priority=1)
    both.job(1, None, "done")
    assert both.decide(1) == ([2], [3])


@pytest.mark.parametrize("both", ["root:1, slow:9:throttle=10"], indirect=True)
def test_a_throttle_counts_from_start_to_start(both: Both) -> None:
    both.job(1, None, "started")
    both.job(2, "slow", "pending")
    assert both.decide(100) == ([], [])
    both.job(1, None, "done")
    assert both.decide(105) == ([2], [2])
    both.job(2, "slow", "done")
    both.job(3, "slow", "pending")
    assert both.decide(110) == ([3], [])  # five seconds after the last start
    both.job(3, "slow", "pending")
    assert both.decide(115)[1] == [3]


@pytest.mark.parametrize("both", ["root:1, s:1:sequential"], indirect=True)
def test_an_earlier_job_that_is_not_due_holds_up_what_waits_further_down(both: Both) -> None:
    both.job(1, None, "started")
    both.job(3, "s", "pending")
    assert both.decide(0) == ([], [])
    both.job(2, "s", "pending", eta=50)
    both.job(1, None, "done")
    assert both.decide(1) == ([3], [])


@pytest.mark.parametrize("both", ["root:1, a:9"], indirect=True)
def test_a_job_found_running_while_it_waits_further_down_is_not_started_again(both: Both) -> None:
    both.job(1, None, "started")
    both.job(2, "a", "pending")
    assert both.decide(0) == ([], [])
    both.job(2, "a", "started")
    both.job(1, None, "done")
    assert both.decide(1) == ([2], [])


@pytest.mark.parametrize("both", ["root:9"], indirect=True)
def test_a_job_that_waits_for_another_one_is_not_pending(both: Both) -> None:
    both.job(1, None, "pending")
    both.job(1, None, "wait_dependencies")
    assert both.decide(0, corrected=False) == ([1], [])


@pytest.mark.parametrize("both", ["root:9, s:1:sequential"], indirect=True)
def test_a_failed_job_that_now_waits_for_another_one_stops_its_sequential_channel_no_more(both: Both) -> None:
    both.job(1, "s", "failed")
    both.job(1, "s", "wait_dependencies")
    both.job(2, "s", "pending")
    assert both.decide(0, corrected=False) == ([], [2])


@pytest.mark.parametrize("both", ["root:0"], indirect=True)
def test_a_root_of_capacity_0_runs_nothing(both: Both) -> None:
    both.job(1, None, "pending")
    assert both.decide(0, corrected=False) == ([1], [])
