"""Explains why a job is waiting, from its row, the supervisor's status and the channel tree.  Pure.

Used by `qjsupervisor jobs`. It does not affect dispatch, and its answer is as old as its input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ..channelspec import ROOT, ChannelSpec, inherited, max_runtime_of, parent_name
from ..config.guaranteed import KeptPermits, Subtree, branches_of, lacking_databases
from ..config.schedule import CLOSED, of_channel
from ..postgres.eligibility import waits_for
from ..states import JobState, WorkerState
from ..text import rate_used, seconds

#: Most databases or uuids named; the rest is counted.
_NAMED = 5


class Reason(NamedTuple):
    """One thing a job waits for; `code` is stable and for programs, `text` is for people."""

    code: str
    text: str
    details: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """The relevant part of one row of queue_job."""

    uuid: str
    #: As in the row; it may contain anything.
    state: str
    #: Complete name.
    channel: str
    #: Seconds until it is due; None or negative if due.
    eta_in_s: float | None = None
    #: The eta as PostgreSQL writes it, in UTC.
    eta: str | None = None
    #: Seconds since it was enqueued or started; None if unknown.
    since_s: float | None = None
    #: Jobs it depends on that are not done or no longer exist.
    parents: tuple[str, ...] = ()
    #: Number of due jobs before it in the same channel.
    ahead: int = 0
    #: An earlier job of its channel that is not due; a sequential channel waits for it.
    not_due: str | None = None
    #: Why it can never be dispatched.
    unsendable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFacts:
    """The channels that apply to a database, and facts from its rows; keys are complete names."""

    database: str
    specs: Mapping[str, ChannelSpec]
    #: Configured in the database; only root's limit is shared with other databases.
    is_own: bool = False
    #: Number of rows `enqueued` or `started` in exactly that channel.
    running: Mapping[str, int] = field(default_factory=dict)
    #: Rows `pending` and due in exactly that channel, where channels that are its own have minimums.
    waiting: Mapping[str, int] = field(default_factory=dict)
    #: uuids of rows `failed` in exactly that channel.
    failed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Seconds since the last start in exactly that channel.
    last_start_s: Mapping[str, float] = field(default_factory=dict)
    #: Seconds since each start counted by a rate in exactly that channel, if channels are the database's own.
    starts_s: Mapping[str, Sequence[float]] = field(default_factory=dict)

    #: In seconds.
    max_runtimes: Mapping[str, float] = field(default_factory=dict)

    def path(self, channel: str) -> Iterator[ChannelSpec]:
        """The specs of the channel and its ancestors up to root; unconfigured ones have defaults."""
        name: str | None = channel
        while name is not None:
            yield self._spec(name)
            name = parent_name(name)

    def _spec(self, name: str) -> ChannelSpec:
        known = self.specs.get(name)
        if known is not None:
            return known
        above = parent_name(name)
        return ChannelSpec(name=ROOT, capacity=1) if above is None else inherited(name, self._spec(above))

    def running_below(self, channel: str) -> int:
        """Number of this database's running jobs in the channel and its subchannels."""
        return sum(count for name, count in self.running.items() if _is_within(name, channel))

    def branches(self) -> dict[str, Subtree]:
        """The database's own channels."""
        found = {}
        for name, spec in self.specs.items():
            waits = any(_is_within(each, name) for each in self.waiting) and not any(
                map(self._is_shut, self.path(name))
            )
            found[name] = Subtree(spec.capacity, spec.minimum, spec.reserve, self.running_below(name), waits)
        return found

    def _is_shut(self, spec: ChannelSpec) -> bool:
        """Whether nothing in the channel may start now, for a reason of its own."""
        rate = self.rate_used(spec)
        stopped = spec.sequential and bool(self.failed_below(spec.name))
        return spec.paused or stopped or bool(rate and rate["next_in_s"]) or self.throttled_for_s(spec) > 0

    def failed_below(self, channel: str) -> list[str]:
        """uuids of this database's failed jobs in the channel and its subchannels."""
        return [uuid for name, uuids in self.failed.items() if _is_within(name, channel) for uuid in uuids]

    def rate_used(self, spec: ChannelSpec) -> dict[str, Any] | None:
        """Use of the rate of this database's own channel, in the status' form; None if it has no rate."""
        if spec.rate is None:
            return None
        ages = sorted(age for name, ages in self.starts_s.items() if _is_within(name, spec.name) for age in ages)
        used = sum(age_s < spec.rate.period_s for age_s in ages)
        left_s = spec.rate.period_s - ages[spec.rate.starts - 1] if used >= spec.rate.starts else None
        return {**asdict(spec.rate), "used": used, "next_in_s": left_s}

    def throttled_for_s(self, spec: ChannelSpec) -> float:
        """Seconds until this database's own channel may start another job by its throttle; 0: now."""
        starts = [age_s for name, age_s in self.last_start_s.items() if _is_within(name, spec.name)]
        return max(0.0, spec.throttle_s - min(starts, default=math.inf))


