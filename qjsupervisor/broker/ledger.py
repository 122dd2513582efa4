"""The ledger for sharing one capacity among several supervisors: what each member may use of each channel. Pure.

The coordinator keeps one `Ledger` per cluster, as a document. Members change it one statement at a time (`execute`),
each applied as a whole or not at all. No clock, no I/O: `now_s` is the coordinator's clock in seconds.

The rules are those of models/lease.pml and are named in the comments: FENCE, LIMBO, SERVE, TERM, REST, EXCESS,
BARRIER, WAIT. Quantities are permits by channel (`Counts`). Each channel corresponds to the model's single channel; a
take is for a job's whole path, all or nothing. A throttled channel has a second one, `root.x#start`, of capacity 1:
its holder may start jobs there, and hands over with it the earliest time of the next start.

Of a member
    lease, excess        what it may use; and running jobs that it found beyond that, which nobody may claim
    limbo, limbo_over    the same for a member whose lease expired, until others have counted its databases
    serves               databases in which it may have running jobs
Of a database
    left, left_over      permits of jobs that still run there for a member that released it, until the new server has
                         counted them
    term                 the newest tenure that was reported
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: A lease ends this long after its last renewal.
LEASE_S = 15.0
#: After a restart of the coordinator nothing is leased for this long: members stop, and their successors count.
BARRIER_S = 2 * LEASE_S
#: A member that has been gone for this long is forgotten, with the jobs that it left.
FORGET_S = 60.0
#: Permits that cannot be divided evenly rotate among the waiting members, each holding them for this long.
ROTATION_S = 1.0
#: Suffix of a throttled channel's name: the right to start there.
START = "#start"

Counts = dict[str, int]


@dataclass
class Member:
    """One supervisor."""

    session: int = 0
    expires_s: float = 0.0
    valid: bool = False
    lease: Counts = field(default_factory=dict)
    excess: Counts = field(default_factory=dict)
    limbo: Counts = field(default_factory=dict)
    limbo_over: Counts = field(default_factory=dict)
    serves: list[str] = field(default_factory=list)
    #: Capacity by channel as configured; for throttled channels also that of their token.
    capacity: Counts = field(default_factory=dict)
    #: Channels in which it waits for a permit.
    hungry: list[str] = field(default_factory=list)
    #: By channel: the total weight of its databases that wait or run there, and the number of running jobs.
    weight: Counts = field(default_factory=dict)
    held: Counts = field(default_factory=dict)
    host: str = ""
    pid: int = 0


@dataclass
class Ledger:
    """What the members of one cluster hold, may hold, or have left behind."""

    members: dict[str, Member] = field(default_factory=dict)
    left: dict[str, Counts] = field(default_factory=dict)
    left_over: dict[str, Counts] = field(default_factory=dict)
    left_since_s: dict[str, float] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=dict)
    #: Failed jobs by database and sequential channel.
    failed: dict[str, Counts] = field(default_factory=dict)
    #: For throttled channels: the throttle in seconds, and the earliest time of the next start.
    throttle_s: Counts = field(default_factory=dict)
    not_before_s: dict[str, float] = field(default_factory=dict)
    #: The coordinator's start time and timeline, as of the last statement.
    incarnation: str = ""
    barrier_until_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The document that the coordinator stores."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Ledger:
        members = {name: Member(**each) for name, each in document.get("members", {}).items()}
        return cls(**{**document, "members": members})


@dataclass
class Statement:
    """One statement of a member. Counts have no zeros."""

    member: str
    session: int
    #: "register", "change" or "leave".
    kind: str = "change"
    #: register: the most it may hold, what it may use if its deadline has not passed, and where it holds permits.
    upper: Counts = field(default_factory=dict)
    may: Counts = field(default_factory=dict)
    holds: list[str] = field(default_factory=list)
    host: str = ""
    pid: int = 0
    #: Running jobs in total, and those beyond what it may use; both after `drops`.
    held: Counts = field(default_factory=dict)
    excess: Counts = field(default_factory=dict)
    #: None: unchanged.
    capacity: Counts | None = None
    throttle_s: Counts | None = None
    weight: Counts = field(default_factory=dict)
    hungry: list[str] = field(default_factory=list)
    #: change: databases that it released: (permits of its lease, jobs beyond it).
    drops: dict[str, tuple[Counts, Counts]] = field(default_factory=dict)
    gives: Counts = field(default_factory=dict)
    #: Databases that it has counted, and the term of its leader lock.
    settles: dict[str, int] = field(default_factory=dict)
    #: Failed jobs in sequential channels, of each database that it settles or has settled.
    failed: dict[str, Counts] = field(default_factory=dict)
    #: For tokens that it returns: seconds until the next start is allowed.
    not_before_s: dict[str, float] = field(default_factory=dict)
    #: (channels of a path, tokens included; how many at most).
    takes: list[tuple[tuple[str, ...], int]] = field(default_factory=list)


@dataclass
class Answer:
    """The ledger's answer."""

    #: False: the session is no longer registered, and nothing was done.
    ok: bool = False
    #: register: all that it may use. change: what it gained.
    got: Counts = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    #: Databases with permits that wait for their new server.
    unsettled: list[str] = field(default_factory=list)
    #: What it should shrink or grow to, in channels where members wait for permits.
    targets: Counts = field(default_factory=dict)
    #: Sequential channels that another member's failed job keeps closed.
    blocked: list[str] = field(default_factory=list)
    #: For tokens that it gained: seconds until the next start is allowed.
    not_before_s: dict[str, float] = field(default_factory=dict)
    barrier_s: float = 0.0
    #: Whether to notify the others: something they wait for is free, or somebody waits for what they hold.
    notify: bool = False
    #: Members and unserved databases that were forgotten together with permits: (who, permits).
    forgotten: list[tuple[str, Counts]] = field(default_factory=list)
    #: Channels for which members have different capacities: channel -> {host:pid: capacity}.
    differs: dict[str, Counts] = field(default_factory=dict)


