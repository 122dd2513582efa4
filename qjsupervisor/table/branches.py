"""Minimums and weights of channels, as the choice of permits sees them. Runs under the table's lock; see grants.py.

At each channel the channels below it are its branches; the jobs directly in it are one more. A branch is short while it
holds less than its minimum. What is kept free for reserved minimums is in Channel.KEPT (layout.py), and a permit
counts against that where no branch on its way needs it less afterwards.

Weights. Each branch has a pass, each channel with weighted branches a clock; a start moves the pass by 1/weight, the
clock by 1/(sum of the weights that wait). Who is not ahead of the clock may be next, and of those the one whose pass
would move the least far is: so a branch that waits all the time is never a whole start away from its part of all
starts, whatever the weights. A branch that was away rejoins at most one start behind the clock.
Source: Bennett and Zhang, 1996, "WF2Q: worst-case fair weighted fair queueing".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .core import TableCore
from .layout import Channel, Header
from .words import bits

#: What a start moves the pass of a branch of weight 1.
UNIT = 1 << 24


class Branches:
    """The branches of all channels, during one holding of the lock."""

    def __init__(self, core: TableCore) -> None:
        self._core = core
        self._tree = core.tree()

    # -- minimums ----------------------------------------------------------------------------------------

    def free(self, node: int) -> int | None:
        """Permits of a channel that nobody holds and that are not kept; None: it has no limit of its own."""
        words, base = self._core.words, self._core.channel_base(node)
        capacity = words[base + Channel.CAPACITY]
        if capacity < 0:
            return None
        kept = words[base + Channel.KEPT] + (0 if node else words[Header.RESERVED])
        return int(capacity - words[base + Channel.TOTAL] - kept)

    def keeping(self, node: int) -> int:
        """The channels below `node` in which a start takes what is kept there for itself: a bitmap."""
        words, found = self._core.words, 0
        for child in self._tree.children[node]:
            base = self._core.channel_base(child)
            lack = words[base + Channel.LACK]
            if lack > words[base + Channel.KEPT]:
                found |= self._tree.below[child]
            elif lack:
                found |= self.keeping(child)
        return found

    def short(self, node: int, candidates: int) -> dict[int, int]:
        """The branches below `node` that are short and have candidates, the uppermost ones of each way, with these."""
        below, core = self._tree.below, self._core
        short = core.read_bitmap(core.layout.short, core.layout.channels) & below[node] & ~(1 << node)
        found, left = {}, candidates
        for channel in bits(short & (candidates | self._tree.inner)):  # parents come first
            if within := below[channel] & left:
                found[channel] = within
                left &= ~within
        return found

    def part(self, channel: int) -> float:
        """What a branch holds of its minimum."""
        base = self._core.channel_base(channel)
        return float(self._core.words[base + Channel.TOTAL] / self._core.words[base + Channel.MIN])

    def lack(self, channel: int) -> int:
        """How many permits a branch is short of."""
        base = self._core.channel_base(channel)
        return int(self._core.words[base + Channel.MIN] - self._core.words[base + Channel.TOTAL])

    # -- weights -----------------------------------------------------------------------------------------

    def in_turn(self, node: int, candidates: int) -> Iterator[int]:
        """The candidates of each branch of a weighted channel, who is next first; ends once one was counted."""
        clock = self._core.words[self._core.channel_base(node) + Channel.CLOCK]
        passes = [(*self._pass(node, branch, clock), branch) for branch in self._waiting(node, candidates)]
        clock = max(clock, min((each[0] for each in passes), default=0))
        for _ahead, _finish, branch in sorted((begin > clock, finish, branch) for begin, finish, branch in passes):
            yield candidates & (1 << node if branch == node else self._tree.below[branch])

    def count(self, node: int, channel: int, candidates: int) -> None:
        """A job starts in a channel below `node`, where these were candidates."""
        words, base = self._core.words, self._core.channel_base(node)
        branch = self.branch(node, channel)
        waiting = self._waiting(node, candidates)
        clock = words[base + Channel.CLOCK]
        clock = max(clock, min((self._pass(node, each, clock)[0] for each in waiting), default=0))
        words[self._pass_word(node, branch)] = self._pass(node, branch, clock)[1]
        words[base + Channel.CLOCK] = clock + UNIT // sum(self._weight(node, each) for each in waiting)

    def branch(self, node: int, channel: int) -> int:
        """The branch of `node` that a channel lies in; `node` itself: its own jobs."""
        path = self._tree.paths[channel]
        return node if channel == node else path[path.index(node) - 1]

    def _waiting(self, node: int, candidates: int) -> list[int]:
        found = [child for child in self._tree.children[node] if candidates & self._tree.below[child]]
        return [*found, node] if candidates >> node & 1 else found

    def _pass(self, node: int, branch: int, clock: int) -> tuple[int, int]:
        """Where a branch is, and where its next start would move it."""
        stride = UNIT // self._weight(node, branch)
        begin = max(self._core.words[self._pass_word(node, branch)], clock - stride)
        return begin, begin + stride

    def _pass_word(self, node: int, branch: int) -> int:
        return self._core.channel_base(branch) + (Channel.OWN_PASS if branch == node else Channel.PASS)

    def _weight(self, node: int, branch: int) -> int:
        """1 where none is given, and for jobs directly in `node`."""
        return 1 if branch == node else max(1, self._core.words[self._core.channel_base(branch) + Channel.WEIGHT])


def union(bitmaps: Iterable[int]) -> int:
    """The bits that are set in any of these."""
    found = 0
    for each in bitmaps:
        found |= each
    return found