class Explainer:
    """Explains why jobs of one database wait.

    `status` is the supervisor's `status --json`, or None if none answers. Reasons common to a channel are found once,
    as there may be hundreds of thousands of jobs.
    """

    def __init__(self, status: Mapping[str, Any] | None, tree: TreeFacts) -> None:
        self._status = status or {}
        self._tree = tree
        self._stopped = _supervisor(status, tree.database)
        #: (channel, job that a sequential one waits for) -> reasons.
        self._of_channel: dict[tuple[str, str | None], list[Reason]] = {}

    def explain(self, job: JobFacts) -> list[Reason]:
        """All reasons why the job does not run now, the decisive one first; [] if the job is over."""
        if job.state == JobState.WAIT_DEPENDENCIES:
            return [_dependencies(job)]
        if job.state == JobState.ENQUEUED:
            return [_sent(job)]
        if job.state == JobState.STARTED:
            return [_running(job, self._tree)]
        if job.state != JobState.PENDING:
            return []
        if job.unsendable is not None:
            return [Reason("refused", f"can never be dispatched: {job.unsendable}")]
        if self._stopped is not None:
            return [self._stopped]
        return [*_eta(job), *self._reasons_of(job)] or [_turn(job, self._status.get("ageing_s"))]

    def _reasons_of(self, job: JobFacts) -> list[Reason]:
        key = job.channel, job.not_due
        found = self._of_channel.get(key)
        if found is None:
            status, tree = self._status, self._tree
            found = [*_paused(job, status, tree), *_closed(job, status, tree), *_target(status, tree.database)]
            for spec in tree.path(job.channel):
                found += _channel(job, spec, status, tree)
            found += _shares(job, status, tree)
            self._of_channel[key] = found
        return found


def _shares(job: JobFacts, status: Mapping[str, Any], tree: TreeFacts) -> Iterator[Reason]:
    """The database is at its maximum, or the free permits are guaranteed to others."""
    own = (_database(status, tree.database) or {}).get("share") or {}
    if own.get("max") and own["used"] >= own["max"]:
        text = f"{tree.database} runs {own['used']} jobs, its most is {own['max']} (db_capacity)"
        yield Reason("most", text, {"max": own["max"], "running": own["used"]})
        return
    shared = KeptPermits(branches_of(status), lacking_databases(status))
    found = shared.holding_up(ROOT if tree.is_own else job.channel, tree.database)
    if tree.is_own and found is None:
        found = KeptPermits(tree.branches(), {}).holding_up(job.channel, tree.database)
    if found is not None:
        text = f"guaranteed to {_named(sorted(found.lacks))}"
        yield Reason("guaranteed", text, {"channel": found.channel, "free": found.free, "to": dict(found.lacks)})


def _dependencies(job: JobFacts) -> Reason:
    if not job.parents:
        return Reason("dependencies", "all jobs it depends on are over: Odoo should have set it pending")
    return Reason("dependencies", f"depends on {_named(job.parents)}", {"uuids": list(job.parents)})


def _sent(job: JobFacts) -> Reason:
    if job.since_s is not None and job.since_s > 10:
        return Reason("sent", f"dispatched to Odoo{_since(job)} and not begun: are all its workers busy?")
    return Reason("sent", f"dispatched to Odoo{_since(job)}")


def _running(job: JobFacts, tree: TreeFacts) -> Reason:
    limit = max_runtime_of(job.channel, tree.max_runtimes)
    if limit is None or job.since_s is None or job.since_s <= limit[1]:
        return Reason("running", f"runs in Odoo{_since(job)}")
    name, limit_s = limit
    text = f"runs in Odoo{_since(job)}, longer than max_runtime of {name}, which is {seconds(limit_s)}"
    return Reason("overdue", text, {"channel": name, "max_runtime_s": limit_s})


