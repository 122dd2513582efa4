"""README against the program: options, metrics, commands. To renew its tables: python -m tests.unit.test_readme."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor import cli
from qjsupervisor.config.options import ODOO, ODOO_OPTIONS, OPTIONS, OWN, QUEUE_JOB, QUEUE_JOB_OPTIONS, Option
from qjsupervisor.monitor import metrics
from qjsupervisor.states import WorkerState

README = Path(__file__).resolve().parents[2] / "README.md"


def options_table(options: Iterable[Option[Any]]) -> str:
    """Key, default, meaning; markdown."""
    lines = ["| key | default | |", "|---|---|---|"]
    for option in options:
        default = f"`{option.default_text}`" if option.default_text else ""
        lines.append(f"| `{option.name}` | {default} | {_cell(option.help)} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Every family that is ever exported."""
    view = {measure.key: 1 for measure in (*metrics.DATABASE, *metrics.CHANNEL, *metrics.TARGET)}
    status = {
        "databases": [{**view, "name": "d", "state": "ready"}],
        "channels": [{**view, "name": "c"}],
        "targets": [{**view, "url": "u", "state": "up"}],
    }
    lines = ["| metric | labels | |", "|---|---|---|"]
    for family in metrics.StatusCollector(status).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in family.samples[0].labels)
        lines.append(f"| `{name}` | {labels} | {_cell(family.documentation)} |")
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


def renewed(text: str) -> str:
    """The README's text with its tables as the program has them."""
    for name, table in tables().items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)  # type: ignore[misc]
        assert count == 1, f"README has no place for the table {name}"
    return text


def test_tables_are_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == renewed(text), "run: python -m tests.unit.test_readme"


def test_every_command_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert "start" in commands
    text = README.read_text(encoding="utf-8")
    for command in commands:
        assert re.search(rf"^\| `{command}[ `]", text, re.MULTILINE), command


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.STOPPING])
def test_every_state_is_mentioned(state: WorkerState) -> None:
    assert f"`{state.value}`" in README.read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
