"""The shared table's lock: taking it, what a dead holder left, whether anything may start, and waking others.

Decides nothing: grants.py chooses who gets a permit; semaphore.py says what a worker or the master may do. What every
change keeps true, whenever the lock is free and Header.DIRTY is 0: derived.py.
If the lock's holder dies between two stores, only the truth (HELD, FAILED, the demand orders) is certain. Whoever
takes the lock next repairs (repair.py) before it looks at anything else, and wakes all.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .derived import DerivedWords
from .layout import NEVER_NS, WORD, Channel, Header, Slot
from .mutex import Acquired, RobustMutex
from .repair import repair
from .stuck_holder import HolderWatch

_NO, _OWNER_DIED = Acquired.NO, Acquired.OWNER_DIED
#: How long a worker waits for the lock before it examines the holder.
LOCK_SLICE_S = 0.02

# os.eventfd_write lets other threads run, which may keep the interpreter, and with it the table's lock, for 5 ms.
_eventfd_write = ctypes.PyDLL(None).eventfd_write
_eventfd_write.argtypes = [ctypes.c_int, ctypes.c_uint64]


class TableCore(DerivedWords):
    """Words and lock of the shared table."""

    def __init__(self, slots: int, channels: int, servers: int = 0, *, leased: bool = False) -> None:
        super().__init__(slots, channels, servers)
        #: A cluster's broker decides how much of each channel may be used, and until when; see leases.py.
        self.leased = leased
        self.broker_wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if leased else -1
        self.words[Header.LEASE_UNTIL_NS] = 0 if leased else (1 << 63) - 1
        self.words[Header.NEXT_OPEN_NS] = NEVER_NS
        self.mutex = RobustMutex(self.mapping, self.layout.mutex * WORD)
        #: One eventfd per slot, written under the lock by whoever grants something to that database.
        self.wakeups = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots)]
        self._holder_watch = HolderWatch(lambda: (self.mutex.owner(), self.words[Header.SEQUENCE]))

    def may_start(self, now_ns: int) -> bool:
        """Whether anything may start: the start barrier is open, and the lease is valid or floors are in force."""
        is_leased = now_ns < self.words[Header.LEASE_UNTIL_NS] or self.words[Header.FLOORED]
        return bool(self.words[Header.START_BARRIER]) and bool(is_leased)

    def use_floors(self, now_ns: int) -> None:
        """With the lock, after the lease has ended: limit each channel to its floor from now on.

        The mark is stored last, so that after a death in between the next one does it again.
        """
        words = self.words
        if words[Header.FLOORED] or not words[Header.FLOORS]:
            return
        for channel, limits in enumerate(self.tree().limits):
            if limits is not None:
                base = self.channel_base(channel)
                words[base + Channel.CAPACITY] = words[base + Channel.FLOOR]
                self.settle(channel, now_ns)
        words[Header.FLOORED] = 1

    def wake_broker(self) -> None:
        """Report that something changed which the coordinator may need to know."""
        _eventfd_write(self.broker_wakeup, 1)

    def enter(self, now_ns: int) -> bool:
        """Try to take the lock without waiting; repairs first what a dead holder left."""
        return self._entered(self.mutex.acquire(0), now_ns)

    def enter_waiting(self, slot: int | None) -> int:
        """Take the lock, as a worker or the broker (slot None). Returns the time (monotonic nanoseconds).

        Writes the heartbeat while it waits, and deals with a stopped holder.
        """
        now_ns = time.monotonic_ns()
        while not self._entered(self.mutex.acquire(LOCK_SLICE_S), now_ns):
            now_ns = time.monotonic_ns()
            heartbeat = Header.BROKER_HEARTBEAT_NS if slot is None else self.slot_base(slot) + Slot.HEARTBEAT_NS
            self.words[heartbeat] = now_ns
            self._holder_watch.look()
        return now_ns

    @contextmanager
    def locked(self, slot: int | None) -> Iterator[int]:
        """Hold the lock for the body, which gets the time it was taken. See enter_waiting."""
        now_ns = self.enter_waiting(slot)
        try:
            yield now_ns
        except BaseException:  # whatever it is, keeping the lock would stop all databases
            self.abandon()
            raise
        self.leave()

    def _entered(self, got: Acquired, now_ns: int) -> bool:
        if got is _NO:
            return False
        words = self.words
        words[Header.SEQUENCE] += 1
        if got is _OWNER_DIED or words[Header.DIRTY]:
            self._repair(now_ns)
        words[Header.DIRTY] = 1
        return True

    def _repair(self, now_ns: int) -> None:
        repair(self, now_ns)
        self.wake_all()

    def leave(self) -> None:
        """Release the lock; everything is consistent."""
        self.words[Header.DIRTY] = 0
        self.mutex.release()

    def abandon(self) -> None:
        """Release the lock after a failure: the mark stays, so the next holder repairs."""
        self.mutex.release()

    def wake(self, slot: int) -> None:
        """Wake a slot's worker, at once or when it next polls."""
        _eventfd_write(self.wakeups[slot], 1)

    def wake_all(self) -> None:
        """Wake every worker."""
        for slot in range(self.slots):
            if self.words[self.slot_base(slot) + Slot.PID]:
                self.wake(slot)
