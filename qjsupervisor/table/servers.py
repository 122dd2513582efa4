"""The health of servers that several databases depend on: one record per address, in the shared table.

A server is an Odoo that jobs are sent to, or a PostgreSQL. The worker that finds it unreachable marks it down for all,
with one store of `Server.STATE`; from then on one worker, the prober, probes it, at the cost of no job, and marks it
up for all. Faults of a single database (a wrong dbfilter) are not recorded here. Words, invariants and repair:
layout.py.
A failure that may be due to the server or to one database (a missing answer, a proxy's 502) raises a doubt: the next
probe decides, and the database waits for that verdict.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

from ..states import ServerVerdict, TargetState
from .core import TableCore
from .layout import Header, Server
from .words import bits

_NS = 1_000_000_000
_DOWN = int(TargetState.DOWN)
#: First and longest pause between probes of a server that is down; doubled each time.
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = _NS // 2, 2 * _NS
#: A prober that has not begun a probe for this long, perhaps because it is stopped, is replaced. One that died is
#: replaced at once.
LEASE_NS = 20 * _NS


class ServerHealth:
    """One server, for the worker of one slot. Reads without the lock; changes are rare."""

    def __init__(self, core: TableCore, slot: int, number: int) -> None:
        self._core = core
        self._words = core.words
        self._slot = slot
        self._base = core.server_base(number)

    # -- reading -----------------------------------------------------------------------------------------

    @property
    def state(self) -> TargetState:
        """The state; UNKNOWN until something has worked."""
        return TargetState(self._core.words[self._base + Server.STATE])

    @property
    def is_down(self) -> bool:
        """Whether nothing may be sent there."""
        return self._words[self._base + Server.STATE] == _DOWN

    @property
    def reason(self) -> str:
        """Why it is down; '' if it is not."""
        base = self._base
        return self._core.text(base + self._core.layout.server_reason, self._core.words[base + Server.REASON_LENGTH])

    @property
    def unanswered(self) -> int:
        """Requests of all databases dropped since its last answer, because their jobs were over without one."""
        return self._words[self._base + Server.UNANSWERED]

    @property
    def since_s(self) -> float:
        """Since when it is up or down, in monotonic seconds."""
        return self._words[self._base + Server.SINCE_NS] / _NS

    def succeeded_since(self, moment_ns: int) -> bool:
        """Whether a job of any database ran there after that time."""
        return self._core.words[self._base + Server.SUCCESS_NS] > moment_ns

    def probed_since(self, moment_ns: int) -> bool:
        """Whether a probe begun after that time has ended, i.e. there is a verdict."""
        return self._core.words[self._base + Server.PROBED_NS] >= moment_ns or self.is_down

    def probe_due_s(self) -> float | None:
        """When this worker should probe, or check whether it must; None: nothing to do."""
        words, base = self._words, self._base
        prober = words[base + Server.PROBER]
        if not prober and words[base + Server.STATE] != _DOWN:  # on the path of each turn: avoid further calls
            if words[base + Server.DOUBT_NS] <= words[base + Server.PROBED_NS]:
                return None
        elif prober == self._slot + 1:
            return words[base + Server.RETRY_NS] / 1e9
        return words[base + Server.LEASE_NS] / 1e9  # if nobody probes: when anybody may

    def _is_wanted(self) -> bool:
        words, base = self._core.words, self._base
        return self.is_down or words[base + Server.DOUBT_NS] > words[base + Server.PROBED_NS]

    # -- reporting ---------------------------------------------------------------------------------------

    def succeeded(self, now_ns: int) -> None:
        """A job ran there."""
        words, base = self._core.words, self._base
        words[base + Server.SUCCESS_NS] = now_ns
        if words[base + Server.STATE] == TargetState.UNKNOWN:
            with self._core.locked(self._slot):
                if words[base + Server.STATE] == TargetState.UNKNOWN:
                    words[base + Server.STATE] = TargetState.UP

    def let_go(self) -> None:
        """Count one more dropped request."""
        with self._core.locked(self._slot):
            self._words[self._base + Server.UNANSWERED] += 1

    def answered(self) -> None:
        """A job's request was answered; need not be called for each."""
        if self._words[self._base + Server.UNANSWERED]:
            with self._core.locked(self._slot):
                self._words[self._base + Server.UNANSWERED] = 0

    def failed(self, reason: str, began_ns: int) -> bool:
        """An attempt begun then could not reach it. Returns True if this marks it down."""
        with self._core.locked(self._slot) as now_ns:
            words, base = self._core.words, self._base
            if self.is_down or began_ns < words[base + Server.SINCE_NS]:
                return False  # already down, or the attempt began before it came back
            self._take_down(reason, now_ns)
        return True

    def doubt(self) -> int:
        """Something failed that may be its fault: have a probe decide. Returns the time, for `probed_since`."""
        with self._core.locked(self._slot) as now_ns:
            words, base = self._core.words, self._base
            doubted_ns = words[base + Server.DOUBT_NS] = max(now_ns, words[base + Server.PROBED_NS] + 1)
            if not words[base + Server.PROBER]:
                self._appoint(now_ns)
        return doubted_ns

    def take_probe(self) -> bool:
        """Whether this worker must probe now."""
        due_s = self.probe_due_s()
        if due_s is None or due_s > time.monotonic_ns() / 1e9:
            return False
        with self._core.locked(self._slot) as now_ns:
            due_s = self.probe_due_s()
            if due_s is None or due_s > now_ns / 1e9:
                return False
            self._appoint(now_ns)
        return True

    def probed(self, began_ns: int, reason: str) -> ServerVerdict:
        """A probe begun then has ended; `reason`: '' for success, or why it failed."""
        with self._core.locked(self._slot) as now_ns:
            words, base = self._core.words, self._base
            if words[base + Server.PROBER] != self._slot + 1:
                return ServerVerdict.NOTHING  # another worker probes now
            words[base + Server.PROBED_NS] = max(words[base + Server.PROBED_NS], began_ns)
            verdict = self._judge(began_ns, reason, now_ns)
            if not self._is_wanted():
                words[base + Server.PROBER] = 0
            self._wake_users()
        return verdict

    def recover(self) -> bool:
        """It was reached, whoever the prober is. Returns True if it was down."""
        if not self.is_down:
            return False
        with self._core.locked(self._slot) as now_ns:
            was_down = self.state is TargetState.DOWN
            if was_down:
                bring_back(self._core, self._base, now_ns)
                self._wake_users()
        return was_down

    def postpone(self) -> None:
        """This worker lacks the resources for a probe: in a moment any worker may try, including this one."""
        with self._core.locked(self._slot) as now_ns:
            if dismiss(self._core, self._base, self._slot):
                self._core.words[self._base + Server.LEASE_NS] = now_ns + FIRST_PAUSE_NS
                self._wake_users()

    def release(self) -> None:
        """This worker is stopping: let another one probe."""
        if self._core.words[self._base + Server.PROBER] == self._slot + 1:
            with self._core.locked(self._slot):
                dismiss(self._core, self._base, self._slot)
                self._wake_users()

    # -- with the lock held ------------------------------------------------------------------------------

    def _judge(self, began_ns: int, reason: str, now_ns: int) -> ServerVerdict:
        words, base = self._core.words, self._base
        if not reason:
            was_down = self.is_down
            words[base + Server.RETRY_NS] = now_ns  # a later doubt is probed at once
            if was_down:
                bring_back(self._core, base, now_ns)
            return ServerVerdict.CAME_BACK if was_down else ServerVerdict.NOTHING
        if not self.is_down:
            if words[base + Server.SUCCESS_NS] > began_ns:
                return ServerVerdict.NOTHING
            self._take_down(reason, now_ns)
            return ServerVerdict.WENT_DOWN
        words[base + Server.FAILURES] += 1
        pause_ns = min(LONGEST_PAUSE_NS, FIRST_PAUSE_NS << min(10, words[base + Server.FAILURES] - 1))
        words[base + Server.RETRY_NS] = now_ns + pause_ns
        self._put_reason(reason)
        return ServerVerdict.NOTHING

    def _take_down(self, reason: str, now_ns: int) -> None:
        words, base = self._core.words, self._base
        self._put_reason(reason)
        words[base + Server.FAILURES] = 1
        words[base + Server.SINCE_NS] = now_ns
        self._appoint(now_ns)
        words[base + Server.RETRY_NS] = now_ns + FIRST_PAUSE_NS
        words[base + Server.STATE] = TargetState.DOWN

    def _appoint(self, now_ns: int) -> None:
        """Make this worker the prober."""
        words, base = self._core.words, self._base
        words[base + Server.LEASE_NS] = now_ns + LEASE_NS
        words[base + Server.RETRY_NS] = now_ns
        words[base + Server.PROBER] = self._slot + 1

    def _put_reason(self, reason: str) -> None:
        base = self._base
        self._core.put_text(base + self._core.layout.server_reason, base + Server.REASON_LENGTH, reason)

    def _wake_users(self) -> None:
        wake_users(self._core, self._base)


