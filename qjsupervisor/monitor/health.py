"""What is wrong, from `status`: pure; for /healthz and for the line above `qjsupervisor status`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..config.settings import LONGEST_HEARTBEAT_S
from ..postgres.eligibility import named
from ..states import WorkerState
from ..text import seconds

#: An idle worker stamps the shared table every LONGEST_HEARTBEAT_S, or a moment later on a busy machine.
STALE_HEARTBEAT_S = LONGEST_HEARTBEAT_S + 10.0

_FINE = {WorkerState.READY.value, WorkerState.STANDBY.value, WorkerState.STOPPING.value}


def problems(status: Mapping[str, Any]) -> list[str]:
    """One line for each thing that keeps a database's jobs from being run; [] if all is well."""
    return [*map(str, status.get("problems", ())), *_of_databases(status), *dict.fromkeys(_of_targets(status))]


def warnings(status: Mapping[str, Any]) -> list[str]:
    """One line for each thing that somebody should look at, though jobs are run."""
    found = [f"{view.get('name')}: {text}" for view in status.get("databases", ()) for text in _of_database(view)]
    return [*found, *_of_channels(status)]


def _of_channels(status: Mapping[str, Any]) -> Iterator[str]:
    for view in status.get("channels", ()):
        if view.get("stopped_by"):
            names = ", ".join(map(str, view["stopped_by"]))
            yield (
                f"channel {view.get('name')} is stopped by failed jobs of {names}:"
                " `qjsupervisor requeue` them, or cancel them in Odoo"
            )


def _of_database(view: Mapping[str, Any]) -> Iterator[str]:
    overdue, modules = view.get("overdue"), view.get("modules") or {}
    if overdue:
        yield f"{overdue} job{'s run' if overdue > 1 else ' runs'} for longer than max_runtime"
    if modules.get("anyway"):
        yield f"jobs are run, by order, although {named(modules['states'])}"
    elif modules.get("overdue"):
        yield f"{named(modules['states'])}, for {seconds(modules['for_s'])} now: does that hang?"


def _of_databases(status: Mapping[str, Any]) -> Iterator[str]:
    for view in status.get("databases", ()):
        name, state, why = view.get("name"), view.get("state"), view.get("last_error")
        age_s = view.get("heartbeat_age_s")
        if state == WorkerState.STARTING.value and not why:
            continue  # still on its way up; if it does not get there, the master says why
        if state not in _FINE:
            yield f"{name}: {state}" + (f": {why}" if why else "")
        elif state == WorkerState.READY.value and age_s is not None and age_s > STALE_HEARTBEAT_S:
            yield f"{name}: no heartbeat for {age_s:.0f} s"


def _of_targets(status: Mapping[str, Any]) -> Iterator[str]:
    """The targets that are down, or refuse the jobs of a database, of databases that have no other."""
    for view in status.get("databases", ()):
        targets = view.get("targets") or ()
        if all(each.get("state") == "down" for each in targets):
            for each in targets:
                why = f": {each['reason']}" if each.get("reason") else ""
                if each.get("shared"):
                    yield f"Odoo at {each.get('url')} is down{why}"
                else:
                    yield f"{view.get('name')}: Odoo at {each.get('url')} does not run its jobs{why}"
