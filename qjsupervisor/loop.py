"""The event loop of the master, the workers and the monitor: ready descriptors and timers.

Single-threaded. Each callback receives the current monotonic second and must not block. If a callback removes or
changes a registration, events already pending for the old one are dropped, even if its descriptor number is reused.

    register(source, events, callback)    until unregister(source); modify(source, events, callback)
    call_at(monotonic_s, callback)        once; returns a handle with cancel()
    Alarm(timers, callback)               a deadline that can move: set(at_s), clear()
    Deadline(timers, callback)            an alarm that remembers that it rang (is_due), for who looks at it in turns

A callback that raises ends the loop, unless `on_error` is given: then it receives the exception, the loop continues,
and the callback is retried after RETRY_S if it is still registered.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import time
from collections.abc import Callable
from typing import Any

Callback = Callable[[float], None]

#: Pause before a callback that raised is called again, so that a persistent error cannot spin the loop.
RETRY_S = 1.0
#: Cancelled timers allowed in the heap before it is rebuilt.
_SLACK = 64


class Timer:
    """A scheduled call, until it is made or cancelled."""

    __slots__ = ("_timers", "at_s", "callback")

    def __init__(self, timers: Timers, at_s: float, callback: Callback) -> None:
        self._timers = timers
        self.at_s = at_s
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Cancel the call; no effect once it has been made."""
        if self.callback is not None:
            self.callback = None
            self._timers.note_cancelled()


class Timers:
    """Scheduled calls, made in order of time. Does not read the clock."""

    def __init__(self, on_error: Callable[[Exception], None] | None = None) -> None:
        self._on_error = on_error
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0

    def call_at(self, at_s: float, callback: Callback) -> Timer:
        """Call once at this monotonic second, or as soon as possible after it."""
        timer = Timer(self, at_s, callback)
        self._push(at_s, timer)
        return timer

    @property
    def kept(self) -> int:
        """How many timers are in memory, including cancelled ones."""
        return len(self._heap)

    def next_s(self) -> float:
        """When the next timer is due; infinity if there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else math.inf

    def run_due(self, now_s: float) -> None:
        """Run the timers that are due. One added by a callback waits for the next turn, whatever its time."""
        due: list[Timer] = []
        while self.next_s() <= now_s:
            due.append(heapq.heappop(self._heap)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is None:  # cancelled by an earlier callback of this turn; no longer in the heap
                self._cancelled -= 1
            elif not self.call(callback, now_s):
                timer.callback = callback  # the same handle, so that it can still be cancelled
                self._push(now_s + RETRY_S, timer)

    def note_cancelled(self) -> None:
        """Count a cancelled timer that is still in the heap; called by Timer."""
        self._cancelled += 1
        if self._cancelled > _SLACK + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _push(self, at_s: float, timer: Timer) -> None:
        timer.at_s = at_s
        heapq.heappush(self._heap, (at_s, next(self._numbers), timer))

    def call(self, callback: Callback, now_s: float) -> bool:
        """Call now. False if it raised and `on_error` took the exception."""
        if self._on_error is None:
            callback(now_s)
            return True
        try:
            callback(now_s)
        except Exception as error:  # noqa: BLE001  (whatever it is: the master must survive it)
            self._on_error(error)
            return False
        return True


class Alarm:
    """One deadline that can be set, moved and cleared, with at most one call pending."""

    __slots__ = ("_callback", "_timer", "_timers", "at_s")

    def __init__(self, timers: Timers, callback: Callback) -> None:
        self._timers = timers
        self._callback = callback
        self._timer: Timer | None = None
        #: Infinity if not set.
        self.at_s = math.inf

    def set(self, at_s: float) -> None:
        """Move the deadline to `at_s`; infinity clears it."""
        if at_s == self.at_s < math.inf:
            return
        self.clear()
        if at_s < math.inf:
            self.at_s = at_s
            self._timer = self._timers.call_at(at_s, self._ring)

    def set_earlier(self, at_s: float) -> None:
        """Move the deadline to `at_s`, unless it is already earlier."""
        self.set(min(self.at_s, at_s))

    def clear(self) -> None:
        """Cancel the deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.at_s = math.inf

    def _ring(self, now_s: float) -> None:
        self.at_s = math.inf
        self._callback(now_s)


