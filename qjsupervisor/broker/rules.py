"""The rules of the ledger: what a member's statement changes in it, and what the member is told. Pure.

The rules are those of models/lease.pml and are named in the comments: FENCE, LIMBO, SERVE, TERM, REST, EXCESS,
BARRIER, WAIT, RESERVE, BEYOND. Each channel corresponds to the model's single channel; a take is for a job's whole
path, all or nothing. A statement is applied as a whole or not at all. No clock,
no I/O: `now_s` is the coordinator's clock in seconds.
"""

from __future__ import annotations

from .counts import Counts, add, minus, plus, take_away
from .ledger import (
    START,
    Answer,
    Ledger,
    LedgerError,
    MemberEntry,
    Statement,
    beyond,
    blocked_channels,
    capacity_of,
    differences,
    note_not_before,
    unassigned,
    used,
)

#: A lease ends this long after its last renewal.
LEASE_S = 15.0
#: After a restart of the coordinator nothing is leased for this long: members stop, and their successors count.
BARRIER_S = 2 * LEASE_S
#: A member that has been gone for this long is forgotten, with the jobs that it left.
FORGET_S = 60.0
#: The longest period of a rate for which nothing starts after the member that had its turn was lost.
LONGEST_PAUSE_S = 600
#: Permits that cannot be divided evenly rotate among the waiting members, each holding them for this long.
ROTATION_S = 1.0


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
        _note_starts(ledger, said, now_s)
        if said.kind == "leave":
            del ledger.members[said.member]
            answer.notify = True
        else:
            _change(ledger, member, said, now_s, answer)
    if answer.ok and said.kind != "leave":
        _tell(ledger, said, now_s, answer)
    return answer


def forget(ledger: Ledger, who: str, now_s: float, incarnation: str) -> Counts:
    """An operator says that the lost member `who` (host:pid) never returns: free what is kept for it, its floor too.

    Returns what was freed. Raises LedgerError if that must not be: time alone frees the permits of its running jobs.
    """
    if ledger.incarnation != incarnation:
        _restart(ledger, incarnation, now_s)
    _run_out(ledger, now_s)
    known = {name: member for name, member in ledger.members.items() if f"{member.host}:{member.pid}" == who}
    lost = {name: member for name, member in known.items() if not member.valid}
    if not known:
        others = ", ".join(sorted(f"{m.host}:{m.pid}" for m in ledger.members.values())) or "none"
        raise LedgerError(f"no member {who}; there are: {others}")
    if not lost:
        left_s = max(member.expires_s for member in known.values()) - now_s
        raise LedgerError(f"{who} is alive: stop it; if it was killed, its lease ends in {left_s:.0f} s")
    wait_s = max(0.0, ledger.barrier_until_s - now_s, *(m.expires_s + FORGET_S - now_s for m in lost.values()))
    if wait_s > 0:
        raise LedgerError(f"jobs that {who} started may still run: try again in {wait_s:.0f} s")
    freed: Counts = {}
    for name, member in lost.items():
        freed = plus(freed, plus(member.limbo, member.limbo_over))
        _free_limbo(ledger, member, now_s)
        del ledger.members[name]
    return freed


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


def _to_limbo(member: MemberEntry, since_s: float) -> None:
    """Its lease has expired, but its jobs keep running. LIMBO"""
    if not member.valid:
        return
    add(member.limbo, member.lease)
    add(member.limbo_over, member.excess)
    member.lease, member.excess, member.hungry, member.weight = {}, {}, [], {}
    member.valid = False
    member.expires_s = since_s


def _forget(ledger: Ledger, now_s: float) -> list[tuple[str, Counts]]:
    """Free what members left behind that did not return and whose databases nobody took over."""
    if now_s < ledger.barrier_until_s:
        return []
    found: list[tuple[str, Counts]] = []
    for name, member in list(ledger.members.items()):
        if member.valid or now_s < member.expires_s + (FORGET_S if plus(member.limbo, member.limbo_over) else LEASE_S):
            continue
        kept = dict(member.floor) if member.serves else {}  # RESERVE
        lost = plus(minus(member.limbo, kept), member.limbo_over)
        if lost or not kept:
            _free_limbo(ledger, member, now_s)
        member.limbo, member.limbo_over = kept, {}
        if not kept:
            del ledger.members[name]
        if lost:
            found.append((f"{member.host}:{member.pid}", lost))
    for database, since_s in list(ledger.left_since_s.items()):
        if now_s >= since_s + FORGET_S:
            counts = plus(ledger.left.pop(database, {}), ledger.left_over.pop(database, {}))
            del ledger.left_since_s[database]
            found.append((database, counts))
    return found