def execute(ledger: Ledger, said: Statement, now_s: float, incarnation: str) -> Answer:
    """Apply one statement of a member to the ledger."""
    answer = Answer()
    if ledger.incarnation != incarnation:
        _restart(ledger, incarnation, now_s)
    _run_out(ledger, now_s)
    answer.forgotten = _forget(ledger, now_s)
    if said.kind == "register":
        _register(ledger, said, now_s, answer)
    else:
        member = ledger.members.get(said.member)
        if member is None or not member.valid or member.session != said.session:  # FENCE
            return answer
        answer.ok = True
        if said.kind == "leave":
            del ledger.members[said.member]
            answer.notify = True
        else:
            _change(ledger, member, said, now_s, answer)
    if answer.ok and said.kind != "leave":
        _tell(ledger, said, now_s, answer)
    return answer


# -- time ------------------------------------------------------------------------------------------------------------


def _restart(ledger: Ledger, incarnation: str, now_s: float) -> None:
    """After a change of the coordinator all members must register again, behind a barrier. BARRIER"""
    is_first = not ledger.incarnation and not ledger.members
    ledger.incarnation = incarnation
    ledger.barrier_until_s = 0.0 if is_first else now_s + BARRIER_S
    for member in ledger.members.values():
        _to_limbo(member, now_s)


def _run_out(ledger: Ledger, now_s: float) -> None:
    for member in ledger.members.values():
        if member.valid and member.expires_s <= now_s:
            _to_limbo(member, member.expires_s)


def _to_limbo(member: Member, since_s: float) -> None:
    """Its lease has expired, but its jobs keep running. LIMBO"""
    if not member.valid:
        return
    _add(member.limbo, member.lease)
    _add(member.limbo_over, member.excess)
    member.lease, member.excess, member.hungry, member.weight = {}, {}, [], {}
    member.valid = False
    member.expires_s = since_s


def _forget(ledger: Ledger, now_s: float) -> list[tuple[str, Counts]]:
    """Free what members left behind that did not return and whose databases nobody took over."""
    if now_s < ledger.barrier_until_s:
        return []
    found: list[tuple[str, Counts]] = []
    for name, member in list(ledger.members.items()):
        if member.valid or now_s < member.expires_s + (FORGET_S if _sum(member.limbo, member.limbo_over) else LEASE_S):
            continue
        _free_limbo(ledger, member, now_s)
        del ledger.members[name]
        if counts := _sum(member.limbo, member.limbo_over):
            found.append((f"{member.host}:{member.pid}", counts))
    for database, since_s in list(ledger.left_since_s.items()):
        if now_s >= since_s + FORGET_S:
            counts = _sum(ledger.left.pop(database, {}), ledger.left_over.pop(database, {}))
            del ledger.left_since_s[database]
            found.append((database, counts))
    return found


def _free_limbo(ledger: Ledger, member: Member, now_s: float) -> None:
    """Free a lost member's limbo. When it last started a job in a throttled channel is unknown, so assume: just now."""
    for channel in member.limbo:
        if channel.endswith(START):
            _not_before(ledger, channel, now_s + ledger.throttle_s.get(channel, 0))


# -- statements ------------------------------------------------------------------------------------------------------


