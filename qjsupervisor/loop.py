"""The event loop of the master, the workers and the monitor: descriptors that are ready, and timers.

One thread. Each callback gets the monotonic second of its call, and must not wait for anything. What a callback
removes or changes is not called any more for what was ready before, even where a descriptor got the same number.

    register(source, events, callback)    until unregister(source); modify(source, events, callback)
    call_at(monotonic_s, callback)        once; the handle's cancel() takes it back
    Alarm(timers, callback)               a deadline that moves: set(at_s), clear()

A callback that raises ends the loop, unless `on_error` takes the exception: then the loop goes on, and what failed is
called again RETRY_S later, if it is still wanted.
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

#: A descriptor or timer whose callback raised rests for so long: one that always fails must not spin the loop.
RETRY_S = 1.0
#: Cancelled timers that may stay in the heap before it is made anew.
_SLACK = 64


class Timer:
    """A call to come, until it was made or cancelled."""

    __slots__ = ("_timers", "at_s", "callback")

    def __init__(self, timers: Timers, at_s: float, callback: Callback) -> None:
        self._timers = timers
        self.at_s = at_s
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Take the call back; does nothing once it was made."""
        if self.callback is not None:
            self.callback = None
            self._timers.note_cancelled()


class Timers:
    """Calls at moments to come, in their order. Reads no clock."""

    def __init__(self, on_error: Callable[[Exception], None] | None = None) -> None:
        self._on_error = on_error
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0

    def call_at(self, at_s: float, callback: Callback) -> Timer:
        """Call once at this monotonic second, or as soon after it as the loop comes to it."""
        timer = Timer(self, at_s, callback)
        self._push(at_s, timer)
        return timer

    @property
    def kept(self) -> int:
        """How many are in memory, cancelled ones included."""
        return len(self._heap)

    def next_s(self) -> float:
        """When the next timer is due; infinity if there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else math.inf

    def run_due(self, now_s: float) -> None:
        """Call what is due; what a call adds waits for the next turn, whatever its moment."""
        due: list[Timer] = []
        while self.next_s() <= now_s:
            due.append(heapq.heappop(self._heap)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is None:  # cancelled by one before it; it is in the heap no more
                self._cancelled -= 1
            elif not self.call(callback, now_s):
                timer.callback = callback  # the same handle, so that it can still be cancelled
                self._push(now_s + RETRY_S, timer)

    def note_cancelled(self) -> None:
        """A timer in the heap will not be called; for Timer."""
        self._cancelled += 1
        if self._cancelled > _SLACK + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _push(self, at_s: float, timer: Timer) -> None:
        timer.at_s = at_s
        heapq.heappush(self._heap, (at_s, next(self._numbers), timer))

    def call(self, callback: Callback, now_s: float) -> bool:
        """Call now; False where it raised and the loop is to go on."""
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
    """One deadline that is set, moved and cleared; at most one call is to come."""

    __slots__ = ("_callback", "_timer", "_timers", "at_s")

    def __init__(self, timers: Timers, callback: Callback) -> None:
        self._timers = timers
        self._callback = callback
        self._timer: Timer | None = None
        #: Infinity: it is not set.
        self.at_s = math.inf

    def set(self, at_s: float) -> None:
        """Ring at this moment instead of any former one; infinity: not at all."""
        if at_s == self.at_s < math.inf:
            return
        self.clear()
        if at_s < math.inf:
            self.at_s = at_s
            self._timer = self._timers.call_at(at_s, self._ring)

    def set_earlier(self, at_s: float) -> None:
        """Ring at this moment, unless it rings before."""
        self.set(min(self.at_s, at_s))

    def clear(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.at_s = math.inf

    def _ring(self, now_s: float) -> None:
        self.at_s = math.inf
        self._callback(now_s)


class _Registration:
    """What is done when a descriptor is ready; a new one for each change, which tells old events from new ones."""

    __slots__ = ("callback", "events", "source")

    def __init__(self, source: Any, events: int, callback: Callback) -> None:
        self.source = source
        self.events = events
        self.callback = callback


class Loop(Timers):
    """Waits for descriptors and timers, and calls back."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, on_error: Callable[[Exception], None] | None = None
    ) -> None:
        super().__init__(on_error)
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        #: By source; those whose callback raised are not in the selector for a while.
        self._current: dict[Any, _Registration] = {}

    def register(self, source: Any, events: int, callback: Callback) -> None:
        """Call back whenever a descriptor (a number, or what has a fileno()) is ready for selectors.EVENT_..."""
        registration = _Registration(source, events, callback)
        self._selector.register(source, events, registration)
        self._current[source] = registration

    def modify(self, source: Any, events: int, callback: Callback) -> None:
        """Wait for something else, or call somebody else, from now on."""
        if source in self._selector.get_map():
            registration = self._current[source] = _Registration(source, events, callback)
            self._selector.modify(source, events, registration)
        else:
            self.register(source, events, callback)

    def unregister(self, source: Any) -> None:
        """Do not call back any more. KeyError if it is not registered; it may be closed already."""
        del self._current[source]
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def turn(self, limit_s: float = math.inf) -> bool:
        """Wait until something is ready or due, at most for limit_s, and call back. True: a descriptor was ready."""
        wait_s = min(limit_s, self.next_s() - self._clock())
        ready = self._selector.select(None if math.isinf(wait_s) else max(0.0, wait_s))
        for key, _events in ready:
            registration: _Registration = key.data
            if self._current.get(registration.source) is not registration:
                continue  # removed or changed by a callback before it, in this very turn
            now_s = self._clock()
            if not self.call(registration.callback, now_s):
                self._rest(registration, now_s)
        self.run_due(self._clock())
        return bool(ready)

    @property
    def watched(self) -> int:
        """How many descriptors are registered."""
        return len(self._current)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the selector; what is registered stays open."""
        self._selector.close()

    def _rest(self, registration: _Registration, now_s: float) -> None:
        """Leave a descriptor alone whose callback raised; unless that removed or changed it."""
        source = registration.source
        if self._current.get(source) is not registration:
            return
        self._selector.unregister(source)

        def resume(_now_s: float) -> None:
            if self._current.get(source) is registration:
                self._selector.register(source, registration.events, registration)

        self.call_at(now_s + RETRY_S, resume)