class Deadline(Alarm):
    """An alarm that stays due after it rang, until it is set or cleared."""

    __slots__ = ("is_due",)

    def __init__(self, timers: Timers, callback: Callback) -> None:
        super().__init__(timers, callback)
        self.is_due = False

    def set(self, at_s: float) -> None:
        """As Alarm.set."""
        self.is_due = False
        super().set(at_s)

    def set_earlier(self, at_s: float) -> None:
        """As Alarm.set_earlier; one that rang already stays due."""
        if at_s < self.at_s and not self.is_due:
            self.set(at_s)

    def set_if_idle(self, at_s: float) -> None:
        """Ring at this moment, unless it is to ring already, or rang."""
        if self.at_s == math.inf and not self.is_due:
            self.set(at_s)

    def clear(self) -> None:
        """Do not ring; what rang is not due any more."""
        self.is_due = False
        super().clear()

    def ring(self) -> None:
        """It is due now; nobody is called."""
        self.clear()
        self.is_due = True

    def _ring(self, now_s: float) -> None:
        self.is_due = True
        super()._ring(now_s)


class _Registration:
    """What to call when a descriptor is ready. Each change makes a new one, so that stale events can be recognised."""

    __slots__ = ("callback", "events", "rests", "source")

    def __init__(self, source: Any, events: int, callback: Callback) -> None:
        self.source = source
        self.events = events
        self.callback = callback
        #: Its callback raised: it is out of the selector for a while.
        self.rests = False


class Loop(Timers):
    """Waits for descriptors and timers, and calls back."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, on_error: Callable[[Exception], None] | None = None
    ) -> None:
        super().__init__(on_error)
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        #: By source. After its callback raised, a registration is out of the selector for a while.
        self._current: dict[Any, _Registration] = {}

    def register(self, source: Any, events: int, callback: Callback) -> None:
        """Call back whenever a descriptor (a number or an object with fileno()) is ready for these selectors events."""
        registration = _Registration(source, events, callback)
        self._selector.register(source, events, registration)
        self._current[source] = registration

    def modify(self, source: Any, events: int, callback: Callback) -> None:
        """Replace the events and the callback of a registered descriptor."""
        former = self._current.get(source)
        if former is not None and not former.rests:
            registration = self._current[source] = _Registration(source, events, callback)
            self._selector.modify(source, events, registration)
        else:
            self.register(source, events, callback)

    def unregister(self, source: Any) -> None:
        """Stop calling back. KeyError if it is not registered. The descriptor may be closed already."""
        if not self._current.pop(source).rests:
            self._selector.unregister(source)

    def turn(self, limit_s: float = math.inf) -> bool:
        """Wait, at most `limit_s`, until something is ready or due; run the callbacks. True: a descriptor was ready."""
        wait_s = min(limit_s, self.next_s() - self._clock())
        ready = self._selector.select(None if math.isinf(wait_s) else max(0.0, wait_s))
        for key, _events in ready:
            registration: _Registration = key.data
            if self._current.get(registration.source) is not registration:
                continue  # removed or changed by an earlier callback of this turn
            now_s = self._clock()
            if self._on_error is None:
                registration.callback(now_s)
            elif not self.call(registration.callback, now_s):
                self._rest(registration, now_s)
        self.run_due(self._clock())
        return bool(ready)

    def now_s(self) -> float:
        """The monotonic second."""
        return self._clock()

    @property
    def watched(self) -> int:
        """How many descriptors are registered."""
        return len(self._current)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the selector; registered descriptors stay open."""
        self._selector.close()

    def _rest(self, registration: _Registration, now_s: float) -> None:
        """Suspend a descriptor whose callback raised, unless the callback removed or changed it."""
        source = registration.source
        if self._current.get(source) is not registration:
            return
        self._selector.unregister(source)
        registration.rests = True

        def resume(_now_s: float) -> None:
            if self._current.get(source) is registration:
                registration.rests = False
                self._selector.register(source, registration.events, registration)

        self.call_at(now_s + RETRY_S, resume)
