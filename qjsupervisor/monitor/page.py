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
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from ..channelspec import ROOT
from ..text import channel_settings, printable, rules_in_words, seconds
from .health import STALE_HEARTBEAT_S, find_problems
from .history import History, Series
from .master_link import Said
from .metrics import targets_of
from .waiting import is_stopped

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

_TAGS = {
    "ready": "good", "up": "good", "done": "good", "standby": "soft", "starting": "soft", "unknown": "soft",
    "backing off": "warn", "stopping": "warn", "paused": "warn", "closed": "warn", "full": "warn",
    "blocked": "bad", "failed": "bad", "down": "bad", "stopped": "bad", "silent": "bad",
}  # fmt: skip


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


def _span(value: object) -> str:
    return seconds(float(value)) if isinstance(value, (int, float)) else "–"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else "–"


def sparkline(values: Sequence[float]) -> str:
    """The points of a polyline in a box of 120 by 24; '' if there is nothing to draw."""
    if len(values) < 2:
        return ""
    highest = max(values) or 1
    step = 120 / (len(values) - 1)
    return " ".join(f"{n * step:.1f},{23 - 22 * value / highest:.1f}" for n, value in enumerate(values))


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
        span=_span,
        count=_count,
        tag=lambda state: _TAGS.get(str(state), ""),
        quote=_quoted,
    )
    made.globals.update(style=STYLE, script_hash=SCRIPT_HASH)
    return made


def _quoted(name: object) -> str:
    return quote(str(name), safe="", errors="surrogatepass")


_templates = _environment()


class DatabaseRow(NamedTuple):
    """What the table of databases shows of one; equal rows are rendered once."""

    name: str
    shown: str
    tag: str
    link: str
    troubled: bool
    is_busy: bool
    pending: int
    pending_text: str
    running: int
    failed: int
    failed_text: str
    #: Jobs per minute.
    rate: int
    oldest_s: int
    oldest_text: str
    restarts: int
    spark: str
    why: str


class ChannelRow(NamedTuple):
    """What the table of channels shows for one."""

    name: str
    shown: str
    used: int
    running: int
    capacity: int | None
    pending: int
    failed: int
    settings: str


class Rows:
    """Caches a table's rendered rows, most of which do not change between updates."""

    def __init__(self, macro: str) -> None:
        self._make = getattr(_templates.get_template("rows.html").module, macro)
        self._kept: dict[str, tuple[tuple[object, ...], Markup]] = {}

    def render(self, rows: Sequence[DatabaseRow | ChannelRow], *more: object) -> Markup:
        """Render all rows; `more`: what else the rows depend on."""
        made: dict[str, tuple[tuple[object, ...], Markup]] = {}
        for row in rows:
            key = (row, *more)
            kept = self._kept.get(row.name)
            made[row.name] = kept if kept is not None and kept[0] == key else (key, self._make(row, *more))
        self._kept = made
        return Markup("").join(text for _, text in made.values())


_database_rows = Rows("database")
_channel_rows = Rows("channel")


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
        database_rows=_database_rows.render(_database_table(status, history)),
        channel_rows=_channel_rows.render(_channel_table(status), visitor),
        targets=targets_of(status),
        pauses=status.get("pauses", ()),
        schedule=status.get("schedule"),
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
        view=_database(view, history),
        channels=_channels_of(said.status, name),
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
        wrong = [f"The supervisor has not answered for {_span(said.age_s)}: what is shown is from then.", *wrong]
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
    running = sum(view.get("running") or 0 for view in databases)
    waiting = sum(view.get("pending") or 0 for view in databases)
    failed = sum(view.get("failed") or 0 for view in databases)
    return [
        _tile("databases", "Databases ready", _count(ready), f"of {_count(len(databases))}"),
        _tile("running", "Running", _count(running), "no limit" if capacity is None else f"of {_count(capacity)}",
              series.running),
        _tile("waiting", "Waiting", _count(waiting), f"oldest due {_span(oldest_s)}", series.waiting),
        _tile("finished", "Finished", f"{series.per_minute():.0f}", "a minute", series.finished),
        _tile("failed", "Failed", _count(failed), f"{sum(series.failed)} in the last hour", series.failed, failed > 0),
    ]  # fmt: skip