def attach_servers(core: TableCore, slot: int, names: Sequence[str]) -> list[ServerHealth]:
    """Set the servers a slot depends on. A server the table has no room for gets a private record.

    The lock is held.
    """
    detach_servers(core, slot)
    found = [_find(core, name) for name in names]
    for number in found:
        if number is not None:
            core.put_bit(core.server_base(number) + core.layout.server_users, slot, True)
    alone = [name for name, number in zip(names, found, strict=True) if number is None]
    own = iter(private_servers(alone) if alone else ())
    return [next(own) if number is None else ServerHealth(core, slot, number) for number in found]


def private_servers(names: Sequence[str]) -> list[ServerHealth]:
    """Private health records, shared with nobody."""
    core = TableCore(1, 1, servers=len(names))
    numbers = [_find(core, name) for name in names]
    return [ServerHealth(core, 0, number) for number in numbers if number is not None]


def detach_servers(core: TableCore, slot: int) -> None:
    """A slot depends on no server any more; the lock is held."""
    for number in range(core.words[Header.USED_SERVERS]):
        base = core.server_base(number)
        dismiss(core, base, slot)
        core.put_bit(base + core.layout.server_users, slot, False)


def dismiss(core: TableCore, base: int, slot: int) -> bool:
    """If this slot's worker is the prober, dismiss it: the next one to check takes over. The lock is held."""
    if core.words[base + Server.PROBER] != slot + 1:
        return False
    core.words[base + Server.LEASE_NS] = 0
    core.words[base + Server.PROBER] = 0
    return True


