"""Derives problems and warnings from `status`: for /healthz, the pages, metrics and `qjsupervisor status`.  Pure.

A cause shared by several databases is reported once, with their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..channelspec import ROOT
from ..config.settings import LONGEST_HEARTBEAT_S
from ..postgres.eligibility import named
from ..states import WorkerState
from ..text import first_few, same_uuid, seconds

#: An idle worker writes a heartbeat every LONGEST_HEARTBEAT_S, or slightly later on a busy machine.
STALE_HEARTBEAT_S = LONGEST_HEARTBEAT_S + 10.0
#: The end of a reason that changes every second.
_COUNTDOWN = re.compile(r"; looked at again in \d+ s$")
#: Most databases named in one line.
NAMED = 3
#: Most stopped channels of one database reported individually.
_TOLD_STOPS = 3

_FINE = {WorkerState.READY.value, WorkerState.STANDBY.value, WorkerState.STOPPING.value}

Status = Mapping[str, Any]


class Problem(NamedTuple):
    """One cause, in one line."""

    text: str
    #: The databases concerned; () if it concerns all.
    databases: tuple[str, ...] = ()
    #: Jobs still run, but somebody should look at it.
    is_warning: bool = False
    #: The text without database names if the cause lies in each of these databases; else ''.
    own: str = ""


def find_problems(status: Status) -> list[Problem]:
    """All problems and warnings, the worst first; [] if all is well."""
    return [
        *(Problem(str(text)) for text in status.get("problems", ())),
        *_of_servers(status),
        *_of_cluster(status),
        *_of_databases(status),
        *_of_targets(status),
        *_warnings(status),
    ]


def problems(status: Status) -> list[str]:
    """One line per problem that keeps jobs of some database from running; [] if all is well."""
    return [each.text for each in find_problems(status) if not each.is_warning]


def warnings(status: Status) -> list[str]:
    """One line per issue that needs attention although jobs run."""
    return [each.text for each in find_problems(status) if each.is_warning]


def _shared(causes: Iterator[tuple[str, str]]) -> Iterator[Problem]:
    """Group pairs of (database, cause) into one problem per cause."""
    found: dict[str, list[str]] = {}
    for database, text in causes:
        found.setdefault(text, []).append(database)
    for text, databases in found.items():
        yield Problem(f"{in_short(databases)}: {text}", tuple(databases), own=text)


def in_short(databases: Sequence[str]) -> str:
    """'a', or '12 databases (a, b, c and 9 more)'."""
    if len(databases) == 1:
        return databases[0]
    return f"{len(databases)} databases ({first_few(databases, NAMED)})"


def _of_servers(status: Status) -> Iterator[Problem]:
    """The PostgreSQL servers that are down."""
    for server, why in _down_servers(status).items():
        waiting = [str(view.get("name")) for view in status.get("databases", ()) if view.get("postgresql") == server]
        yield Problem(f"PostgreSQL at {server} is down{f': {why}' if why else ''}{_waiting(waiting)}", tuple(waiting))


def _of_cluster(status: Status) -> Iterator[Problem]:
    """Whether the coordinator is away, and where the cluster's supervisors disagree."""
    cluster = status.get("cluster") or {}
    about = f"cluster {cluster.get('name')}"
    if cluster.get("error"):
        yield Problem(f"{about}: {cluster['error']}; beyond the lease nothing starts but within coordination_floor")
        return
    for channel, said in sorted(cluster.get("differs", {}).items()):
        told = ", ".join(f"{who} has {n}" for who, n in sorted(said.items()))
        yield Problem(
            f"{about}: supervisors differ in the capacity of {channel}, the smallest holds: {told}", is_warning=True
        )
    for member in cluster.get("members", ()):
        if member.get("own") and member.get("floor_lacks"):
            lacks = ", ".join(f"{name} {n}" for name, n in sorted(member["floor_lacks"].items()))
            yield Problem(f"{about}: no room for coordination_floor: it lacks {lacks}", is_warning=True)
    for member in cluster.get("members", ()):
        yield from _of_lost_member(about, member)
    for database, counts in sorted(cluster.get("limbo", {}).items()):
        yield Problem(f"{about}: {_permits(counts)} of jobs of {database} wait for its next server", is_warning=True)
    if cluster.get("barrier_s"):
        yield Problem(
            f"{about}: the coordinator was restarted: leases grow again when all have reported", is_warning=True
        )


