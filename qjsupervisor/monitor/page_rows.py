"""The rows of the page's tables of databases and channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from ..states import RESTING
from ..text import channel_settings, printable, seconds
from .health import STALE_HEARTBEAT_S
from .history import History
from .waiting import is_stopped

TAGS = {
    "ready": "good", "up": "good", "done": "good", "standby": "soft", "starting": "soft", "unknown": "soft",
    "backing off": "warn", "stopping": "warn", "paused": "warn", "closed": "warn", "full": "warn",
    "blocked": "bad", "failed": "bad", "down": "bad", "stopped": "bad", "silent": "bad",
}  # fmt: skip
#: States that need no reason.
_QUIET = ("ready", "paused", *RESTING)


def span(value: object) -> str:
    return seconds(float(value)) if isinstance(value, (int, float)) else "–"


def count(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else "–"


def sparkline(values: Sequence[float]) -> str:
    """The points of a polyline in a box of 120 by 24; '' if there is nothing to draw."""
    if len(values) < 2:
        return ""
    highest = max(values) or 1
    step = 120 / (len(values) - 1)
    return " ".join(f"{n * step:.1f},{23 - 22 * value / highest:.1f}" for n, value in enumerate(values))


def quoted(name: object) -> str:
    return quote(str(name), safe="", errors="surrogatepass")


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


def database_row(view: Mapping[str, Any], history: History) -> dict[str, Any]:
    """The data of a row; `troubled`: it has a problem."""
    state = str(view.get("state"))
    beats = view.get("heartbeat_age_s")
    if state == "ready" and beats is not None and beats > STALE_HEARTBEAT_S:
        state = "silent"
    elif state == "ready" and view.get("paused"):
        state = "paused"
    elif state == "ready" and view.get("phase") in RESTING:
        state = str(view["phase"])
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
        "troubled": TAGS.get(state) == "bad" or state == "backing off" or bool(down and len(down) == len(targets)),
        "why": why if state not in _QUIET or down else "",
        "rate": view.get("per_minute") or 0.0,
        "spark": track.draw("waiting", sparkline),
    }


def database_rows(status: Mapping[str, Any], history: History) -> list[DatabaseRow]:
    """All rows, those with a problem first."""
    rows = []
    for view in status.get("databases", ()):
        row = database_row(view, history)
        pending, running, failed = (int(row.get(key) or 0) for key in ("pending", "running", "failed"))
        oldest_s = int(row.get("oldest_pending_s") or 0)
        rows.append(
            DatabaseRow(
                name=printable(row.get("name")),
                shown=row["shown"],
                tag=TAGS.get(row["shown"], ""),
                link=quoted(row.get("name")),
                troubled=row["troubled"],
                is_busy=bool(pending or running),
                pending=pending,
                pending_text=count(pending),
                running=running,
                failed=failed,
                failed_text=count(failed),
                rate=round(row["rate"]),
                oldest_s=oldest_s,
                oldest_text=span(oldest_s) if oldest_s else "–",
                restarts=int(row.get("restarts") or 0),
                spark=row["spark"],
                why=printable(row["why"]),
            )
        )
    return sorted(rows, key=lambda row: (not row.troubled, row.name))


def channel_rows(status: Mapping[str, Any]) -> list[ChannelRow]:
    rows = []
    for view in status.get("channels", ()):
        row = channel_row(view)
        running, pending, failed = (int(row.get(key) or 0) for key in ("running", "pending", "failed"))
        name, settings = str(row.get("name")), ", ".join(row["settings"])
        rows.append(ChannelRow(name, row["shown"], row["used"], running, row["capacity"], pending, failed, settings))
    return rows


def channel_row(view: Mapping[str, Any]) -> dict[str, Any]:
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


def channels_of(status: Mapping[str, Any], database: str) -> list[dict[str, Any]]:
    """The channels in which jobs of one database wait or run."""
    found = []
    for view in status.get("channels", ()):
        mine = next((each for each in view.get("holders", ()) if each.get("database") == database), None)
        if mine is not None:
            row = channel_row(view)
            found.append({**row, "mine_running": mine.get("running"), "mine_pending": mine.get("pending")})
    return found
