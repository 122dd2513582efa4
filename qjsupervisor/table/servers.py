"""The health of a server that several databases depend on: one for each address, in the shared table.

A server is an Odoo that jobs are sent to, or a PostgreSQL. Whoever finds that it cannot be reached takes it down for
all, with one store of `Server.STATE`; from then on one worker, the prober, tries it again and again, at no job's cost,
and brings it back for all. What is the fault of one database (a wrong dbfilter) is not told here. Words, invariants and
repair: layout.py.

A failure that may be of the server or of one database (an answer that did not come, a proxy's 502) makes it doubtful:
the next probe decides, and the database waits for that verdict.
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
#: Between two probes of a server that is down; the first pause, doubled each time up to the last.
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = _NS // 2, 2 * _NS
#: A prober that has not begun a probe for so long is replaced: it is stopped, perhaps. One that died is replaced at
#: once.
LEASE_NS = 20 * _NS


class ServerHealth:
    """One server as the worker of one slot uses it. Reads without the lock; changes are rare."""

    def __init__(self, core: TableCore, slot: int, number: int) -> None:
        self._core = core
        self._words = core.words
        self._slot = slot
        self._base = core.server_base(number)

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def state(self) -> TargetState:
        """UNKNOWN until something worked."""
        return TargetState(self._core.words[self._base + Server.STATE])

    @property
    def is_down(self) -> bool:
        """Whether nothing is to be sent there."""
        return self._words[self._base + Server.STATE] == _DOWN

    @property
    def reason(self) -> str:
        """Why it is down; '' unless it is."""
        base = self._base
        return self._core.text(base + self._core.layout.server_reason, self._core.words[base + Server.REASON_LENGTH])

    @property
    def unanswered(self) -> int:
        """Requests of all databases that were let go since its last answer: their jobs were over, no answer came."""
        return self._words[self._base + Server.UNANSWERED]

    @property
    def since_s(self) -> float:
        """Monotonic: since when it is up or down."""
        return self._words[self._base + Server.SINCE_NS] / _NS

    def succeeded_since(self, moment_ns: int) -> bool:
        """Whether a job of any database was run there after that moment."""
        return self._core.words[self._base + Server.SUCCESS_NS] > moment_ns

    def probed_since(self, moment_ns: int) -> bool:
        """Whether a probe that began after that moment has ended: the verdict is there."""
        return self._core.words[self._base + Server.PROBED_NS] >= moment_ns or self.is_down

    def probe_due_s(self) -> float | None:
        """When this worker should probe, or look whether it has to; None: nothing to do for it."""
        words, base = self._words, self._base
        prober = words[base + Server.PROBER]
        if not prober and words[base + Server.STATE] != _DOWN:  # asked in each turn: no call more than need be
            if words[base + Server.DOUBT_NS] <= words[base + Server.PROBED_NS]:
                return None
        elif prober == self._slot + 1:
            return words[base + Server.RETRY_NS] / 1e9
        return words[base + Server.LEASE_NS] / 1e9  # where nobody probes: when anybody may

    def _is_wanted(self) -> bool:
        words, base = self._core.words, self._base
        return self.is_down or words[base + Server.DOUBT_NS] > words[base + Server.PROBED_NS]

    # -- telling -----------------------------------------------------------------------------------------

    def succeeded(self, now_ns: int) -> None:
        """A job was run there."""
        words, base = self._core.words, self._base
        words[base + Server.SUCCESS_NS] = now_ns
        if words[base + Server.STATE] == TargetState.UNKNOWN:
            with self._core.locked(self._slot):
                if words[base + Server.STATE] == TargetState.UNKNOWN:
                    words[base + Server.STATE] = TargetState.UP

    def let_go(self) -> None:
        """One more of these."""
        with self._core.locked(self._slot):
            self._words[self._base + Server.UNANSWERED] += 1

    def answered(self) -> None:
        """A job's request was answered. Need not be told of each."""
        if self._words[self._base + Server.UNANSWERED]:
            with self._core.locked(self._slot):
                self._words[self._base + Server.UNANSWERED] = 0

    def failed(self, reason: str, began_ns: int) -> bool:
        """It could not be reached by what began then. True: it goes down by that."""
        with self._core.locked(self._slot) as now_ns:
            words, base = self._core.words, self._base
            if self.is_down or began_ns < words[base + Server.SINCE_NS]:
                return False  # known, or from before it came back
            self._take_down(reason, now_ns)
        return True

    def doubt(self) -> int:
        """Something failed that may be its fault: a probe is to decide. Returns the moment, for `probed_since`."""
        with self._core.locked(self._slot) as now_ns:
            words, base = self._core.words, self._base
            doubted_ns = words[base + Server.DOUBT_NS] = max(now_ns, words[base + Server.PROBED_NS] + 1)
            if not words[base + Server.PROBER]:
                self._appoint(now_ns)
        return doubted_ns

    def take_probe(self) -> bool:
        """Whether this worker is the one to probe, now."""
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
        """A probe that began then has ended: '' well, or why it failed."""
        with self._core.locked(self._slot) as now_ns:
            words, base = self._core.words, self._base
            if words[base + Server.PROBER] != self._slot + 1:
                return ServerVerdict.NOTHING  # somebody else does it now
            words[base + Server.PROBED_NS] = max(words[base + Server.PROBED_NS], began_ns)
            verdict = self._judge(began_ns, reason, now_ns)
            if not self._is_wanted():
                words[base + Server.PROBER] = 0
            self._wake_users()
        return verdict

    def recover(self) -> bool:
        """It was reached, whoever was to probe it. True: it was down until now."""
        if not self.is_down:
            return False
        with self._core.locked(self._slot) as now_ns:
            was_down = self.state is TargetState.DOWN
            if was_down:
                bring_back(self._core, self._base, now_ns)
                self._wake_users()
        return was_down

    def postpone(self) -> None:
        """This worker lacks what a probe takes: in a moment anybody may try, this one too."""
        with self._core.locked(self._slot) as now_ns:
            if dismiss(self._core, self._base, self._slot):
                self._core.words[self._base + Server.LEASE_NS] = now_ns + FIRST_PAUSE_NS
                self._wake_users()

    def release(self) -> None:
        """This worker is on its way out: somebody else is to probe."""
        if self._core.words[self._base + Server.PROBER] == self._slot + 1:
            with self._core.locked(self._slot):
                dismiss(self._core, self._base, self._slot)
                self._wake_users()

    # -- inside the lock ---------------------------------------------------------------------------------

    def _judge(self, began_ns: int, reason: str, now_ns: int) -> ServerVerdict:
        words, base = self._core.words, self._base
        if not reason:
            was_down = self.is_down
            words[base + Server.RETRY_NS] = now_ns  # a doubt that is younger is looked into at once
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
        """This worker is the prober now."""
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
    """The servers that a slot depends on from now on. One that the table has no room for is the worker's own business.

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
    """Healths that nobody shares."""
    core = TableCore(1, 1, servers=len(names))
    numbers = [_find(core, name) for name in names]
    return [ServerHealth(core, 0, number) for number in numbers if number is not None]


def detach_servers(core: TableCore, slot: int) -> None:
    """A slot depends on nothing any more; the lock is held."""
    for number in range(core.words[Header.USED_SERVERS]):
        base = core.server_base(number)
        dismiss(core, base, slot)
        core.put_bit(base + core.layout.server_users, slot, False)


def dismiss(core: TableCore, base: int, slot: int) -> bool:
    """If the worker of this slot is the prober, there is none now: the next one that looks is. The lock is held."""
    if core.words[base + Server.PROBER] != slot + 1:
        return False
    core.words[base + Server.LEASE_NS] = 0
    core.words[base + Server.PROBER] = 0
    return True


def dismiss_dead(core: TableCore, slot: int) -> None:
    """The worker of a slot has died; who takes its table lock afterwards wakes all."""
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
    """The number of a server's record, a new one if need be; None: there is no room."""
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
