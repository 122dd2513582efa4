"""`status`: what the running supervisor says of itself, as a table, as JSON, or again and again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..config.load import Config
from ..monitor.health import problems, warnings
from ..text import channel_settings, printable
from . import client
from .output import console, duration, print_json, table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_WATCH_INTERVAL_S = 1.0


def run(config: Config, *, as_json: bool, watch: bool) -> int:
    """Print the status; with `watch`, until Ctrl-C."""
    if as_json:
        print_json(client.status(config))
    elif watch:
        _watch(config)
    else:
        console().print(render(client.status(config)))
    return 0


def _watch(config: Config) -> None:
    from rich.live import Live

    first = render(client.status(config))
    with Live(first, console=console(), auto_refresh=False, screen=console().is_terminal) as live:
        pause = threading.Event()  # nobody sets it: Ctrl-C ends the wait
        while not pause.wait(_WATCH_INTERVAL_S):
            live.update(_once_more(config), refresh=True)


def _once_more(config: Config) -> RenderableType:
    """The status, or why there is none: a supervisor that restarts does not end the watch."""
    from rich.text import Text

    try:
        return render(client.status(config))
    except client.Unavailable as error:
        return Text(printable(error), style="red")


def render(status: Mapping[str, Any]) -> Group:
    """The whole status for a terminal; also what the demo shows live."""
    from rich.console import Group

    return Group(*_parts(status))


def _parts(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(_headline(status), style="bold")
    for line in problems(status):
        yield Text(printable(line), style="red")
    for line in warnings(status):
        yield Text(printable(line), style="yellow")
    yield _databases(status)
    if any(view.get("last_error") for view in status.get("databases", ())):
        yield _reasons(status)
    yield _channels(status)
    if status.get("pauses"):
        yield _pauses(status)
    yield _targets(status)


def _headline(status: Mapping[str, Any]) -> str:
    facts = (
        f"qjsupervisor {status.get('version')}",
        f"process {status.get('pid')}",
        f"up {duration(status.get('uptime_s'))}",
        str(status.get("mode")),
        str(status.get("fairness")),
    )
    return printable(", ".join(facts))


def _databases(status: Mapping[str, Any]) -> RenderableType:
    columns = (
        "*database",
        "state",
        ">pending",
        ">running",
        ">failed",
        ">sent",
        ">restarts",
        ">seen",
    )
    keys = ("name", "state", "pending", "running", "failed", "dispatched", "restarts")
    return table(
        "Databases",
        columns,
        (
            (*(view.get(key) for key in keys), duration(view.get("heartbeat_age_s")))
            for view in status.get("databases", ())
        ),
    )


def _reasons(status: Mapping[str, Any]) -> RenderableType:
    rows = (
        (view.get("name"), _ago(view.get("last_error_age_s")), view["last_error"])
        for view in status.get("databases", ())
        if view.get("last_error")
    )
    return table("Last errors", ("*database", "when", "*reason"), rows)


def _ago(age_s: float | None) -> str:
    return "now" if age_s is None else f"{duration(age_s)} ago"


def _channels(status: Mapping[str, Any]) -> RenderableType:
    return table(
        "Channels",
        ("channel", ">running", ">capacity", ">pending", ">failed", "*settings"),
        (
            (
                view.get("name"),
                view.get("running"),
                "no limit" if view.get("capacity") is None else view["capacity"],
                view.get("pending"),
                view.get("failed"),
                ", ".join(channel_settings(view)),
            )
            for view in status.get("channels", ())
        ),
    )


def _pauses(status: Mapping[str, Any]) -> RenderableType:
    rows = (
        (
            pause.get("database") or "(all)",
            pause.get("channel"),
            "until resumed" if pause.get("remaining_s") is None else f"for {duration(pause['remaining_s'])}",
        )
        for pause in status["pauses"]
    )
    return table("Paused by command", ("database", "channel", "*how long"), rows)


def _targets(status: Mapping[str, Any]) -> RenderableType:
    views = status.get("targets") or [status.get("target") or {}]
    rows = (
        (view.get("url"), view.get("state"), view.get("failures"), duration(view.get("retry_in_s")))
        for view in views
        if view.get("url")
    )
    return table("Odoo", ("address", "state", ">failures", ">asked again in"), rows)
