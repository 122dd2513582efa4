"""Chaos, in short: scripts/chaos runs it for as long as one likes."""

from __future__ import annotations

import sys

from ..chaos import sleepers
from ..chaos.run import Options, run
from ..chaos.world import Kind


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def test_databases_that_sleep_while_who_watches_them_is_killed() -> None:
    assert sleepers.run(8, 12, 4.0, 60, say, between_faults_s=(0.2, 0.6), short=True) == []


def test_everything_at_once_for_a_few_seconds() -> None:
    # No link: a connection lost in it is noticed after seconds. No long jobs: a restart would have to be waited for.
    kind = Kind(more=0, link=False, long=False)
    assert run(Options(seconds=10, seed=11, databases=3, drain_s=90, kind=kind), say) == []