def _supervisor(status: Mapping[str, Any] | None, database: str) -> Reason | None:
    """The reason why the whole database does not run, or None."""
    if status is None:
        return Reason("no supervisor", "no supervisor answers: nothing is dispatched")
    view = _database(status, database)
    if view is None:
        text = "the supervisor does not serve this database: see `qjsupervisor check`"
        return Reason("not served", text)
    state = view.get("state")
    if state == WorkerState.READY.value:
        return None
    if view.get("held"):
        return Reason("held", f"the database is {view.get('last_error')}")
    modules = (view.get("modules") or {}).get("states")
    if state == WorkerState.BLOCKED.value and modules:
        return Reason("modules", waits_for(modules), {"modules": dict(modules)})
    why = view.get("reason") or view.get("last_error") or view.get("message")
    if state == WorkerState.STANDBY.value:
        why = why or "another runner holds the database's leader lock"
    is_served = "phase" not in view or view["phase"] is not None
    what = f"its worker is {state}" if is_served else "the database is not served"
    return Reason(str(state), what + (f": {why}" if why else ""), {"why": why})


def _eta(job: JobFacts) -> list[Reason]:
    if job.eta_in_s is None or job.eta_in_s <= 0:
        return []
    when = "never due" if math.isinf(job.eta_in_s) else f"due in {seconds(job.eta_in_s)}, at {job.eta} UTC"
    return [Reason("eta", when, {"eta": job.eta})]


def _paused(job: JobFacts, status: Mapping[str, Any], tree: TreeFacts) -> Iterator[Reason]:
    names = [spec.name for spec in tree.path(job.channel)]
    named: set[str] = set()
    for pause in status.get("pauses", ()):
        if pause.get("database") in (None, tree.database) and pause.get("channel", ROOT) in names:
            named.add(pause.get("channel", ROOT))
            yield _paused_by_command(pause)
    for spec in tree.path(job.channel):
        if spec.paused:
            text = f"channel {spec.name} is paused in the {'database' if tree.is_own else 'configuration'}"
            yield Reason("paused", text, {"channel": spec.name, "by": "configuration"})
        elif spec.name not in named and _shared(status, spec.name).get("paused"):
            yield Reason("paused", f"channel {spec.name} is paused", {"channel": spec.name})


def _closed(job: JobFacts, status: Mapping[str, Any], tree: TreeFacts) -> Iterator[Reason]:
    """Channels closed by the schedule."""
    for spec in tree.path(job.channel):
        said = of_channel(status.get("schedule"), spec.name)
        if said.get("limit") == CLOSED:
            details = {"channel": spec.name, "until": said.get("until"), "for_s": said.get("for_s")}
            yield Reason("closed", f"channel {spec.name} is {said.get('text')}, by schedule", details)


def _paused_by_command(pause: Mapping[str, Any]) -> Reason:
    channel, left_s = pause.get("channel", ROOT), pause.get("remaining_s")
    what = "everything" if channel == ROOT else f"channel {channel}"
    whose = pause.get("database") or "all databases"
    until = "until `qjsupervisor resume`" if left_s is None else f"for another {seconds(left_s)}"
    details = {"channel": channel, "by": "command", "remaining_s": left_s, "database": pause.get("database")}
    return Reason("paused", f"{what} of {whose} is paused by command, {until}", details)


def _target(status: Mapping[str, Any], database: str) -> Iterator[Reason]:
    view = _database(status, database) or {}
    target = view.get("target") or status.get("target") or {}
    if any(each.get("state") != "down" for each in view.get("targets") or [target]):
        return
    retry_s = target.get("retry_in_s")
    again = "probed again soon" if retry_s is None else f"probed again in {seconds(retry_s)}"
    why = target.get("reason") or view.get("message")
    text = f"Odoo at {target.get('url')} is down, {again}" + (f": {why}" if why else "")
    yield Reason("target down", text, {"url": target.get("url"), "retry_in_s": retry_s})


def _channel(job: JobFacts, spec: ChannelSpec, status: Mapping[str, Any], tree: TreeFacts) -> Iterator[Reason]:
    shared = _shared(status, spec.name)
    if spec.sequential or shared.get("sequential"):
        yield from _sequential(job, spec, shared, tree)
    own = not shared or tree.is_own
    throttled_s = shared.get("throttled_for_s") or (tree.throttled_for_s(spec) if own else 0)
    if throttled_s:
        text = f"channel {spec.name} is throttled for another {seconds(throttled_s)}"
        yield Reason("throttled", text, {"channel": spec.name, "for_s": throttled_s})
    yield from _rate(spec, shared, tree)
    yield from _full(spec, shared, of_channel(status.get("schedule"), spec.name), tree)


