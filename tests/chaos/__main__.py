"""The command line of scripts/chaos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import sleepers
from .rules import Rules
from .run import Options, run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Random faults of all kinds around a stream of jobs.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults happen (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="of faults and jobs (default: %(default)s)")
    parser.add_argument("--databases", type=int, default=4, help="how many, two at least (default: %(default)s)")
    parser.add_argument("--supervisors", type=int, help="of a cluster; 1: no cluster (default: by the seed)")
    parser.add_argument(
        "--rules",
        type=Rules,
        choices=list(Rules),
        metavar="{none,channel,database}",
        help="a rate, minimums and maximums, weights and ageing; whose minimum is reserved (default: by the seed)",
    )
    parser.add_argument("--sleepers", action="store_true", help="databases that sleep, and faults of who watches them")
    parser.add_argument("--jobs", type=int, default=2000, help="of --sleepers, about so many (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.databases < 2:
        parser.error("--databases: two at least, as one of them is dropped now and then")
    if given.sleepers:
        return 1 if sleepers.run(given.seed, given.databases, given.seconds, given.jobs, _say) else 0
    options = Options(
        seconds=given.seconds,
        seed=given.seed,
        databases=given.databases,
        supervisors=given.supervisors,
        rules=given.rules,
    )
    return 1 if run(options, say=_say) else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
