"""One supervisor's part in a cluster: what it tells the coordinator, and what follows from the answer. Pure.

A `Plan` is made from the table's contents while holding the table's lock: what to write into the table at once (a local
capacity is lowered before the ledger is told: GIVE, DROP), and the statement. The names of the rules are those of
models/lease.pml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..table.leases import ChannelFacts, LeaseFacts
from .counts import Counts
from .ledger import START, Answer, Statement

#: Spare permits are returned after being unused for this long.
SPARE_S = 0.2
#: From the counting of a start to its request, at most, on a busy machine.
ON_THEIR_WAY_S = 0.3


@dataclass
class Plan:
    """What to write into the table, and what to send."""

    statement: Statement
    rights: Counts = field(default_factory=dict)
    tokens: dict[str, bool] = field(default_factory=dict)
    #: Floors that are lowered; one is raised after the answer. LOWER, FIRST
    floors: Counts = field(default_factory=dict)
    #: Database to slot, where the ledger takes over the permits.
    dropped: dict[str, int] = field(default_factory=dict)
    #: Whether there is anything new to send.
    is_news: bool = False


class Member:
    """What a broker remembers between statements; everything else is in the table."""

    def __init__(self, name: str, host: str, pid: int, floor: Mapping[str, int] | None = None) -> None:
        self.name = name
        self._floor = dict(floor or {})
        self._host = host
        self._pid = pid
        self.registered = False
        self.targets: Counts = {}
        self.blocked: set[str] = set()
        self._unsettled: set[str] = set()
        self._hungry: set[str] = set()
        self._failed: dict[str, Counts] = {}
        self._capacity: Counts = {}
        self._throttle_s: Counts = {}
        #: Since when each channel has had more than it needs.
        self._spare_since_s: dict[str, float] = {}

    # -- what to say ---------------------------------------------------------------------------------------------

    def register(self, facts: LeaseFacts, session: int) -> Statement:
        """Open a new session. It claims what may have been used until now, not just what is in use. UPPER, PAST"""
        rights = _rights(facts)
        held = _held(facts)
        serves = any(0 < each.term == each.settled for each in facts.slots)
        floors = {c.name: c.floor for c in facts.channels.values() if c.floor and (serves or not facts.is_over)}
        self._capacity, self._throttle_s = _capacity(facts)
        self._failed, self._hungry = {}, set()
        return Statement(
            member=self.name,
            session=session,
            kind="register",
            upper={c: max(rights.get(c, 0), held.get(c, 0)) for c in {*rights, *held}},
            may=floors if facts.is_over else rights,
            floor=floors,
            least={c: n for c in facts.channels if (n := self._least(facts.channels[c]))},
            holds=[each.database for each in facts.slots if each.term or each.held],
            host=self._host,
            pid=self._pid,
            held=held,
            capacity=self._capacity,
            throttle_s=self._throttle_s,
        )

    def leave(self, facts: LeaseFacts, session: int) -> Statement:
        """The final statement: everything that still runs has been handed over. LEAVE"""
        said = Statement(member=self.name, session=session, kind="leave")
        for channel in facts.channels.values():
            _tell_starts(channel, said)
            if channel.token:
                said.not_before_s[channel.name + START] = channel.not_before_s
        return said

    def plan(self, facts: LeaseFacts, session: int, now_s: float) -> Plan:
        """Decide what to write and to send now."""
        said = Statement(member=self.name, session=session)
        plan = Plan(said)
        rights, held = _rights(facts), _held(facts)
        self._drop(facts, rights, held, plan)
        said.held = held
        said.excess = {c: n - rights.get(c, 0) for c, n in held.items() if n > rights.get(c, 0)}
        said.floor = dict(self._floor)
        said.least = {c: n for c in facts.channels if (n := self._least(facts.channels[c]))}
        self._settle(facts, plan)
        self._want(facts, rights, plan)
        for channel in facts.channels.values():
            if channel.capacity is not None:
                self._give(channel, rights, plan, now_s)
            _tell_starts(channel, said)
            if channel.throttle_s:
                self._give_token(channel, plan)
        capacity, throttle_s = _capacity(facts)
        if (capacity, throttle_s) != (self._capacity, self._throttle_s):
            said.capacity, said.throttle_s = self._capacity, self._throttle_s = capacity, throttle_s
            plan.is_news = True
        plan.floors = {
            c.name: min(self._floor.get(c.name, 0), rights.get(c.name, 0))
            for c in facts.channels.values()
            if c.floor > min(self._floor.get(c.name, 0), rights.get(c.name, 0))
        }
        plan.rights |= {c: rights.get(c, 0) for c in facts.channels if rights.get(c, 0) != facts.channels[c].right}
        plan.is_news |= bool(said.gives or said.drops or said.settles or said.failed)
        return plan

    def _drop(self, facts: LeaseFacts, rights: Counts, held: Counts, plan: Plan) -> None:
        """Hand the permits of jobs in databases that another supervisor leads to the ledger. DROP"""
        for each in facts.slots:
            if not each.let_go or each.term:
                continue
            lease: Counts = {}
            for channel, n in each.held.items():
                lease[channel] = moved = min(n, rights.get(channel, 0))
                rights[channel] = rights.get(channel, 0) - moved
                held[channel] -= n
            beyond = {c: n - lease[c] for c, n in each.held.items() if n > lease[c]}
            plan.statement.drops[each.database] = ({c: n for c, n in lease.items() if n}, beyond)
            plan.dropped[each.database] = each.slot

    def _settle(self, facts: LeaseFacts, plan: Plan) -> None:
        """Tell the ledger which databases are counted here, before their first start. SERVE"""
        said = plan.statement
        present = set()
        for each in facts.slots:
            if not each.term:
                continue
            present.add(each.database)
            if each.term != each.settled or each.database in self._unsettled:
                said.settles[each.database] = each.term
            if each.database in said.settles or each.failed != self._failed.get(each.database, {}):
                said.failed[each.database] = each.failed
        for database in self._failed.keys() - present:
            if not any(each.database == database for each in facts.slots):
                said.failed[database] = {}

    def _want(self, facts: LeaseFacts, rights: Counts, plan: Plan) -> None:
        """Ask for permits for waiting jobs, always for a whole path."""
        said = plan.statement
        hungry: set[str] = set()
        for name, path in facts.paths.items():
            limited = [facts.channels[c] for c in path if c in facts.channels]
            if any(channel.is_closed for channel in limited):
                continue
            hungry.update(c.name + START for c in limited if c.throttle_s)
            if any(c.token and (c.not_before_s or c.rate_is_used_up) for c in limited):
                continue
            lacks = [c for c in limited if c.capacity is not None and min(rights.get(c.name, 0), c.capacity) <= c.held]
            needed = [c.name for c in lacks] + [c.name + START for c in limited if c.throttle_s and not c.token]
            if not needed:
                continue
            hungry.update(needed)
            most = min((c.capacity for c in lacks if c.capacity is not None), default=1)
            waiting = facts.channels[name].waiting if name in facts.channels else most
            said.takes.append((tuple(needed), 1 if any(n.endswith(START) for n in needed) else min(waiting, most)))
        for name, channel in facts.channels.items():
            kept = max(self._floor.get(name, 0), min(channel.reserved, channel.capacity or 0))
            if rights.get(name, 0) < kept:
                said.takes.append(((name,), kept - rights.get(name, 0)))
                hungry.add(name)
        said.hungry = sorted(hungry)
        said.weight = {c: max(1, facts.channels[c.removesuffix(START)].weight) for c in hungry}
        plan.is_news |= hungry != self._hungry
        self._hungry = hungry

    def _give(self, channel: ChannelFacts, rights: Counts, plan: Plan, now_s: float) -> None:
        """Lower our own capacity to what is needed, before telling the ledger. GIVE"""
        name, right = channel.name, rights.get(channel.name, 0)
        held = plan.statement.held.get(name, 0)
        wanted = right
        if name in self.blocked or channel.is_closed:
            wanted = held
        elif name in self.targets:
            wanted = max(held, self.targets[name])
        elif name not in self._hungry and right > held + 1:
            if now_s >= self._spare_since_s.setdefault(name, now_s) + SPARE_S:
                wanted = held + 1
        else:
            self._spare_since_s.pop(name, None)
        surplus = right - max(wanted, held, self._floor.get(name, 0), channel.reserved)
        if surplus > 0:
            rights[name] = right - surplus
            plan.statement.gives[name] = surplus
            self._spare_since_s.pop(name, None)

    def _give_token(self, channel: ChannelFacts, plan: Plan) -> None:
        """Hand over the right to start in a throttled channel, with the earliest time of the next start."""
        token = channel.name + START
        if channel.token and self.targets.get(token, 1) == 0:
            plan.tokens[channel.name] = False
            plan.statement.gives[token] = 1
            plan.statement.not_before_s[token] = channel.not_before_s

    def _least(self, channel: ChannelFacts) -> int:
        """What it should have of a channel, whoever else waits."""
        return max(self._floor.get(channel.name, 0), channel.guaranteed)

    def spare_due_s(self) -> float | None:
        """When the next spare permit is due to be returned."""
        return min((since_s + SPARE_S for since_s in self._spare_since_s.values()), default=None)

    @property
    def is_hungry(self) -> bool:
        """Whether jobs here wait for permits that others hold."""
        return bool(self._hungry)

    # -- what was answered ---------------------------------------------------------------------------------------

    def lost(self) -> None:
        """Note that the session was lost, with the effect of the last statement unknown."""
        self.registered = False
        self.targets, self.blocked, self._failed = {}, set(), {}

    def take_in(self, said: Statement, answer: Answer) -> None:
        """Remember the ledger's answer."""
        if not answer.ok:
            self.lost()
            return
        self.registered = True
        self.targets, self.blocked = dict(answer.targets), set(answer.blocked)
        self._unsettled = set(answer.unsettled)
        for database, counts in said.failed.items():
            self._failed[database] = dict(counts)
            if not counts:
                del self._failed[database]


