"""Chaos, in short: scripts/chaos runs it for as long as one likes."""

from __future__ import annotations

import sys

from ..chaos.run import Options, run


def test_everything_at_once_for_a_few_seconds() -> None:
    def say(line: str) -> None:
        sys.stdout.write(line + "\n")

    assert run(Options(seconds=10, seed=11, databases=3, drain_s=90), say) == []
