"""Counts waiting jobs by reason over all databases, and the workers Odoo should have.  Pure.

Input: the status, and from the shared table the jobs waiting per channel and database. Output: one number per
reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..channelspec import ROOT, parent_name
from ..config.guaranteed import KeptPermits, branches_of, lacking_databases
from ..config.schedule import CLOSED
from ..states import Mode, WorkerState

#: In order of precedence: a job is counted once, under the first reason that applies.
REASONS = (
    "dependencies",
    "not_due",
    "held",
    "modules",
    "not_served",
    "paused",
    "closed",
    "stopped",
    "target_down",
    "throttled",
    "rate",
    "full",
    "guaranteed",
    "own_channels",
    "turn",
)

Status = Mapping[str, Any]


class WaitingJobs(NamedTuple):
    """Jobs of one database waiting directly in one channel."""

    database: str
    channel: str
    due: int
    not_due: int


def is_stopped(channel: Mapping[str, Any]) -> bool:
    """Whether a failed job stops this channel."""
    return bool(channel.get("stopped"))


class _Situation(NamedTuple):
    """What the status says beside databases, in the form that each job's reason is found by."""

    channels: Mapping[str, Mapping[str, Any]]
    pauses: set[tuple[str | None, str]]
    closed: set[str]
    guarantees: KeptPermits
    #: Databases whose own channels let no waiting job start: they want no permit of the root.
    held_back: set[str]


def by_reason(status: Status, cells: Sequence[WaitingJobs]) -> dict[str, int]:
    """Number of waiting jobs for each of REASONS, over all databases."""
    found = dict.fromkeys(REASONS, 0)
    databases = {view["name"]: view for view in status.get("databases", ())}
    channels = {view["name"]: view for view in status.get("channels", ())}
    guarantees = KeptPermits(branches_of(status), lacking_databases(status))
    situation = _Situation(channels, _pauses(status), _closed(status), guarantees, _held_back(status))
    found["dependencies"] = sum(int(view.get("waiting_dependencies") or 0) for view in databases.values())
    for cell in cells:
        found["not_due"] += cell.not_due
        if cell.due:
            found[_reason(databases.get(cell.database, {}), cell, situation)] += cell.due
    return found


def _reason(view: Mapping[str, Any], cell: WaitingJobs, situation: _Situation) -> str:
    path = _path(cell.channel)
    if view.get("state") != WorkerState.READY.value:
        return "held" if view.get("held") else "modules" if view.get("modules") else "not_served"
    above = [situation.channels[name] for name in path if name in situation.channels]
    if _is_paused(path, cell.database, situation.pauses) or any(channel.get("paused") for channel in above):
        return "paused"
    if not situation.closed.isdisjoint(path):
        return "closed"
    if any(map(is_stopped, above)):
        return "stopped"
    targets = view.get("targets") or ()
    if targets and all(target.get("state") == "down" for target in targets):
        return "target_down"
    return _by_limits(view, cell, above, situation)


def _by_limits(
    view: Mapping[str, Any], cell: WaitingJobs, above: Sequence[Mapping[str, Any]], situation: _Situation
) -> str:
    if any(channel.get("throttled_for_s") for channel in above):
        return "throttled"
    if any(channel.get("rate") and _starts_left(channel) == 0 for channel in above):
        return "rate"
    share = view.get("share") or {}
    if any(_room(channel) == 0 for channel in above) or (share.get("max") and share["used"] >= share["max"]):
        return "full"
    if situation.guarantees.holding_up(cell.channel, cell.database) is not None:
        return "guaranteed"
    return "own_channels" if cell.database in situation.held_back else "turn"


def _held_back(status: Status) -> set[str]:
    """Databases with channels of their own that want no permit of the root now, whatever waits."""
    if status.get("mode") in (None, Mode.SERVER_WIDE.value):
        return set()
    return {view["name"] for view in status.get("databases", ()) if view.get("wait_s") == 0}


def desired_workers(status: Status, cells: Sequence[WaitingJobs]) -> int:
    """Running jobs plus those that could start now if Odoo had enough workers.

    Respects the capacities of server-wide channels; of a database's own tree, only whether it lets anything start.
    """
    pauses, held_back = _pauses(status), _held_back(status)
    ready = {view["name"] for view in status.get("databases", ()) if view.get("state") == WorkerState.READY.value}
    waiting: dict[str, int] = {}
    for cell in cells:
        if cell.database in ready - held_back and not _is_paused(_path(cell.channel), cell.database, pauses):
            waiting[cell.channel] = waiting.get(cell.channel, 0) + cell.due
    channels = list(status.get("channels", ()))
    for channel in reversed(channels):  # children before parents
        name = channel["name"]
        startable = waiting.get(name, 0)
        room = _room(channel)
        if channel.get("paused") or channel.get("closed") or channel.get("retired") or is_stopped(channel):
            startable = 0
        elif room is not None:
            startable = min(startable, room)
        if channel.get("throttle_s"):
            startable = 0 if channel.get("throttled_for_s") else min(startable, 1)
        if channel.get("rate"):
            startable = min(startable, _starts_left(channel))
        above = parent_name(name)
        if above is None:
            return int(channel.get("running") or 0) + startable
        waiting[above] = waiting.get(above, 0) + startable
    return 0


def _room(channel: Mapping[str, Any]) -> int | None:
    """How many more jobs may start in it; None: no limit."""
    capacity = channel.get("capacity")
    return None if capacity is None else max(0, int(capacity) - int(channel.get("running") or 0))


def _starts_left(channel: Mapping[str, Any]) -> int:
    """How many more jobs its rate allows now."""
    rate = channel["rate"]
    closed = rate.get("unread") or rate.get("next_in_s")
    return 0 if closed else max(0, int(rate["starts"]) - int(rate["used"]))


def _pauses(status: Status) -> set[tuple[str | None, str]]:
    return {(pause.get("database"), pause.get("channel") or ROOT) for pause in status.get("pauses", ())}


def _closed(status: Status) -> set[str]:
    """Channels the schedule closes now."""
    limits = (status.get("schedule") or {}).get("limits", ())
    return {str(each.get("channel")) for each in limits if each.get("limit") == CLOSED}


def _is_paused(path: Sequence[str], database: str, pauses: set[tuple[str | None, str]]) -> bool:
    return any((each, name) in pauses for name in path for each in (None, database))


def _path(channel: str) -> list[str]:
    return list(_upwards(channel))


def _upwards(channel: str) -> Iterator[str]:
    name: str | None = channel
    while name is not None:
        yield name
        name = parent_name(name)
