"""The last starts of a channel with a rate limit, as a ring of moments in words that may be shared.  Pure.

At most `starts` in any window: the next start waits until the one `starts` before it has left the window. The limit is
exact wherever a window begins, and a saturated channel gets all of it. A token bucket would allow nearly twice as
many in some windows.

Words: `words[base]` is the position, i.e. the number of starts counted, modulo the size of the ring. Then follow the
moments of the last MOST starts, so that another limit can continue with them. With a limit above MOST, each moment
stands for several consecutive starts, and is that of the last.
Moments are of one clock, in any unit, greater than 0; 0 is none. Invariants between calls:

    moments never decrease from the oldest to the newest
    each of the last `starts` starts within the window has a moment of its own, not earlier than the start

A process may die between any two stores. Each method orders its stores so that the second invariant still holds, except
for a start that then belongs to nobody; `mend` restores the first. So a death may waste starts, never allow one more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

#: Moments of one ring.
MOST = 1000
#: Words of one ring: the position and the moments.
RING_WORDS = MOST + 1


def window_of(period: int, unit_s: int) -> int:
    """The window enforced for a period, with `unit_s` units per second: slightly longer, for the way to Odoo."""
    return period + min(period // 100, unit_s // 10)


class Ring:
    """The starts of one channel. `words` is anything that holds integers by index."""

    __slots__ = ("base", "behind", "per", "size", "window", "words")

    def __init__(self, words: Any, base: int, starts: int, window: int) -> None:
        self.words = words
        self.base = base
        self.window = window
        #: How many starts one moment stands for.
        self.per = -(-starts // MOST)
        self.size = MOST if self.per == 1 else starts // self.per
        #: How many moments before the next one the moment lies that must have left the window.
        self.behind = starts if self.per == 1 else self.size

    def opens(self) -> int:
        """The earliest moment of the next start; it may have passed."""
        position = self.words[self.base]
        if position % self.per:
            return 0
        moment: int = self.words[self.base + 1 + (position // self.per - self.behind) % self.size]
        return moment + self.window if moment else 0

    def is_over(self, now: int) -> bool:
        """Whether more starts were counted than allowed, as the limit was lowered. Not known above MOST."""
        if self.behind >= self.size:
            return False
        position = self.words[self.base]
        moment = self.words[self.base + 1 + (position - 1 - self.behind) % self.size]
        return bool(moment and moment + self.window > now)

    def count(self, moment: int) -> None:
        """Count a start, for which there is room according to `opens`."""
        words, position = self.words, self.words[self.base]
        words[self.base + 1 + position // self.per] = max(moment, words[self._newest()])
        words[self.base] = (position + 1) % (self.size * self.per)

    def delay(self, since: int, moment: int) -> None:
        """Move the start counted at `since` to `moment`."""
        if since + self.window <= moment:
            return  # it is no longer in the ring
        for at in self._from_newest():
            if self.words[at] < since:
                return
            if self.words[at] < moment:
                self.words[at] = moment

    def take_back(self, since: int, now: int) -> None:
        """Remove the start counted at `since`. Where a moment stands for several, only the last ones can be removed."""
        if since + self.window <= now:
            return
        words, newest, position = self.words, self._newest(), self.words[self.base]
        if words[newest] < since:
            return
        if self.per == 1:
            self._close_gap(since)
        elif self.size > 1 and words[next(at for at in self._from_newest() if at != newest)] >= since:
            return
        before = (position - 1) % (self.size * self.per)
        words[self.base] = before
        if before % self.per == 0:
            words[newest] = 0

    def _close_gap(self, since: int) -> None:
        """Remove the first moment not before `since`: later ones move up, and the newest appears twice."""
        words, behind = self.words, []
        for at in self._from_newest():
            if words[at] < since:
                break
            behind.append(at)
        behind.reverse()
        for at, following in pairwise(behind):
            words[at] = words[following]

    def add_past(self, moments: Iterable[int]) -> None:
        """Add starts not counted here, before or between the known ones; the latest of all are kept."""
        past = sorted(moments)
        past = past[::-1][:: self.per][::-1]  # if a moment stands for several, it is that of the last
        at_last = list(self._from_newest())
        known = [self.words[at] for at in at_last]
        merged = sorted([*known, *past], reverse=True)[: self.size]
        # From the newest on: each store writes a later moment or the same one, so they stay in order.
        for at, moment in zip(at_last, merged, strict=True):
            if self.words[at] != moment:
                self.words[at] = moment

    def replace(self, stamps: Iterable[int]) -> None:
        """Take over what another process counted: its `stamps`, the oldest first."""
        self.clear()
        last = list(stamps)[-self.size :]
        for at, moment in enumerate(last, self.base + 1):
            self.words[at] = moment
        self.words[self.base] = len(last) * self.per % (self.size * self.per)

    def moments(self) -> list[int]:
        """All remembered starts, the oldest first; a moment that stands for several is repeated."""
        counts = self._counts()
        return [moment for moment, number in reversed(list(counts)) for _ in range(number)]

    def stamps(self) -> list[int]:
        """The moments, the oldest first; each once, however many starts it stands for."""
        return [moment for moment, _number in reversed(list(self._counts()))]

    def used(self, now: int) -> int:
        """Starts within the window that ends now."""
        return sum(number for moment, number in self._counts() if moment + self.window > now)

    def clear(self) -> None:
        """Remember nothing."""
        for at in range(self.base, self.base + 1 + self.size):
            self.words[at] = 0

    def mend(self) -> None:
        """After a death inside a method: count a moment that was written and not counted yet."""
        words, position = self.words, self.words[self.base]
        at = position // self.per
        if position % self.per == 0 and words[self.base + 1 + at] > words[self.base + 1 + (at + 1) % self.size]:
            words[self.base] = (position + 1) % (self.size * self.per)

    def _newest(self) -> int:
        """Index of the newest moment's word."""
        return int(self.base + 1 + (self.words[self.base] - 1) // self.per % self.size)

    def _from_newest(self) -> Iterator[int]:
        """Indexes of all moments' words, the newest first."""
        first, newest = self.base + 1, self._newest() - self.base - 1
        return (first + (newest - i) % self.size for i in range(self.size))

    def _counts(self) -> Iterator[tuple[int, int]]:
        """Each moment, the newest first, and how many starts it stands for."""
        last = self.words[self.base] % self.per or self.per
        for i, at in enumerate(self._from_newest()):
            if self.words[at]:
                yield self.words[at], self.per if i else last
