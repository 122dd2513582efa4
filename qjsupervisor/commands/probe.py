"""`status --check`: one line and an exit status, as Nagios, Icinga, Zabbix, Checkmk and others expect of a plugin.

OK 0, WARNING 1, CRITICAL 2, UNKNOWN 3; performance data follow the bar, further problems the first line.
https://www.monitoring-plugins.org/doc/guidelines.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..channelspec import ROOT
from ..config.load import Config
from ..master.totals import totals
from ..text import printable
from . import client
from .status_view import choose, databases_line, summary, troubles

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
#: Most lines after the first; the output ends up in notifications.
_MOST_LINES = 50


def run(config: Config, patterns: Sequence[str] = ()) -> int:
    """Ask, print and return the plugin's exit status."""
    try:
        found = client.status(config)
    except (client.Unavailable, client.Refused) as error:
        return answer(CRITICAL, [str(error)])
    status = choose(found, patterns)
    if patterns and not status["databases"]:
        return answer(UNKNOWN, [f"no database matches {' '.join(patterns)}"])
    wrong = troubles(status)
    bad = [*wrong.problems, *(line for line, is_problem in wrong.alone() if is_problem)]
    odd = [*wrong.warnings, *(line for line, is_problem in wrong.alone() if not is_problem)]
    if not bad and not odd:
        return answer(OK, [f"{databases_line(status)}; {summary(status)}"], _performance(status))
    grave = CRITICAL if bad else WARNING
    lines = [*bad, *odd]
    many = f"{len(lines)} problems, the first: " if len(lines) > 1 else ""
    return answer(grave, [many + lines[0], *lines[1:]], _performance(status))


def answer(level: int, lines: Sequence[str], performance: str = "") -> int:
    """Print the result and return the exit status."""
    first, *more = [printable(line).replace("|", "/") for line in lines]
    sys.stdout.write(f"{_WORDS[level]} - {first}{f' | {performance}' if performance else ''}\n")
    for line in more[:_MOST_LINES]:
        sys.stdout.write(line + "\n")
    if len(more) > _MOST_LINES:
        sys.stdout.write(f"and {len(more) - _MOST_LINES} more\n")
    return level


def _performance(status: Mapping[str, Any]) -> str:
    sums = totals(status["databases"])
    root: Mapping[str, Any] = next((view for view in status.get("channels", ()) if view.get("name") == ROOT), {})
    limit = root.get("capacity")
    return " ".join(
        (
            f"databases={sums['databases']};;;0",
            f"ready={sums['ready']};;;0;{sums['databases']}",
            f"pending={sums['pending']};;;0",
            f"running={sums['running']};;;0;{'' if limit is None else limit}",
            f"failed={sums['failed']};;;0",
            f"oldest_pending={sums['oldest_pending_s']}s;;;0",
            f"per_minute={sums['per_minute']};;;0",
        )
    )