def _register(ledger: Ledger, said: Statement, now_s: float, answer: Answer) -> None:
    member = ledger.members.setdefault(said.member, Member())
    if said.session <= member.session:  # FENCE
        return
    answer.ok = True
    member.session = said.session
    if not member.valid:
        if now_s < ledger.barrier_until_s:  # the ledger may have lost its history, so the member knows better
            member.lease, member.excess = dict(said.may), _minus(said.held, said.may)
            member.serves = sorted({*member.serves, *said.holds})
        else:
            member.lease = {c: min(n, member.limbo.get(c, 0)) for c, n in said.upper.items() if member.limbo.get(c)}
            member.excess = _minus(said.held, member.lease)
            _free_limbo(ledger, _rest(member), now_s)
        member.limbo, member.limbo_over, member.valid = {}, {}, True
    member.expires_s = now_s + LEASE_S
    member.host, member.pid = said.host, said.pid
    _note(ledger, member, said)
    answer.got = dict(member.lease)
    answer.notify = True


def _rest(member: Member) -> Member:
    """A lost member that stands for what the returning one did not claim of its limbo."""
    return Member(limbo=_minus(member.limbo, member.lease))


def _note(ledger: Ledger, member: Member, said: Statement) -> None:
    """Record what the member reports about itself."""
    if said.capacity is not None:
        member.capacity = dict(said.capacity)
    if said.throttle_s is not None:
        for channel, seconds in said.throttle_s.items():
            ledger.throttle_s[channel] = max(seconds, ledger.throttle_s.get(channel, 0))
    member.weight, member.hungry, member.held = dict(said.weight), list(said.hungry), dict(said.held)


def _change(ledger: Ledger, member: Member, said: Statement, now_s: float, answer: Answer) -> None:
    was_hungry = set(member.hungry)
    member.expires_s = now_s + LEASE_S
    _note(ledger, member, said)
    member.excess = dict(said.excess)
    freed = bool(said.gives) or bool(said.drops)
    for database, (lease, beyond) in said.drops.items():
        moved = {c: min(n, member.lease.get(c, 0)) for c, n in lease.items()}
        _take_away(member.lease, moved)
        ledger.left_since_s[database] = now_s
        _add(ledger.left.setdefault(database, {}), moved)
        _add(ledger.left_over.setdefault(database, {}), beyond)
        if database in member.serves:
            member.serves.remove(database)
    _take_away(member.lease, said.gives)
    for channel, wait_s in said.not_before_s.items():
        _not_before(ledger, channel, now_s + wait_s)
    for database, term in said.settles.items():
        freed |= _settle(ledger, member, said, (database, term), now_s, answer)
    for database, counts in said.failed.items():
        if member.serves.count(database):
            ledger.failed[database] = dict(counts)
    for path, count in said.takes:
        _take(ledger, member, (path, count), now_s, answer)
    others = [each for each in ledger.members.values() if each is not member and each.valid and each.hungry]
    answer.notify = (freed and bool(others)) or bool(said.drops) or bool(set(said.hungry) - was_hungry)


def _settle(
    ledger: Ledger, member: Member, said: Statement, tenure: tuple[str, int], now_s: float, answer: Answer
) -> bool:
    """A member has counted a database's jobs. True if permits may have become free. SERVE, TERM"""
    database, term = tenure
    if term < ledger.terms.get(database, 0):
        return False
    ledger.terms[database] = term
    if database not in member.serves:
        member.serves = sorted([*member.serves, database])
    answer.settled[database] = term
    lacks = _minus(said.held, member.lease)
    _claim(member, lacks, ledger.left.pop(database, {}), answer)
    ledger.left_over.pop(database, None)
    ledger.left_since_s.pop(database, None)
    if now_s < ledger.barrier_until_s:  # WAIT
        return False
    for name, other in list(ledger.members.items()):
        if other.valid or database not in other.serves:
            continue
        _claim(member, lacks, other.limbo, answer)
        other.serves.remove(database)
        if not other.serves:  # REST
            _free_limbo(ledger, other, now_s)
            del ledger.members[name]
    return True


def _claim(member: Member, lacks: Counts, limbo: Counts, answer: Answer) -> None:
    """Move what a member holds without a lease from the limbo to the member, as far as available."""
    for channel, wanted in list(lacks.items()):
        moved = min(wanted, limbo.get(channel, 0))
        if moved > 0:
            for counts in (member.lease, answer.got):
                _add(counts, {channel: moved})
            _take_away(member.excess, {channel: moved})
            _take_away(limbo, {channel: moved})
            _take_away(lacks, {channel: moved})


def _take(ledger: Ledger, member: Member, wanted: tuple[tuple[str, ...], int], now_s: float, answer: Answer) -> None:
    """Lease permits for a path: as many as all its channels have free, within the member's share."""
    path, count = wanted
    if now_s < ledger.barrier_until_s or any(channel in _blocked(ledger) for channel in path):
        return
    for channel in path:
        capacity = capacity_of(ledger, channel)
        if capacity is None:
            return
        count = min(count, capacity - used(ledger, channel))
        target = share(ledger, channel, now_s).get(id(member))
        if target is not None:
            count = min(count, target - member.lease.get(channel, 0))
    if count > 0:
        for channel in path:
            for counts in (member.lease, answer.got):
                _add(counts, {channel: count})
            if channel.endswith(START):
                answer.not_before_s[channel] = max(0.0, ledger.not_before_s.get(channel, 0.0) - now_s)


