"""The rules of the ledger: what a member's statement changes in it, and what the member is told. Pure.

The rules are those of models/lease.pml and are named in the comments: FENCE, LIMBO, SERVE, TERM, REST, EXCESS,
BARRIER, WAIT. Each channel corresponds to the model's single channel; a take is for a job's whole path, all or nothing.
A statement is applied as a whole or not at all. No clock, no I/O: `now_s` is the coordinator's clock in seconds.
"""

from __future__ import annotations

from .counts import Counts, add, minus, plus, take_away
from .ledger import (
    START,
    Answer,
    Ledger,
    MemberEntry,
    Statement,
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
        _free_limbo(ledger, member, now_s)
        del ledger.members[name]
        if counts := plus(member.limbo, member.limbo_over):
            found.append((f"{member.host}:{member.pid}", counts))
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
            note_not_before(ledger, channel, now_s + ledger.throttle_s.get(channel, 0))


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
            member.lease = {c: min(n, member.limbo.get(c, 0)) for c, n in said.upper.items() if member.limbo.get(c)}
            member.excess = minus(said.held, member.lease)
            _free_limbo(ledger, _rest(member), now_s)
        member.limbo, member.limbo_over, member.valid = {}, {}, True
    member.expires_s = now_s + LEASE_S
    member.host, member.pid = said.host, said.pid
    _note(ledger, member, said)
    answer.got = dict(member.lease)
    answer.notify = True


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


def _change(ledger: Ledger, member: MemberEntry, said: Statement, now_s: float, answer: Answer) -> None:
    was_hungry = set(member.hungry)
    member.expires_s = now_s + LEASE_S
    _note(ledger, member, said)
    member.excess = dict(said.excess)
    freed = bool(said.gives) or bool(said.drops)
    for database, (lease, beyond) in said.drops.items():
        moved = {c: min(n, member.lease.get(c, 0)) for c, n in lease.items()}
        take_away(member.lease, moved)
        ledger.left_since_s[database] = now_s
        add(ledger.left.setdefault(database, {}), moved)
        add(ledger.left_over.setdefault(database, {}), beyond)
        if database in member.serves:
            member.serves.remove(database)
    take_away(member.lease, said.gives)
    for channel, wait_s in said.not_before_s.items():
        note_not_before(ledger, channel, now_s + wait_s)
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


def _claim(member: MemberEntry, lacks: Counts, limbo: Counts, answer: Answer) -> None:
    """Move what a member holds without a lease from the limbo to the member, as far as available."""
    for channel, wanted in list(lacks.items()):
        moved = min(wanted, limbo.get(channel, 0))
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
                answer.not_before_s[channel] = max(0.0, ledger.not_before_s.get(channel, 0.0) - now_s)


def _tell(ledger: Ledger, said: Statement, now_s: float, answer: Answer) -> None:
    member = ledger.members[said.member]
    limbo = {database for each in ledger.members.values() if not each.valid for database in each.serves}
    answer.unsettled = sorted({*ledger.left, *ledger.left_over, *(() if now_s < ledger.barrier_until_s else limbo)})
    for channel in member.capacity:
        target = share(ledger, channel, now_s).get(id(member))
        if target is not None:
            answer.targets[channel] = target
    answer.blocked = sorted(blocked_channels(ledger, but=set(member.serves)))
    answer.barrier_s = max(0.0, ledger.barrier_until_s - now_s)
    answer.differs = differences(ledger)


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
    room = max(0, capacity - sum(found.values()) - unassigned(ledger, channel))
    weights = [max(1, member.weight.get(channel, 1)) for member in hungry]
    parts = [room * weight // sum(weights) for weight in weights]
    turn = int(now_s / ROTATION_S) % len(hungry)
    for extra in range(room - sum(parts)):
        parts[(turn + extra) % len(hungry)] += 1
    return found | {id(member): part for member, part in zip(hungry, parts, strict=True)}