def usable(channel: ChannelFacts, right: int, token: bool, targets: Counts, blocked: set[str]) -> int:
    """The local capacity: nothing beyond what is leased, and in a throttled channel no start without its token."""
    if channel.name in blocked or (channel.throttle_s and not token):
        return 0
    if channel.capacity is None:
        return -1
    return min(right, channel.capacity, targets.get(channel.name, right))


def _tell_starts(channel: ChannelFacts, said: Statement) -> None:
    """Those of the last moments count from now: their requests may still be on their way."""
    if channel.token and channel.starts_s:
        on_their_way_s = min(ON_THEIR_WAY_S, channel.throttle_s / 20)
        ages_s = [0.0 if age_s < on_their_way_s else age_s for age_s in channel.starts_s]
        said.starts_s[channel.name + START] = ages_s


def _rights(facts: LeaseFacts) -> Counts:
    rights = {c.name: c.right for c in facts.channels.values() if c.capacity is not None and c.right}
    return rights | {c.name + START: 1 for c in facts.channels.values() if c.token}


def _held(facts: LeaseFacts) -> Counts:
    return {c.name: c.held for c in facts.channels.values() if c.capacity is not None and c.held}


def _capacity(facts: LeaseFacts) -> tuple[Counts, Counts]:
    limited = {c.name: c.capacity for c in facts.channels.values() if c.capacity is not None}
    throttled = {c.name + START: c.throttle_s for c in facts.channels.values() if c.throttle_s}
    return limited | dict.fromkeys(throttled, 1), throttled