def _free_limbo(ledger: Ledger, member: MemberEntry, now_s: float) -> None:
    """Free a lost member's limbo. When it last started a job in a throttled channel is unknown, so assume: just now."""
    for channel in member.limbo:
        if channel.endswith(START):
            pause_s = ledger.throttle_s.get(channel, 0)
            # Of a long period the starts that it told are counted, and those of its last seconds are missing.
            if pause_s <= LONGEST_PAUSE_S or channel not in ledger.starts_s:
                note_not_before(ledger, channel, now_s + pause_s)


# -- statements ------------------------------------------------------------------------------------------------------


def _register(ledger: Ledger, said: Statement, now_s: float, answer: Answer) -> None:
    member = ledger.members.setdefault(said.member, MemberEntry())
    if said.session <= member.session:  # FENCE
        return
    answer.ok = True
    member.session = said.session
    if not member.valid:
        if now_s < ledger.barrier_until_s:  # the ledger may have lost its history, so the member knows better
            member.lease, member.excess = dict(said.may), minus(said.held, said.may)
            member.serves = sorted({*member.serves, *said.holds})
        else:
            claims = {c: _claimable(ledger, member, said, c) for c in said.upper}
            member.lease = {c: n for c, n in claims.items() if n}
            member.excess = minus(said.held, member.lease)
            _free_limbo(ledger, _rest(member), now_s)
        member.limbo, member.limbo_over, member.valid = {}, {}, True
    member.expires_s = now_s + LEASE_S
    member.host, member.pid = said.host, said.pid
    _note(ledger, member, said)
    member.floor = {c: min(n, member.lease[c]) for c, n in said.floor.items() if member.lease.get(c)}
    answer.got = dict(member.lease)
    for channel in member.lease:
        if channel.endswith(START):
            _tell_starts(ledger, channel, now_s, answer)
    answer.floor = dict(member.floor)
    answer.notify = True


def _claimable(ledger: Ledger, member: MemberEntry, said: Statement, channel: str) -> int:
    """What a lost member may have back of its limbo. UPPER, BEYOND; its floor it may have used meanwhile. RESERVE"""
    limbo = member.limbo.get(channel, 0)
    floor = min(said.floor.get(channel, 0), member.floor.get(channel, 0), limbo)
    own = None if said.capacity is None else said.capacity.get(channel)
    free = min(said.upper[channel], limbo) - beyond(ledger, channel, own)
    return max(free, floor)


def _rest(member: MemberEntry) -> MemberEntry:
    """A lost member that stands for what the returning one did not claim of its limbo."""
    return MemberEntry(limbo=minus(member.limbo, member.lease))


def _note(ledger: Ledger, member: MemberEntry, said: Statement) -> None:
    """Record what the member reports about itself."""
    if said.capacity is not None:
        member.capacity = dict(said.capacity)
    if said.throttle_s is not None:
        for channel, seconds in said.throttle_s.items():
            ledger.throttle_s[channel] = max(seconds, ledger.throttle_s.get(channel, 0))
    member.weight, member.hungry, member.held = dict(said.weight), list(said.hungry), dict(said.held)
    member.least = dict(said.least)


def _change(ledger: Ledger, member: MemberEntry, said: Statement, now_s: float, answer: Answer) -> None:
    was_hungry = set(member.hungry)
    member.expires_s = now_s + LEASE_S
    _note(ledger, member, said)
    member.excess = dict(said.excess)
    freed = bool(said.gives) or bool(said.drops)
    for database, (lease, excess) in said.drops.items():
        moved = {c: min(n, member.lease.get(c, 0)) for c, n in lease.items()}
        take_away(member.lease, moved)
        ledger.left_since_s[database] = now_s
        add(ledger.left.setdefault(database, {}), moved)
        add(ledger.left_over.setdefault(database, {}), excess)
        if database in member.serves:
            member.serves.remove(database)
    take_away(member.lease, said.gives)
    for database, term in said.settles.items():
        freed |= _settle(ledger, member, said, (database, term), now_s, answer)
    for database, counts in said.failed.items():
        if member.serves.count(database):
            ledger.failed[database] = dict(counts)
    for path, count in said.takes:
        _take(ledger, member, (path, count), now_s, answer)
    member.floor = {c: min(n, member.lease[c]) for c, n in said.floor.items() if member.lease.get(c)}
    member.floor_wanted = dict(said.floor)
    answer.floor = dict(member.floor)
    others = [each for each in ledger.members.values() if each is not member and each.valid and each.hungry]
    answer.notify = (freed and bool(others)) or bool(said.drops) or bool(set(said.hungry) - was_hungry)


def _note_starts(ledger: Ledger, said: Statement, now_s: float) -> None:
    """When jobs were started in channels whose token it has, or returns."""
    for channel, wait_s in said.not_before_s.items():
        note_not_before(ledger, channel, now_s + wait_s)
    for channel, ages_s in said.starts_s.items():
        ledger.starts_s[channel] = [round(now_s - age_s, 3) for age_s in ages_s]


