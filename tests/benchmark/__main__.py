"""benchmark: OCA's job runner and qjsupervisor side by side, on this machine.

Makes a PostgreSQL of its own and a stand-in Odoo, fetches OCA's runner from the package index, and leaves nothing
behind but the figures, benchmark.json and the picture benchmark.svg, and the bytecode of the checkout. Nothing else
should use the machine meanwhile. Memory is PSS, summed up over all processes of a runner; CPU is theirs alone, without
PostgreSQL's and Odoo's. A dash stands for what was not done in time.
"""

from __future__ import annotations

import argparse
import compileall
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from qjsupervisor.testing.processes import DemoError
from tests.helpers import REPOSITORY

from . import growth, report, table
from .figures import Measured, Results
from .report import Machine
from .runners import KINDS, OCA, OURS
from .scenarios import FULL, QUICK, SCENARIOS, Run, Scale
from .stand import GaveUp, Stand, server_version

#: Figures that are committed, and where the documentation shows the picture.
_COMMITTED = REPOSITORY / "tests" / "benchmark" / "data"
_PICTURES = REPOSITORY / "docs" / "images"
_REPEAT = 3


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    # Whatever ends us ends the runners, PostgreSQL and Odoo first, and removes their files.
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    # A shell without job control starts what it puts in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As an installation does. Where bytecode may not be written, each start would compile everything.
    compileall.compile_dir(REPOSITORY / "qjsupervisor", quiet=2)
    try:
        return _growth(options) if options.growth else _side_by_side(options)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except DemoError as error:
        _say(f"benchmark: {error}")
        return 1


def _interrupted(_signum: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="benchmark", description=f"{summary} {rest}")
    parser.add_argument("--quick", action="store_true", help="small sizes, in a minute or two: a look, no measurement")
    parser.add_argument(
        "--scenarios", type=_list_of(names), default=names, metavar="A,B", help=f"of {', '.join(names)}; default: all"
    )
    parser.add_argument("--runner", choices=KINDS, help="only this one")
    parser.add_argument("--repeat", type=int, help=f"times; medians are shown (default: {_REPEAT}, quick: 1)")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds for one step of a runner, else a dash")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: tests/benchmark/data for a complete run, else a new one"
    )
    parser.add_argument("--growth", action="store_true", help="instead: what a job costs us as things grow")
    return parser.parse_args(arguments)


def _list_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        wanted = [name for name in text.split(",") if name]
        unknown = [name for name in wanted if name not in names]
        if unknown or not wanted:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: not among {', '.join(names)}")
        return wanted

    return chosen


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


# -- side by side ------------------------------------------------------------------------------------------


def _side_by_side(options: argparse.Namespace) -> int:
    scale = QUICK if options.quick else FULL
    if options.timeout is not None:
        scale = replace(scale, timeout_s=options.timeout)
    kinds = [options.runner] if options.runner else list(KINDS)
    repeat = options.repeat or (1 if options.quick else _REPEAT)
    results = Results()
    with Stand(with_oca=OCA in kinds, timeout_s=scale.timeout_s) as stand:
        machine = Machine.here(server_version(stand.postgres))
        _say(machine.line())
        try:
            measure(stand, results, scale, options.scenarios, kinds, repeat)
        except KeyboardInterrupt:
            _say("interrupted; what there is so far:")
    table.show(table.HEADER, table.rows(results), sys.stdout)
    planned = sum(len(one.sizes(scale)) for one in SCENARIOS if one.name in options.scenarios) * len(kinds) * repeat
    complete = len(results.measured) == planned
    described = {"quick": options.quick, "repeat": repeat, "complete": complete, "scale": asdict(scale)}
    whole = complete and not options.quick and len(kinds) > 1 and len(options.scenarios) == len(SCENARIOS)
    folder = options.output or (_COMMITTED if whole else None)
    texts = {
        "benchmark.json": report.as_json(results, machine, described),
        "benchmark.svg": report.svg(results, machine),
    }
    return _write(folder, texts) or (0 if complete else 130)


def measure(
    stand: Stand, results: Results, scale: Scale, names: Sequence[str], kinds: Sequence[str], repeat: int
) -> None:
    """Run the scenarios; the runners take turns, so that what changes on the machine meets both."""
    for scenario in (one for one in SCENARIOS if one.name in names):
        for size in scenario.sizes(scale):
            scenario.prepare(stand, size)
            for number in range(repeat):
                for kind in kinds:
                    found: dict[str, float | None] = {figure.key: None for figure in scenario.figures}
                    reason, began_s = "", time.monotonic()
                    try:
                        scenario.measure(Run(stand=stand, kind=kind, size=size, scale=scale), found)
                    except GaveUp as error:
                        reason = f"; {error}"
                    results.add(Measured(scenario.name, size, kind, found))
                    shown = ", ".join(
                        f"{one.title} {table.number(found[one.key])} {one.unit}" for one in scenario.figures
                    )
                    label = f"{scenario.label(size)}, {kind}, {number + 1} of {repeat}"
                    _say(f"{label}: {shown} ({time.monotonic() - began_s:.0f} s){reason}")


def _write(folder: Path | None, texts: dict[str, str]) -> int:
    try:
        folder = folder or Path(tempfile.mkdtemp(prefix="qjsupervisor-benchmark-"))
        for name, text in texts.items():
            place = _PICTURES if folder == _COMMITTED and name.endswith(".svg") else folder
            _say(f"written: {report.write(place, name, text)}")
    except OSError as error:
        _say(f"benchmark: the figures cannot be written: {error}; choose a directory with --output")
        return 1
    return 0


# -- growth ------------------------------------------------------------------------------------------------


def _growth(options: argparse.Namespace) -> int:
    scale = growth.QUICK_GROWTH if options.quick else growth.FULL_GROWTH
    if options.timeout is not None:
        scale = replace(scale, timeout_s=options.timeout)
    with Stand(with_oca=False, timeout_s=scale.timeout_s) as stand:
        machine = Machine.here(server_version(stand.postgres))
        _say(machine.line())
        steps = growth.grow(stand, scale, _step_done)
    table.show(growth.HEADER, growth.rows(steps), sys.stdout)
    document = {"machine": asdict(machine), "scale": asdict(scale), "steps": [asdict(step) for step in steps]}
    folder = options.output or (None if options.quick else _COMMITTED)
    return _write(folder, {"benchmark-growth.json": json.dumps(document, indent=1) + "\n"})


def _step_done(step: growth.Step, reason: str) -> None:
    cost = table.number(step.figures["cpu_ms_per_job"])
    _say(f"{OURS}, {step.size:,} {step.what}: {cost} ms of CPU per job" + (f"; {reason}" if reason else ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
