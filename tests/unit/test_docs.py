"""The documentation against the program. To renew its tables: python -m tests.unit.test_docs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor import cli
from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config.options import ODOO, ODOO_OPTIONS, OPTIONS, OWN, QUEUE_JOB, QUEUE_JOB_OPTIONS, Option
from qjsupervisor.monitor import measures, metrics
from qjsupervisor.monitor.processes import Process
from qjsupervisor.states import Fairness, WorkerState
from qjsupervisor.table.semaphore import SemaphoreTable
from tests import manual

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Which page has which table.
PAGES = {
    "configuration.md": (f"options:{OWN}", f"options:{QUEUE_JOB}", f"options:{ODOO}"),
    "metrics.md": ("metrics",),
}


def options_table(options: Iterable[Option[Any]]) -> str:
    """Key, default, meaning; markdown."""
    lines = ["| key | default | |", "|---|---|---|"]
    for option in options:
        default = f"`{option.default_text}`" if option.default_text else ""
        lines.append(f"| `{option.name}` | {default} | {_cell(option.help)} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Every family that is ever exported."""
    view: dict[Any, Any] = {measure.key: 1 for measure in (*measures.DATABASE, *measures.CHANNEL, *measures.TARGET)}
    status = {
        "databases": [{**view, "name": "d", "state": "ready", "outcomes": {"done": 1}, "share": {"min": 1, "max": 1}}],
        "channels": [{**view, "name": "c", "rate": {"starts": 1, "period_s": 1, "used": 1}}],
        "targets": [{**view, "url": "u", "state": "up"}],
        "postgresql": [{"server": "s", "state": "up"}],
        "slots": {"used": 1, "limit": 2},
        "reloads": {"success": 1, "refused": 0, "last_successful": True, "last_success_at": 1.0},
        "scan_age_s": 1.0,
        "uptime_s": 1.0,
        "rules": {"ageing_s": 60, "max_runtimes": {"root": 1.0}},
        "schedule": {"limits": [{"channel": "root", "limit": 0}], "next": [{"in_s": 1.0}]},
    }
    table = SemaphoreTable([ChannelSpec(name="root", capacity=1)], slots=1, fairness=Fairness.ROUND_ROBIN)
    facts = metrics.MetricSources(status, table.totals(), (), [Process("master", 1, 1.0, 1, 1)])
    lines = ["| metric | labels | |", "|---|---|---|"]
    for family in metrics.StatusCollector(facts).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in family.samples[0].labels if label != "le")
        text = family.documentation + (" A histogram." if family.type == "histogram" else "")
        lines.append(f"| `{name}` | {labels} | {_cell(text)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Asterisks and bars as they are."""
    return re.sub(r"([*|_])", r"\\\1", text)


def tables() -> dict[str, str]:
    return {
        f"options:{OWN}": options_table(OPTIONS),
        f"options:{QUEUE_JOB}": options_table(QUEUE_JOB_OPTIONS),
        f"options:{ODOO}": options_table(ODOO_OPTIONS),
        "metrics": metrics_table(),
    }


def renewed(page: str) -> str:
    """The page's text with its tables as the program has them."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name in PAGES[page]:
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, name=name: f"{match[1]}\n{tables()[name]}\n\n{match[2]}", text)
        assert count == 1, f"{page} has no place for the table {name}"
    return text


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == renewed(page), "run: python -m tests.unit.test_docs"


def test_every_command_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert "start" in commands
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for command in commands:
        assert re.search(rf"^\| `{command}[ `]", text, re.MULTILINE), command


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.STOPPING])
def test_every_state_is_mentioned(state: WorkerState) -> None:
    assert f"`{state.value}`" in (DOCS / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", *(str(page.relative_to(ROOT)) for page in DOCS.rglob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    """No docstring names a section of a specification that readers of the repository do not have."""
    reference = re.compile(
        r"(?<!docs/)\b(design|contract|style|house|scale|scheduling)(\.md|,? section)", re.IGNORECASE
    )
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in (*(ROOT / "qjsupervisor").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *DOCS.rglob("*.md"))
        for match in reference.finditer(file.read_text(encoding="utf-8"))
        if file != Path(__file__)
    ]
    assert not found


@pytest.mark.parametrize("path", manual.FILES, ids=lambda path: str(path.name))
def test_man_page_and_completions_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == manual.FILES[path](), "run: python -m tests.unit.test_docs"


if __name__ == "__main__":
    manual.write()
    for page in PAGES:
        (DOCS / page).write_text(renewed(page), encoding="utf-8")