def _settle(
    ledger: Ledger, member: MemberEntry, said: Statement, tenure: tuple[str, int], now_s: float, answer: Answer
) -> bool:
    """A member has counted a database's jobs. True if permits may have become free. SERVE, TERM"""
    database, term = tenure
    if term < ledger.terms.get(database, 0):
        return False
    ledger.terms[database] = term
    if database not in member.serves:
        member.serves = sorted([*member.serves, database])
    answer.settled[database] = term
    lacks = minus(said.held, member.lease)
    _claim(ledger, member, lacks, ledger.left.get(database, {}), answer)
    ledger.left.pop(database, None)
    ledger.left_over.pop(database, None)
    ledger.left_since_s.pop(database, None)
    if now_s < ledger.barrier_until_s:  # WAIT
        return False
    for name, other in list(ledger.members.items()):
        if other.valid or database not in other.serves:
            continue
        _claim(ledger, member, lacks, other.limbo, answer, kept=other.floor)
        other.serves.remove(database)
        if not other.serves:  # REST
            _free_limbo(ledger, other, now_s)
            del ledger.members[name]
    return True


def _claim(
    ledger: Ledger, member: MemberEntry, lacks: Counts, limbo: Counts, answer: Answer, kept: Counts | None = None
) -> None:
    """Move what a member holds without a lease from the limbo to the member, as far as available. RESERVE, BEYOND"""
    for channel, wanted in list(lacks.items()):
        available = limbo.get(channel, 0) - (kept or {}).get(channel, 0)
        # What it holds beyond its lease is the very thing that it claims.
        surplus = max(0, beyond(ledger, channel) - member.excess.get(channel, 0))
        moved = min(wanted - surplus, available)
        if moved > 0:
            for counts in (member.lease, answer.got):
                add(counts, {channel: moved})
            take_away(member.excess, {channel: moved})
            take_away(limbo, {channel: moved})
            take_away(lacks, {channel: moved})


def _take(
    ledger: Ledger, member: MemberEntry, wanted: tuple[tuple[str, ...], int], now_s: float, answer: Answer
) -> None:
    """Lease permits for a path: as many as all its channels have free, within the member's share."""
    path, count = wanted
    if now_s < ledger.barrier_until_s or any(channel in blocked_channels(ledger) for channel in path):
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
                add(counts, {channel: count})
            if channel.endswith(START):
                _tell_starts(ledger, channel, now_s, answer)


def _tell_starts(ledger: Ledger, channel: str, now_s: float, answer: Answer) -> None:
    """What whoever has a token has to know: when the next start may be, and when the last ones were."""
    answer.not_before_s[channel] = max(0.0, ledger.not_before_s.get(channel, 0.0) - now_s)
    if channel in ledger.starts_s:
        answer.starts_s[channel] = [now_s - at_s for at_s in ledger.starts_s[channel]]


def _tell(ledger: Ledger, said: Statement, now_s: float, answer: Answer) -> None:
    member = ledger.members[said.member]
    limbo = {database for each in ledger.members.values() if not each.valid for database in each.serves}
    answer.unsettled = sorted({*ledger.left, *ledger.left_over, *(() if now_s < ledger.barrier_until_s else limbo)})
    for channel in member.capacity:
        target = share(ledger, channel, now_s).get(id(member))
        if target is not None:
            answer.targets[channel] = target
    answer.blocked = sorted(blocked_channels(ledger, but=set(member.serves)))
    answer.differs = differences(ledger)


def share(ledger: Ledger, channel: str, now_s: float) -> dict[int, int]:
    """What each member should have of a channel, by id(member); empty if nobody waits for what another holds.

    A member that does not wait needs what it runs; the rest is divided among the waiting ones, by the weight of their
    databases. Nobody gets less than its least, as far as there is enough for that. After the capacity was lowered
    everybody has to shrink, those too who do not wait.
    """
    rivals = [member for member in ledger.members.values() if member.valid]
    capacity = capacity_of(ledger, channel)
    is_over = beyond(ledger, channel) > 0
    hungry = [member for member in rivals if is_over or channel in member.hungry]
    if not hungry or capacity is None or not (is_over or len(rivals) > 1):
        return {}
    base = channel.removesuffix(START)
    running = {id(member): 0 if base != channel else member.held.get(channel, 0) for member in rivals}
    room = max(0, capacity - unassigned(ledger, channel))
    least = {}
    for member in rivals:
        least[id(member)] = min(member.least.get(channel, 0), room)
        room -= least[id(member)]
    found = {id(m): max(running[id(m)], least[id(m)]) for m in rivals if m not in hungry}
    room = max(0, room - sum(n - least[key] for key, n in found.items()))
    weights = [max(1, member.weight.get(channel, 1)) for member in hungry]
    parts = [room * weight // sum(weights) for weight in weights]
    turn = int(now_s / ROTATION_S) % len(hungry)
    for extra in range(room - sum(parts)):
        parts[(turn + extra) % len(hungry)] += 1
    return found | {id(member): least[id(member)] + part for member, part in zip(hungry, parts, strict=True)}
