"""The benchmark itself, at sizes that say nothing: so that it still runs when it is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from qjsupervisor.testing.processes import DemoError
from tests.helpers import REPOSITORY, clean_environment, wait_until

from . import growth, report
from .__main__ import _options, main, measure
from .figures import Results
from .growth import GrowthScale
from .runners import KINDS, OCA, OURS
from .scenarios import SCENARIOS, Scale
from .stand import GaveUp, Stand

TINY = Scale(
    drain_databases=(2,),
    drain_jobs=20,
    backlogs=(40,),
    probes_s=0.3,
    waiting=(50,),
    databases=(2,),
    databases_jobs=20,
    memory_after_s=0.0,
)
NAMES = [scenario.name for scenario in SCENARIOS]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand(with_oca=True, timeout_s=20.0) as made:
        yield made


def test_side_by_side(stand: Stand) -> None:
    stand.timeout_s = 20.0
    results = Results()
    measure(stand, results, TINY, NAMES, KINDS, 1)
    assert len(results.measured) == len(NAMES) * len(KINDS)
    for one in results.measured:
        assert all(value is not None and value > 0 for value in one.figures.values()), one
    machine = report.Machine.here("18.1 (Debian)")
    document = json.loads(report.as_json(results, machine, {"quick": True}))
    assert document["machine"]["postgresql"] == "18.1"
    assert document["measured"][0]["figures"]["cpu_ms_per_job"] > 0
    titles = {element.text for element in ElementTree.fromstring(report.svg(results, machine)).iter()}
    assert {"From INSERT to Odoo, beside a backlog", "Throughput", machine.line()} <= titles


def test_growth(stand: Stand) -> None:
    stand.timeout_s = 20.0
    scale = GrowthScale(databases=(2,), waiting=(2000,), channels=(1, 3), capacity=(5,), jobs=60)
    reasons: list[str] = []
    steps = growth.grow(stand, scale, lambda _step, reason: reasons.append(reason))
    assert reasons == [""] * 5
    assert all(step.figures["cpu_ms_per_job"] for step in steps)
    lines = growth.rows(steps)
    assert [line[:2] for line in lines[2:4]] == [("channels", "1"), ("channels", "3")]
    assert [line[3] == "-" for line in lines] == [True, True, True, False, True]


@pytest.mark.parametrize("kind", [OCA, OURS])
def test_a_runner_that_is_too_slow_gives_a_dash_and_is_gone(stand: Stand, kind: str) -> None:
    stand.timeout_s = 0.0
    results = Results()
    measure(stand, results, TINY, ["startup"], [kind], 1)
    assert results.median("startup", 50, kind, "first_job_s") is None
    assert _runners() == []


def test_a_runner_that_ends_is_not_waited_for(stand: Stand) -> None:
    stand.timeout_s = 60.0
    with stand.runner(OURS, stand.databases(1), "root:nonsense") as runner, pytest.raises(GaveUp, match="nonsense"):
        stand.warm_up(runner, ["bench_0"])


def _runners() -> list[list[str]]:
    """Command lines of the benchmark's runners that still run."""
    lines = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            lines.append(one.cmdline())
    return [line for line in lines if "start" in line or "tests.benchmark.oca_runner" in line]


def test_nothing_stays_when_it_cannot_be_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("QJS_PG_BINDIR", str(tmp_path / "nothing"))
    with pytest.raises(DemoError):
        Stand(with_oca=False, timeout_s=1.0).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_everything_and_shows_what_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmark", "--quick", "--runner", OURS]
    environment = clean_environment(TMPDIR=str(tmp_path))
    with subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = process.stderr
        assert lines is not None
        wait_until(lambda: "drain" in lines.readline(), "a first figure", timeout_s=40)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "CPU per job" in out
    assert psutil.wait_procs(family, timeout=5)[1] == []
    kept = [path.name for path in tmp_path.iterdir()]
    assert [name.startswith("qjsupervisor-benchmark-") for name in kept] == [True], kept


@pytest.mark.parametrize("text", ["", "drain,nonsense"])
def test_unknown_scenarios(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _options(["--scenarios", text])
    assert ended.value.code == 2
    assert "drain, latency, startup, databases" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "--growth" in capsys.readouterr().out
