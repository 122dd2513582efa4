"""Renders the monitor's pages from its templates.

Autoescape is on, and unprintable characters are shown as escapes. The style is inline, the script is a file of ours;
the Content-Security-Policy allows only their hashes and loads nothing from elsewhere. The script fetches the page
again and replaces what changed; without it the page is readable as it is.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from ..channelspec import ROOT
from ..text import options_in_words, printable, rules_in_words, running_of, seconds
from .health import cluster_line, find_problems
from .history import HOUR_S, History, Series
from .master_link import Said
from .metrics import targets_of
from .page_rows import (
    TAGS,
    ChannelRow,
    DatabaseRow,
    channel_rows,
    channels_of,
    count,
    database_row,
    database_rows,
    quoted,
    span,
    sparkline,
)

_HERE = Path(__file__).parent
STYLE = (_HERE / "assets" / "page.css").read_text(encoding="utf-8")
SCRIPT = (_HERE / "assets" / "page.js").read_bytes()
#: Problems shown at once, and after unfolding; the rest is counted.
_SHOWN_PROBLEMS = 6
_MOST_PROBLEMS = 100


def _hash(data: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


SCRIPT_HASH = _hash(SCRIPT)
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src '{SCRIPT_HASH}'",
        f"style-src '{_hash(STYLE.encode())}'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)


class Visitor(NamedTuple):
    """What a page shows depending on its visitor."""

    #: Whether the configuration permits orders.
    may_log_in: bool = False
    #: None: not logged in.
    user: str | None = None
    #: CSRF token for each form.
    csrf: str = ""
    #: Result of the last order.
    note: str = ""


NOBODY = Visitor()


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=Undefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        rules=lambda rules: rules_in_words(rules or {}),
        span=span,
        count=count,
        tag=lambda state: TAGS.get(str(state), ""),
        quote=quoted,
    )
    made.globals.update(style=STYLE, script_hash=SCRIPT_HASH)
    return made


_templates = _environment()


class RowCache:
    """Caches a table's rendered rows, most of which do not change between updates."""

    def __init__(self, macro: str) -> None:
        #: Renders one row.
        self.make = getattr(_templates.get_template("rows.html").module, macro)
        self._kept: dict[str, tuple[tuple[object, ...], Markup]] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def render(self, rows: Sequence[DatabaseRow | ChannelRow], *more: object) -> Markup:
        """Render all rows; `more`: what else the rows depend on."""
        made: dict[str, tuple[tuple[object, ...], Markup]] = {}
        for row in rows:
            key = (row, *more)
            kept = self._kept.get(row.name)
            made[row.name] = kept if kept is not None and kept[0] == key else (key, self.make(row, *more))
        self._kept = made
        return Markup("").join(text for _, text in made.values())


DATABASE_ROWS = RowCache("database")
CHANNEL_ROWS = RowCache("channel")


def overview(said: Said, history: History, visitor: Visitor = NOBODY) -> bytes:
    """The page of all databases, channels and targets."""
    if said.status is None:
        return _render("silent.html", said, visitor, wrong=["The supervisor does not answer."])
    status = said.status
    series = history.total.series
    return _render(
        "overview.html",
        said,
        visitor,
        database_rows=DATABASE_ROWS.render(database_rows(status, history)),
        channel_rows=CHANNEL_ROWS.render(channel_rows(status), visitor),
        targets=targets_of(status),
        pauses=status.get("pauses", ()),
        schedule=status.get("schedule"),
        options=options_in_words(status.get("rules") or {}),
        cluster=cluster_line(status["cluster"]) if status.get("cluster") else "",
        tiles=_tiles(status, series),
    )


