"""What a benchmark leaves: the picture, and its figures as JSON with the machine and the date."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from qjsupervisor.version import __version__
from tests import oca

from .figures import Results
from .runners import OCA, OURS, cores
from .scenarios import SCENARIOS
from .svg import Line, Panel, picture

COLORS = {OCA: "#d1772a", OURS: "#1f6fb5"}
_TITLES = {OCA: f"OCA's runner {oca.VERSION}", OURS: f"qjsupervisor {__version__}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and when something was measured."""

    date: str
    cores: int
    cpu: str
    memory_gib: int
    kernel: str
    python: str
    postgresql: str

    @classmethod
    def here(cls, postgresql: str) -> Machine:
        return cls(
            date=datetime.now(timezone.utc).date().isoformat(),
            cores=cores(),
            cpu=_cpu_model(),
            memory_gib=round(psutil.virtual_memory().total / 2**30),
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            postgresql=postgresql.partition(" ")[0],
        )

    def line(self) -> str:
        """One line for people."""
        cores_text = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{self.date}, {cores_text} of {self.cpu}, Python {self.python}, PostgreSQL {self.postgresql}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def panels(results: Results) -> list[Panel]:
    """Latency over backlog; throughput, memory and start over databases. Only what was measured."""
    found = []
    if results.sizes("latency"):
        keys = {"p50_ms": False, "p99_ms": True}
        found.append(_panel(results, "latency", "From INSERT to Odoo, beside a backlog", "ms", keys, logarithmic=True))
    if results.sizes("databases"):
        for key, title, unit, logarithmic in (
            ("jobs_per_s", "Throughput", "jobs/s", False),
            ("memory_mib", "Memory (PSS of all processes)", "MiB", False),
            ("all_served_s", "From start until a job ran in each database", "s", True),
        ):
            found.append(_panel(results, "databases", title, unit, {key: False}, logarithmic=logarithmic))
    return found


def _panel(
    results: Results,
    name: str,
    title: str,
    unit: str,
    dashed: Mapping[str, bool],
    *,
    logarithmic: bool,
) -> Panel:
    """`dashed`: the keys of its figures, and whether their lines are."""
    sizes = results.sizes(name)
    lines = [
        Line(color=COLORS[kind], values=[results.median(name, size, kind, key) for size in sizes], dashed=dashed[key])
        for kind in results.runners()
        for key in dashed
    ]
    counted = next(scenario.size for scenario in SCENARIOS if scenario.name == name)
    size = "waiting jobs of four other databases" if name == "latency" else counted
    lines_are = "solid: median, dashed: 99 %" if name == "latency" else ""
    return Panel(
        title=title, sizes=sizes, size=size, unit=unit, lines=lines, lines_are=lines_are, logarithmic=logarithmic
    )


def svg(results: Results, machine: Machine) -> str:
    """The picture; of what was measured."""
    legend = [(COLORS[kind], _TITLES[kind]) for kind in results.runners()]
    return picture("Job runners side by side", legend, panels(results), machine.line())


def as_json(results: Results, machine: Machine, options: Mapping[str, Any]) -> str:
    document = {
        "machine": asdict(machine),
        "versions": {OCA: oca.VERSION, OURS: __version__},
        "options": dict(options),
        "measured": [asdict(one) for one in results.measured],
    }
    return json.dumps(document, indent=1) + "\n"


def write(folder: Path, name: str, text: str) -> Path:
    """Replace a file as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    new = path.with_name(f".{name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
    return path
