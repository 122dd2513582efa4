"""Minimums and weights of channels, for the choice of permits. Runs under the table's lock; see grants.py.

The branches of a channel are its children; the jobs directly in it are one more. A branch is short while it holds less
than its minimum. Channel.KEPT (layout.py) is what a channel keeps free for reserved minimums; a start uses kept permits
if it lowers that number.
Weights. Each branch has a pass, and each channel with weighted branches a clock. A start advances the pass by 1/weight
and the clock by 1/(sum of waiting weights). Only branches that are not ahead of the clock may be next, and of these the
one whose pass would be smallest afterwards is. So a branch that always waits is never a whole start away from its share
of all starts, whatever the weights. A branch that was away rejoins at most one start behind the clock.
Source: Bennett and Zhang, 1996, "WF2Q: worst-case fair weighted fair queueing".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .core import TableCore
from .layout import Channel, Header
from .words import bits

#: How far a start moves the pass of a branch of weight 1.
UNIT = 1 << 24


class Branches:
    """The branches of all channels, while the lock is held once."""

    def __init__(self, core: TableCore) -> None:
        self._core = core
        self._tree = core.tree()

    # -- minimums ----------------------------------------------------------------------------------------

    def free(self, node: int) -> int | None:
        """Free permits of a channel that are not kept for anybody; None if it has no limit of its own."""
        words, base = self._core.words, self._core.channel_base(node)
        capacity = words[base + Channel.CAPACITY]
        if capacity < 0:
            return None
        kept = words[base + Channel.KEPT] + (0 if node else words[Header.RESERVED])
        return int(capacity - words[base + Channel.TOTAL] - kept)

    def keeping(self, node: int) -> int:
        """Bitmap of the channels below `node` in which a start uses permits kept for them."""
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
        """Short branch below `node` -> its candidates, if it has any; only the uppermost short ones."""
        below, core = self._tree.below, self._core
        short = core.read_bitmap(core.layout.short, core.layout.channels) & below[node] & ~(1 << node)
        found, left = {}, candidates
        for channel in bits(short & (candidates | self._tree.inner)):  # parents first
            if within := below[channel] & left:
                found[channel] = within
                left &= ~within
        return found

    def part(self, channel: int) -> float:
        """The share of its minimum that a branch holds."""
        base = self._core.channel_base(channel)
        return float(self._core.words[base + Channel.TOTAL] / self._core.words[base + Channel.MIN])

    def lack(self, channel: int) -> int:
        """How many permits a branch lacks."""
        base = self._core.channel_base(channel)
        return int(self._core.words[base + Channel.MIN] - self._core.words[base + Channel.TOTAL])

    # -- weights -----------------------------------------------------------------------------------------

    def in_turn(self, node: int, candidates: int) -> Iterator[int]:
        """Yield the candidates of each branch of a weighted channel in their order; ends once one was counted."""
        passes, clock, _weights = self._passes(node, candidates)
        for _ahead, _end, branch in sorted((begin > clock, begin + stride, branch) for begin, stride, branch in passes):
            yield candidates & (1 << node if branch == node else self._tree.below[branch])

    def count(self, node: int, channel: int, candidates: int) -> None:
        """Count a start in a channel below `node`, which had these candidates."""
        words, base = self._core.words, self._core.channel_base(node)
        branch = self.branch(node, channel)
        passes, clock, weights = self._passes(node, candidates)
        begin, stride = next((begin, stride) for begin, stride, each in passes if each == branch)
        word = Channel.OWN_PASS if branch == node else Channel.PASS
        words[self._core.channel_base(branch) + word] = begin + stride
        words[base + Channel.CLOCK] = clock + UNIT // weights

    def branch(self, node: int, channel: int) -> int:
        """The branch of `node` that contains a channel; `node` itself for its own jobs."""
        path = self._tree.paths[channel]
        return node if channel == node else path[path.index(node) - 1]

    def _passes(self, node: int, candidates: int) -> tuple[list[tuple[int, int, int]], int, int]:
        """([(pass, step, branch) of each waiting branch], clock, sum of their weights)."""
        core, tree = self._core, self._tree
        layout, base = core.layout, core.channel_base(node)
        end = core.channel_base(len(tree.names))
        # One read for all, as there may be hundreds of branches.
        known = core.words[layout.channel + Channel.PASS : end : layout.channel_size].tolist()
        clock = int(core.words[base + Channel.CLOCK])
        found, weights = [], 0
        for child in tree.children[node]:
            if candidates & tree.below[child]:
                weight = tree.weights[child]
                stride = UNIT // weight
                begin = known[child]
                found.append((begin if begin > clock - stride else clock - stride, stride, child))
                weights += weight
        if candidates >> node & 1:
            found.append((max(int(core.words[base + Channel.OWN_PASS]), clock - UNIT), UNIT, node))
            weights += 1
        return found, max(clock, min((each[0] for each in found), default=0)), max(1, weights)


def union(bitmaps: Iterable[int]) -> int:
    """The bits set in any of the bitmaps."""
    found = 0
    for each in bitmaps:
        found |= each
    return found