def _tell(ledger: Ledger, said: Statement, now_s: float, answer: Answer) -> None:
    member = ledger.members[said.member]
    limbo = {database for each in ledger.members.values() if not each.valid for database in each.serves}
    answer.unsettled = sorted({*ledger.left, *ledger.left_over, *(() if now_s < ledger.barrier_until_s else limbo)})
    for channel in member.capacity:
        target = share(ledger, channel, now_s).get(id(member))
        if target is not None:
            answer.targets[channel] = target
    answer.blocked = sorted(_blocked(ledger, but=set(member.serves)))
    answer.barrier_s = max(0.0, ledger.barrier_until_s - now_s)
    answer.differs = differences(ledger)


# -- what follows ----------------------------------------------------------------------------------------------------


def used(ledger: Ledger, channel: str) -> int:
    """How many permits of a channel are not free. EXCESS"""
    of_members = sum(
        counts.get(channel, 0)
        for member in ledger.members.values()
        for counts in (member.lease, member.excess, member.limbo, member.limbo_over)
    )
    parts = [*ledger.left.values(), *ledger.left_over.values()]
    return of_members + sum(counts.get(channel, 0) for counts in parts)


def capacity_of(ledger: Ledger, channel: str) -> int | None:
    """The smallest capacity that any member has configured; None if no member has the channel."""
    found = [m.capacity[channel] for m in ledger.members.values() if m.valid and channel in m.capacity]
    return min(found, default=None)


def differences(ledger: Ledger) -> dict[str, Counts]:
    """Channels for which the members' configurations differ."""
    valid = [member for member in ledger.members.values() if member.valid]
    found: dict[str, Counts] = {}
    for channel in sorted({channel for member in valid for channel in member.capacity}):
        said = {f"{m.host}:{m.pid}": m.capacity[channel] for m in valid if channel in m.capacity}
        if len(set(said.values())) > 1:
            found[channel] = said
    return found


def share(ledger: Ledger, channel: str, now_s: float) -> dict[int, int]:
    """What each member should have of a channel, by id(member); empty if nobody waits for what another holds.

    A member that does not wait needs what it runs; the rest is divided among the waiting ones, by the weight of their
    databases.
    """
    rivals = [member for member in ledger.members.values() if member.valid]
    capacity = capacity_of(ledger, channel)
    hungry = [member for member in rivals if channel in member.hungry]
    if not hungry or capacity is None or len(rivals) < 2:
        return {}
    base = channel.removesuffix(START)
    running = {id(member): 0 if base != channel else member.held.get(channel, 0) for member in rivals}
    found = {id(member): running[id(member)] for member in rivals if member not in hungry}
    room = max(0, capacity - sum(found.values()) - _unassigned(ledger, channel))
    weights = [max(1, member.weight.get(channel, 1)) for member in hungry]
    parts = [room * weight // sum(weights) for weight in weights]
    turn = int(now_s / ROTATION_S) % len(hungry)
    for extra in range(room - sum(parts)):
        parts[(turn + extra) % len(hungry)] += 1
    return found | {id(member): part for member, part in zip(hungry, parts, strict=True)}


def _unassigned(ledger: Ledger, channel: str) -> int:
    """Permits that no valid member holds but that are not free either."""
    return used(ledger, channel) - sum(m.lease.get(channel, 0) for m in ledger.members.values() if m.valid)


def _blocked(ledger: Ledger, but: Iterable[str] = ()) -> set[str]:
    """Sequential channels with a failed job in any database except these."""
    return {c for database, counts in ledger.failed.items() if database not in but for c, n in counts.items() if n}


def _not_before(ledger: Ledger, channel: str, moment_s: float) -> None:
    ledger.not_before_s[channel] = max(moment_s, ledger.not_before_s.get(channel, 0.0))


def _add(counts: Counts, more: Counts) -> None:
    for channel, n in more.items():
        counts[channel] = counts.get(channel, 0) + n


def _take_away(counts: Counts, less: Counts) -> None:
    for channel, n in less.items():
        left = counts.pop(channel, 0) - n
        if left > 0:
            counts[channel] = left


def _minus(counts: Counts, less: Counts) -> Counts:
    return {c: n - less.get(c, 0) for c, n in counts.items() if n > less.get(c, 0)}


def _sum(counts: Counts, more: Counts) -> Counts:
    total = dict(counts)
    _add(total, more)
    return total
