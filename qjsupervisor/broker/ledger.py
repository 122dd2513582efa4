"""The ledger for sharing one capacity among several supervisors: what each member may use of each channel. Pure.

The coordinator keeps one `Ledger` per cluster, as a document. Members change it one statement at a time, by the rules
of rules.py. Quantities are permits by channel (`Counts`). A throttled channel has a second one, `root.x#start`, of
capacity 1: its holder may start jobs there, and hands over with it the earliest time of the next start.

Of a member
    lease, excess        what it may use; and running jobs that it found beyond that, which nobody may claim
    floor                of its lease, and then of its limbo: what it may use while it is cut off. RESERVE
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

from ..errors import QJSupervisorError
from .counts import Counts

#: Suffix of a throttled channel's name: the right to start there.
START = "#start"
#: The format of the document. It grows whenever supervisors of an older version would misread or drop something.
FORMAT = 1


class LedgerError(QJSupervisorError):
    """The document cannot be used by this version; the message says what to do, and the caller adds where."""


@dataclass
class MemberEntry:
    """One supervisor, as the ledger has it."""

    session: int = 0
    expires_s: float = 0.0
    valid: bool = False
    lease: Counts = field(default_factory=dict)
    excess: Counts = field(default_factory=dict)
    limbo: Counts = field(default_factory=dict)
    limbo_over: Counts = field(default_factory=dict)
    floor: Counts = field(default_factory=dict)
    #: The floor that is configured.
    floor_wanted: Counts = field(default_factory=dict)
    #: What it should have of each channel, whoever else waits; its floor at least.
    least: Counts = field(default_factory=dict)
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

    members: dict[str, MemberEntry] = field(default_factory=dict)
    left: dict[str, Counts] = field(default_factory=dict)
    left_over: dict[str, Counts] = field(default_factory=dict)
    left_since_s: dict[str, float] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=dict)
    #: Failed jobs by database and sequential channel.
    failed: dict[str, Counts] = field(default_factory=dict)
    #: For throttled channels: the throttle in seconds, and the earliest time of the next start.
    throttle_s: Counts = field(default_factory=dict)
    not_before_s: dict[str, float] = field(default_factory=dict)
    #: For channels with a rate: when the last starts were, as far as members have told, the oldest first.
    starts_s: dict[str, list[float]] = field(default_factory=dict)
    #: The coordinator's start time and timeline, as of the last statement.
    incarnation: str = ""
    barrier_until_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The document that the coordinator stores."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Ledger:
        """Read a stored document; {} is a new ledger. Raises LedgerError."""
        if document and (why := refusal(document.get("format"))):
            raise LedgerError(why)
        content = {name: value for name, value in document.items() if name != "format"}
        try:
            members = {name: MemberEntry(**each) for name, each in content.get("members", {}).items()}
            return cls(**{**content, "members": members})
        except (TypeError, AttributeError) as error:
            raise LedgerError(
                f"its document is damaged ({error}): stop all supervisors of the cluster, then delete its row"
            ) from error


def refusal(number: object) -> str:
    """Why a document of this format (None: it has no number) cannot be used; '' if it can."""
    if number == FORMAT:
        return ""
    if number is None or (isinstance(number, int) and number < FORMAT):
        return (
            f"its format is {number or 'older than 1'}, and this version needs {FORMAT}: install this version for all"
            " supervisors of the cluster, stop the older ones, and run `qjsupervisor cluster init`"
        )
    return (
        f"its format is {number}, of a newer version, and this one knows {FORMAT}: install the newer version here too"
    )


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
    #: register: the floor that it has; change: the one that it is to have, as far as its lease goes.
    floor: Counts = field(default_factory=dict)
    least: Counts = field(default_factory=dict)
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
    #: For tokens of channels with a rate, which it has or returns: seconds since each of the last starts.
    starts_s: dict[str, list[float]] = field(default_factory=dict)
    #: (channels of a path, tokens included; how many at most).
    takes: list[tuple[tuple[str, ...], int]] = field(default_factory=list)


@dataclass
class Answer:
    """The ledger's answer."""

    #: False: the session is no longer registered, and nothing was done.
    ok: bool = False
    #: register: all that it may use. change: what it gained.
    got: Counts = field(default_factory=dict)
    #: The floor that the ledger knows of.
    floor: Counts = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    #: Databases with permits that wait for their new server.
    unsettled: list[str] = field(default_factory=list)
    #: What it should shrink or grow to, in channels where members wait for permits.
    targets: Counts = field(default_factory=dict)
    #: Sequential channels that another member's failed job keeps closed.
    blocked: list[str] = field(default_factory=list)
    #: For tokens that it gained: seconds until the next start is allowed.
    not_before_s: dict[str, float] = field(default_factory=dict)
    #: The same of a rate: seconds since each of the last starts.
    starts_s: dict[str, list[float]] = field(default_factory=dict)
    #: Whether to notify the others: something they wait for is free, or somebody waits for what they hold.
    notify: bool = False
    #: Members and unserved databases that were forgotten together with permits: (who, permits).
    forgotten: list[tuple[str, Counts]] = field(default_factory=list)
    #: Channels for which members have different capacities: channel -> {host:pid: capacity}.
    differs: dict[str, Counts] = field(default_factory=dict)


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


def beyond(ledger: Ledger, channel: str, own: int | None = None) -> int:
    """Permits beyond the capacity: it was lowered, or a ledger that lost history gave some away. BEYOND"""
    capacity = min((n for n in (capacity_of(ledger, channel), own) if n is not None), default=None)
    return 0 if capacity is None else max(0, used(ledger, channel) - capacity)


def differences(ledger: Ledger) -> dict[str, Counts]:
    """Channels for which the members' configurations differ."""
    valid = [member for member in ledger.members.values() if member.valid]
    found: dict[str, Counts] = {}
    for channel in sorted({channel for member in valid for channel in member.capacity}):
        said = {f"{m.host}:{m.pid}": m.capacity[channel] for m in valid if channel in m.capacity}
        if len(set(said.values())) > 1:
            found[channel] = said
    return found


def unassigned(ledger: Ledger, channel: str) -> int:
    """Permits that no valid member holds but that are not free either."""
    return used(ledger, channel) - sum(m.lease.get(channel, 0) for m in ledger.members.values() if m.valid)


def blocked_channels(ledger: Ledger, but: Iterable[str] = ()) -> set[str]:
    """Sequential channels with a failed job in any database except these."""
    return {c for database, counts in ledger.failed.items() if database not in but for c, n in counts.items() if n}


def note_not_before(ledger: Ledger, channel: str, moment_s: float) -> None:
    """No job starts in a throttled channel before that time."""
    ledger.not_before_s[channel] = max(moment_s, ledger.not_before_s.get(channel, 0.0))