def database(
    said: Said, name: str, history: History, jobs: Mapping[str, Any], visitor: Visitor = NOBODY
) -> bytes | None:
    """The page of one database and its jobs: {"waiting": [...], "failed": [...], "counts", "error"}.

    None if there is no such database.
    """
    views = [] if said.status is None else said.status.get("databases", ())
    view = next((each for each in views if each.get("name") == name), None)
    if view is None or said.status is None:
        return None
    return _render(
        "database.html",
        said,
        visitor,
        name,
        view=database_row(view, history),
        channels=channels_of(said.status, name),
        options=options_in_words(said.status.get("rules") or {}),
        pauses=[pause for pause in said.status.get("pauses", ()) if pause.get("database") in (None, name)],
        schedule=said.status.get("schedule"),
        jobs=jobs,
        series=history.of(name),
        spark={kind: sparkline(getattr(history.of(name), kind)) for kind in Series._fields[1:]},
    )


def login(said: Said, visitor: Visitor, *, with_user: bool) -> bytes:
    """The login page."""
    return _render("login.html", said, visitor, with_user=with_user)


def icon(problems_shown: str) -> bytes:
    """The favicon: green, or red with a number. `problems_shown` comes from the URL."""
    number = min(99, int(problems_shown)) if problems_shown.isascii() and problems_shown.isdigit() else 0
    colour, text = ("#1f7a43", "✓") if not number else ("#b3261e", str(number))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f'<rect width="32" height="32" rx="8" fill="{colour}"/>'
        f'<text x="16" y="22.5" font-family="sans-serif" font-size="18" font-weight="700" fill="#fff" '
        f'text-anchor="middle">{text}</text></svg>\n'
    ).encode()


def _render(template: str, said: Said, visitor: Visitor, only: str | None = None, **context: Any) -> bytes:
    """`only`: show problems of this database and those that concern all."""
    status = said.status or {}
    found = [each for each in find_problems(status) if only is None or not each.databases or only in each.databases]
    wrong = context.pop("wrong", None) or [each.text for each in found if not each.is_warning]
    if said.status is not None and not said.is_alive:
        wrong = [f"The supervisor has not answered for {span(said.age_s)}: what is shown is from then.", *wrong]
    text = _templates.get_template(template).render(
        status=status,
        wrong=wrong[:_SHOWN_PROBLEMS],
        more_wrong=wrong[_SHOWN_PROBLEMS:_MOST_PROBLEMS],
        odd=[each.text for each in found if each.is_warning][:_MOST_PROBLEMS],
        problem_count=len(wrong),
        age_s=said.age_s,
        visitor=visitor,
        **context,
    )
    return text.encode("utf-8", "backslashreplace")


def _tiles(status: Mapping[str, Any], series: Series) -> list[dict[str, Any]]:
    databases = status.get("databases", ())
    root: Mapping[str, Any] = next((view for view in status.get("channels", ()) if view.get("name") == ROOT), {})
    ready = sum(view.get("state") == "ready" for view in databases)
    capacity = root.get("capacity")
    oldest_s = max((view.get("oldest_pending_s") or 0 for view in databases), default=0)
    running = running_of(root, sum(view.get("running") or 0 for view in databases))
    waiting = sum(view.get("pending") or 0 for view in databases)
    failed = sum(view.get("failed") or 0 for view in databases)
    return [
        _tile("databases", "Databases ready", count(ready), f"of {count(len(databases))}"),
        _tile("running", "Running", count(running), "no limit" if capacity is None else f"of {count(capacity)}",
              series.running),
        _tile("waiting", "Waiting", count(waiting), f"oldest due {span(oldest_s)}", series.waiting),
        _tile("finished", "Finished", f"{series.per_minute():.0f}", "a minute", series.finished),
        _tile("failed", "Failed", count(failed), f"{sum(series.failed)} in the last {_past(series)}", series.failed,
              failed > 0),
    ]  # fmt: skip


def _past(series: Series) -> str:
    """How far back a series goes: a monitor that was replaced knows less than an hour."""
    known_s = len(series.failed) * series.step_s
    return "hour" if known_s >= HOUR_S else seconds(max(known_s, series.step_s))


def _tile(
    key: str, title: str, value: str, more: str, values: Sequence[int] = (), bad: bool = False
) -> dict[str, Any]:  # fmt: skip
    return {"key": key, "title": title, "value": value, "more": more, "spark": sparkline(values), "bad": bad}