def _of_lost_member(about: str, member: Mapping[str, Any]) -> Iterator[Problem]:
    """What is kept for a supervisor that was lost, and how that ends."""
    if member.get("alive") or not member.get("limbo"):
        return
    who = f"{member.get('host')}:{member.get('pid')}"
    end = "until others have taken over its databases"
    if member.get("floor"):
        end += f", or you say that it never returns: `qjsupervisor cluster forget {who}`"
    yield Problem(f"{about}: {who} is lost; {_permits(member['limbo'])} kept for its jobs {end}", is_warning=True)


def _permits(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def cluster_line(cluster: Mapping[str, Any]) -> str:
    """What the supervisors of a cluster may use now, and what nobody may."""
    members = cluster.get("members", ())
    alive = [each for each in members if each.get("alive")]
    here = sum(each.get("leases", {}).get(ROOT, 0) for each in alive if each.get("own"))
    others = sum(each.get("leases", {}).get(ROOT, 0) for each in alive if not each.get("own"))
    limbo = sum(each.get(ROOT, 0) for each in cluster.get("limbo", {}).values())
    limbo += sum(each.get("limbo", {}).get(ROOT, 0) for each in members)
    lost = "" if len(alive) == len(members) else f", {len(members) - len(alive)} lost"
    left = f", {limbo} held by jobs of lost or former ones" if limbo else ""
    many = f"{len(alive)} supervisor{'' if len(alive) == 1 else 's'}{lost}"
    return f"cluster {cluster.get('name')}: {many}; root: {here} leased here, {others} elsewhere{left}"


def _down_servers(status: Status) -> dict[str, str]:
    servers = status.get("postgresql", ())
    return {str(each["server"]): str(each.get("reason") or "") for each in servers if each.get("state") == "down"}


def _waiting(databases: Sequence[str]) -> str:
    return f"; {len(databases)} databases wait for it" if len(databases) > 1 else ""


def _of_databases(status: Status) -> Iterator[Problem]:
    down = _down_servers(status)
    yield from _shared(
        (str(view.get("name")), text)
        for view in status.get("databases", ())
        if (text := _trouble(view, down)) is not None
    )


def _trouble(view: Mapping[str, Any], down: Mapping[str, str]) -> str | None:
    """The problem of a database itself, or None."""
    state, why, age_s = view.get("state"), view.get("last_error"), view.get("heartbeat_age_s")
    if state == WorkerState.STARTING.value and not why:
        return None  # still starting; if that fails, the master gives the reason
    if state == WorkerState.READY.value and age_s is not None and age_s > STALE_HEARTBEAT_S:
        return f"no heartbeat for {age_s:.0f} s"
    if state in _FINE or (state != WorkerState.BLOCKED.value and view.get("postgresql") in down):
        return None
    return f"{state}: {_COUNTDOWN.sub('', str(why))}" if why else str(state)


def _of_targets(status: Status) -> Iterator[Problem]:
    """Targets that are down or refuse a database's jobs, if that database has no other target."""
    down: dict[str, list[str]] = {}
    refused: list[tuple[str, str]] = []
    for view in status.get("databases", ()):
        targets, name = view.get("targets") or (), str(view.get("name"))
        if all(each.get("state") == "down" for each in targets):
            for each in targets:
                why = f": {each['reason']}" if each.get("reason") else ""
                if each.get("shared"):
                    down.setdefault(f"Odoo at {each.get('url')} is down{why}", []).append(name)
                else:
                    refused.append((name, f"Odoo at {each.get('url')} does not run its jobs{why}"))
    for text, databases in down.items():
        yield Problem(text + _waiting(databases), tuple(databases))
    yield from _shared(iter(refused))


def _warnings(status: Status) -> Iterator[Problem]:
    views = status.get("databases", ())
    causes = ((str(view.get("name")), text) for view in views for text in _of_database(view))
    for each in (
        *_shared(causes),
        *_of_silent_targets(status),
        *_of_channels(status),
        *_of_some_targets(status),
        *_of_copies(status),
        *_of_state(status),
    ):
        yield each._replace(is_warning=True)


def _of_silent_targets(status: Status) -> Iterator[Problem]:
    """Addresses that leave requests open although their jobs are over."""
    for target in status.get("targets", ()):
        count, url = target.get("unanswered") or 0, target.get("url")
        if count:
            done = f"{count} jobs were over" if count > 1 else "a job was over"
            names = [
                str(view.get("name"))
                for view in status.get("databases", ())
                if any(each.get("url") == url for each in view.get("targets") or ())
            ]
            text = f"Odoo at {url} does not answer: {done}, and the request open until it was let go; does it hang?"
            yield Problem(text, tuple(names))


def _of_some_targets(status: Status) -> Iterator[Problem]:
    """Targets that are down while all their databases have another target."""
    down: dict[object, str] = {}
    alone: set[object] = set()
    for view in status.get("databases", ()):
        targets = view.get("targets") or ()
        ill = [each for each in targets if each.get("state") == "down"]
        down.update({each.get("url"): str(each.get("reason") or "") for each in ill if each.get("shared")})
        if len(ill) == len(targets):
            alone.update(each.get("url") for each in ill)
    for url, why in down.items():
        if url not in alone:
            yield Problem(f"Odoo at {url} is down{f': {why}' if why else ''}; its databases have another one")


def _of_copies(status: Status) -> Iterator[Problem]:
    for names in status.get("copies") or ():
        yield Problem(same_uuid([str(name) for name in names]), tuple(map(str, names)))


def _of_state(status: Status) -> Iterator[Problem]:
    kept = (status.get("state_file") or {}).get("error")
    if kept:
        yield Problem(f"{kept}: pauses and the like may not survive a restart")
    log = (status.get("log_file") or {}).get("error")
    if log:
        yield Problem(f"log_file {log}")


_ANYWAY = "`qjsupervisor resume DATABASE --anyway` runs its jobs"


def _of_database(view: Mapping[str, Any]) -> Iterator[str]:
    overdue, modules = view.get("overdue"), view.get("modules") or {}
    if overdue:
        yield f"{overdue} job{'s run' if overdue > 1 else ' runs'} for longer than max_runtime"
    if modules.get("anyway"):
        yield f"jobs are run, by order, although {named(modules['states'])}"
    elif modules.get("overdue"):
        yield f"{named(modules['states'])}, for {seconds(modules['for_s'])} now: does that hang? {_ANYWAY}"


def _of_channels(status: Status) -> Iterator[Problem]:
    """Sequential channels stopped by a failed job: server-wide ones and those of a database's own tree."""
    by_name = {str(view.get("name")): view for view in status.get("databases", ())}
    for channel in status.get("channels", ()):
        names = [str(name) for name in channel.get("stopped_by") or ()]
        if names:
            yield _stop(str(channel.get("name")), [(name, by_name.get(name, {})) for name in names])
    for name, view in by_name.items():
        own = [each for each in view.get("stopped") or () if not each.get("shared")]
        for each in own[:_TOLD_STOPS]:
            yield _stop(str(each.get("channel")), [(name, view)], where=f" of {name}")
        if len(own) > _TOLD_STOPS:
            yield Problem(f"{name}: {len(own) - _TOLD_STOPS} more channels are stopped by failed jobs", (name,))


def _stop(channel: str, stoppers: Sequence[tuple[str, Mapping[str, Any]]], where: str = "") -> Problem:
    """A channel stopped by failed jobs of these databases; `where`: the channel's owner, as a suffix."""
    jobs = [(name, _uuid_of(view, channel)) for name, view in stoppers]
    (first, uuid), *others = jobs
    told = uuid if where else ", ".join(f"{uuid} of {name}" if uuid else name for name, uuid in jobs[:NAMED])
    many = "s" if others or not uuid else ""
    of = "" if uuid else "of "
    more = f" and of {len(jobs) - NAMED} more databases" if len(jobs) > NAMED else ""
    which = uuid or f"--state failed --channel {channel}"
    remedy = f"`qjsupervisor requeue {first} {which}`"
    text = f"channel {channel}{where} is stopped by failed job{many} {of}{told}{more}: {remedy}, or cancel in Odoo"
    return Problem(text, tuple(name for name, _ in stoppers))


def _uuid_of(view: Mapping[str, Any], channel: str) -> str:
    """The uuid of a database's failed job that stops a channel; '' if unknown."""
    return next((str(each["uuid"]) for each in view.get("stopped") or () if each.get("channel") == channel), "")