def _tile(
    key: str, title: str, value: str, more: str, values: Sequence[int] = (), bad: bool = False
) -> dict[str, Any]:  # fmt: skip
    return {"key": key, "title": title, "value": value, "more": more, "spark": sparkline(values), "bad": bad}


def _database(view: Mapping[str, Any], history: History) -> dict[str, Any]:
    """The data of a row; `troubled`: it has a problem."""
    state = str(view.get("state"))
    beats = view.get("heartbeat_age_s")
    if state == "ready" and beats is not None and beats > STALE_HEARTBEAT_S:
        state = "silent"
    elif state == "ready" and view.get("paused"):
        state = "paused"
    targets = view.get("targets") or ()
    down = [each for each in targets if each.get("state") == "down"]
    why = str(view.get("last_error") or view.get("message") or "")
    if down and len(down) == len(targets) and state in ("ready", "paused"):
        why = f"Odoo at {down[0].get('url')} is down" + (f": {down[0].get('reason')}" if down[0].get("reason") else "")
    track = history.track(str(view.get("name")))
    return {
        **dict.fromkeys(("pending", "running", "failed", "restarts", "heartbeat_age_s", "dispatched", "pid")),
        **dict.fromkeys(("oldest_pending_s", "wait_s", "not_due", "waiting_dependencies"), 0),
        **view,
        "shown": state,
        "troubled": _TAGS.get(state) == "bad" or state == "backing off" or bool(down and len(down) == len(targets)),
        "why": why if state not in ("ready", "paused") or down else "",
        "rate": view.get("per_minute") or 0.0,
        "spark": track.draw("waiting", sparkline),
    }


def _database_table(status: Mapping[str, Any], history: History) -> list[DatabaseRow]:
    """All rows, those with a problem first."""
    rows = []
    for view in status.get("databases", ()):
        row = _database(view, history)
        pending, running, failed = (int(row.get(key) or 0) for key in ("pending", "running", "failed"))
        oldest_s = int(row.get("oldest_pending_s") or 0)
        rows.append(
            DatabaseRow(
                name=printable(row.get("name")),
                shown=row["shown"],
                tag=_TAGS.get(row["shown"], ""),
                link=_quoted(row.get("name")),
                troubled=row["troubled"],
                is_busy=bool(pending or running),
                pending=pending,
                pending_text=_count(pending),
                running=running,
                failed=failed,
                failed_text=_count(failed),
                rate=round(row["rate"]),
                oldest_s=oldest_s,
                oldest_text=_span(oldest_s) if oldest_s else "–",
                restarts=int(row.get("restarts") or 0),
                spark=row["spark"],
                why=printable(row["why"]),
            )
        )
    return sorted(rows, key=lambda row: (not row.troubled, row.name))


def _channel_table(status: Mapping[str, Any]) -> list[ChannelRow]:
    rows = []
    for view in status.get("channels", ()):
        row = _channel(view)
        running, pending, failed = (int(row.get(key) or 0) for key in ("running", "pending", "failed"))
        name, settings = str(row.get("name")), ", ".join(row["settings"])
        rows.append(ChannelRow(name, row["shown"], row["used"], running, row["capacity"], pending, failed, settings))
    return rows


def _channel(view: Mapping[str, Any]) -> dict[str, Any]:
    capacity, running = view.get("capacity"), view.get("running") or 0
    full = capacity is not None and running >= capacity
    stopped = is_stopped(view)
    halted = "paused" if view.get("paused") else "closed" if view.get("closed") else ""
    state = "stopped" if stopped else halted or ("full" if full else "open")
    return {
        **dict.fromkeys(("pending", "failed", "running"), 0),
        **view,
        "shown": state,
        "capacity": capacity,
        "used": min(100, round(100 * running / capacity)) if capacity else 0,
        "settings": [word for word in channel_settings(view) if word != "paused"],
    }


def _channels_of(status: Mapping[str, Any], database: str) -> list[dict[str, Any]]:
    """The channels in which jobs of one database wait or run."""
    found = []
    for view in status.get("channels", ()):
        mine = next((each for each in view.get("holders", ()) if each.get("database") == database), None)
        if mine is not None:
            row = _channel(view)
            found.append({**row, "mine_running": mine.get("running"), "mine_pending": mine.get("pending")})
    return found