def dismiss_dead(core: TableCore, slot: int) -> None:
    """The worker of a slot has died: dismiss it everywhere; the caller wakes all."""
    for number in range(core.words[Header.USED_SERVERS]):
        dismiss(core, core.server_base(number), slot)


def wake_users(core: TableCore, base: int) -> None:
    """Wake the workers that depend on a server."""
    for slot in bits(core.read_bitmap(base + core.layout.server_users, core.slots)):
        core.wake(slot)


def bring_back(core: TableCore, base: int, now_ns: int) -> None:
    """A server is up again; the lock is held."""
    core.words[base + Server.STATE] = TargetState.UP
    core.words[base + Server.SINCE_NS] = now_ns
    core.words[base + Server.PROBER] = 0
    core.words[base + Server.FAILURES] = core.words[base + Server.REASON_LENGTH] = 0


def _find(core: TableCore, name: str) -> int | None:
    """The number of a server's record, created if necessary; None if there is no room."""
    words = core.words
    digest, unused = zlib.crc32(name.encode("utf-8", "replace")), None
    for number in range(words[Header.USED_SERVERS]):
        base = core.server_base(number)
        if words[base + Server.DIGEST] == digest and core.server_name(base) == name:
            return number
        if unused is None and not core.read_bitmap(base + core.layout.server_users, core.slots):
            unused = number
    if words[Header.USED_SERVERS] < core.layout.servers:
        unused = words[Header.USED_SERVERS]
    if unused is None or len(name.encode()) > core.layout.server_name_bytes:
        return None
    base = core.server_base(unused)
    words[base + Server.DIGEST] = -1
    for word in range(base, base + Server.DIGEST):
        words[word] = 0
    words[base + Server.STATE] = TargetState.UNKNOWN
    core.put_text(base + core.layout.server_name, base + Server.NAME_LENGTH, name)
    words[base + Server.DIGEST] = digest
    words[Header.USED_SERVERS] = max(words[Header.USED_SERVERS], unused + 1)
    return unused