def _rate(spec: ChannelSpec, shared: Mapping[str, Any], tree: TreeFacts) -> Iterator[Reason]:
    """The rate's period has no start left: over all databases if the channel is shared, else in this one."""
    found = shared.get("rate") if shared and not tree.is_own else tree.rate_used(spec)
    if not found:
        return
    if found.get("unread"):
        text = f"rate of {spec.name}: what was started before the supervisor was is still being read"
        yield Reason("rate", text, {"channel": spec.name, "next_in_s": None})
    elif found.get("next_in_s"):
        text = f"rate of {spec.name}: {rate_used(found)}"
        yield Reason("rate", text, {"channel": spec.name, **found})


def _sequential(job: JobFacts, spec: ChannelSpec, shared: Mapping[str, Any], tree: TreeFacts) -> Iterator[Reason]:
    failed = tree.failed_below(spec.name)
    elsewhere = int(shared.get("failed") or 0) - len(failed)
    if failed or elsewhere > 0:
        behind = _named(failed) if failed else f"{elsewhere} in other databases"
        text = f"sequential channel {spec.name} stopped at a failed job: {behind}"
        yield Reason("sequential", text, {"channel": spec.name, "failed": failed[:_NAMED]})
    if job.not_due is not None:
        text = f"sequential channel {spec.name} waits for job {job.not_due}, which is not due"
        yield Reason("sequential", text, {"channel": spec.name, "not_due": job.not_due})


def _full(
    spec: ChannelSpec, shared: Mapping[str, Any], scheduled: Mapping[str, Any], tree: TreeFacts
) -> Iterator[Reason]:
    """The channel is full: over all databases if it is shared, and in this one if it is its own."""
    capacity = shared.get("capacity")
    if capacity is not None and shared.get("running", 0) >= capacity:
        by = f" ({scheduled['text']}, by schedule)" if capacity == scheduled.get("limit") else ""
        whose = " over all databases" + (by or " (max_capacity)") if tree.is_own else by
        yield _without_room(spec.name, whose, capacity, shared.get("running", 0), shared.get("holders", ()))
        return
    if shared and not tree.is_own:
        return
    running, whose = tree.running_below(spec.name), " in this database"
    capacities = [each for each in (spec.capacity, scheduled.get("limit") or None) if each is not None]
    if capacities and running >= min(capacities):
        holders = [{"database": tree.database, "running": running}]
        whose += f" ({scheduled['text']}, by schedule)" if min(capacities) == scheduled.get("limit") else ""
        yield _without_room(spec.name, whose, min(capacities), running, holders)


def _without_room(name: str, whose: str, capacity: int, running: int, holders: Sequence[Mapping[str, Any]]) -> Reason:
    by = sorted(
        ((str(holder["database"]), int(holder["running"])) for holder in holders if holder.get("running")),
        key=lambda holder: (-holder[1], holder[0]),
    )
    details = {"channel": name, "capacity": capacity, "running": running, "by": dict(by)}
    if capacity == 0:
        return Reason("no capacity", f"channel {name} has capacity 0{whose}: nothing runs", details)
    text = f"channel {name} is full{whose}, {running} of {capacity}"
    return Reason("full", text + (f": {_named([f'{db} {n}' for db, n in by])}" if by else ""), details)


def _turn(job: JobFacts, ageing_s: float | None) -> Reason:
    if job.ahead:
        text = f"{job.ahead} better job{'s' if job.ahead > 1 else ''} of its channel first"
        ages = f" (each step of priority is worth {seconds(ageing_s)} of waiting)" if ageing_s else ""
        return Reason("behind", text + ages, {"ahead": job.ahead})
    return Reason("next", "next in turn")


def _database(status: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((view for view in status.get("databases", ()) if view.get("name") == name), None)


def _shared(status: Mapping[str, Any], channel: str) -> Mapping[str, Any]:
    """The shared channel of that name in the status, or {}."""
    return next((view for view in status.get("channels", ()) if view.get("name") == channel), {})


def _is_within(name: str, channel: str) -> bool:
    return name == channel or name.startswith(channel + ".")


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _since(job: JobFacts) -> str:
    return "" if job.since_s is None else f" for {seconds(job.since_s)}"
