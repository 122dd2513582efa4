"""The last starts of a channel whose rate is limited, as a ring of moments in words that may be shared.  Pure.

At most `starts` in any window: the next one waits until the one so many before it has left the window. So the limit is
exact wherever a window begins, and a saturated channel gets all of it. A token bucket would let through nearly twice as
many in some windows.

Words: `words[base]` is the position, the number of starts counted, modulo what the ring holds; behind it lie the
moments, of the last MOST starts, so that another limit can go on with them. With a limit above that each moment stands
for several starts that follow each other, and is that of the last.
Moments are of one clock, in any unit, greater than 0; 0 is none. Invariants, whenever nobody is inside a method:

    moments never fall from the oldest to the newest
    of the last `starts` starts each that is within the window has a moment of its own that is not before it

A process may die between any two stores. Each method orders its stores so that the second one holds all the same, but
for a start that is then nobody's; `mend` restores the first. So a death costs starts, never gives one too many.
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
    """The window that is kept for a period, `unit_s` to a second: a little more, for the way from here to Odoo."""
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
        #: So many moments before the next one lies the one that has to be over.
        self.behind = starts if self.per == 1 else self.size

    def opens(self) -> int:
        """The moment from which the next start may be; it may be over."""
        position = self.words[self.base]
        if position % self.per:
            return 0
        moment: int = self.words[self.base + 1 + (position // self.per - self.behind) % self.size]
        return moment + self.window if moment else 0

    def is_over(self, now: int) -> bool:
        """Whether more were counted than may be: the limit was lowered. Not told of one above MOST."""
        if self.behind >= self.size:
            return False
        position = self.words[self.base]
        moment = self.words[self.base + 1 + (position - 1 - self.behind) % self.size]
        return bool(moment and moment + self.window > now)

    def count(self, moment: int) -> None:
        """A job starts: there is room for it, as `opens` says."""
        words, position = self.words, self.words[self.base]
        words[self.base + 1 + position // self.per] = max(moment, words[self._newest()])
        words[self.base] = (position + 1) % (self.size * self.per)

    def delay(self, since: int, moment: int) -> None:
        """A job that was counted at `since` starts only now."""
        if since + self.window <= moment:
            return  # it is not among these any more
        for at in self._from_newest():
            if self.words[at] < since:
                return
            if self.words[at] < moment:
                self.words[at] = moment

    def take_back(self, since: int, now: int) -> None:
        """A job that was counted at `since` does not start. Of several to a moment only the last ones can go back."""
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
        """Leave out the first moment that is not before `since`: those behind it move up, the newest stands twice."""
        words, behind = self.words, []
        for at in self._from_newest():
            if words[at] < since:
                break
            behind.append(at)
        behind.reverse()
        for at, following in pairwise(behind):
            words[at] = words[following]

    def add_past(self, moments: Iterable[int]) -> None:
        """Starts that nobody counted here, before or among those that are; the latest of all stay."""
        past = sorted(moments)
        past = past[::-1][:: self.per][::-1]  # of several to a moment the last one speaks for all
        at_last = list(self._from_newest())
        known = [self.words[at] for at in at_last]
        merged = sorted([*known, *past], reverse=True)[: self.size]
        # From the newest on: each store puts a later moment, or the same, and they stay in order.
        for at, moment in zip(at_last, merged, strict=True):
            if self.words[at] != moment:
                self.words[at] = moment

    def replace(self, stamps: Iterable[int]) -> None:
        """Another process counted: these are its `stamps`, the oldest first."""
        self.clear()
        last = list(stamps)[-self.size :]
        for at, moment in enumerate(last, self.base + 1):
            self.words[at] = moment
        self.words[self.base] = len(last) * self.per % (self.size * self.per)

    def moments(self) -> list[int]:
        """What is remembered, the oldest first; several to a moment stand there as often."""
        counts = self._counts()
        return [moment for moment, number in reversed(list(counts)) for _ in range(number)]

    def stamps(self) -> list[int]:
        """The same, each moment once, however many starts it stands for."""
        return [moment for moment, _number in reversed(list(self._counts()))]

    def used(self, now: int) -> int:
        """Starts within the window that ends now."""
        return sum(number for moment, number in self._counts() if moment + self.window > now)

    def clear(self) -> None:
        """Remember nothing."""
        for at in range(self.base, self.base + 1 + self.size):
            self.words[at] = 0

    def mend(self) -> None:
        """After a death inside a method: a moment was put and not counted yet. Then it counts."""
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
