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

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from .core import TableCore
from .layout import Channel, Header
from .words import WeightClass, bits

#: How far a start moves the pass of a branch of weight 1.
UNIT = 1 << 24
#: Sets of branches whose order by weight is kept, for one tree.
MOST_KEPT = 64


class Turn(NamedTuple):
    """Which branch of a channel is next."""

    branch: int
    clock: int
    #: Of the branches with candidates.
    weights: int


class Branches:
    """The branches of all channels, while the lock is held once."""

    def __init__(self, core: TableCore) -> None:
        self._core = core
        self._tree = core.tree()
        #: What `_turn` found, by its arguments; each channel counts one start at the most.
        self._turns: dict[tuple[int, int], Turn] = {}
        #: What `_first` found, by its arguments, until a start is counted.
        self._found: dict[tuple[int, int], Turn] = {}

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
        classes = self._classes(node, candidates)
        if not classes:
            return
        turn = self._turn(node, candidates)
        yield self._within(node, turn.branch, candidates)
        begins = [(self._begin(node, branch), branch) for each in classes for branch in each.branches]
        ends = [(begin > turn.clock, begin + self._stride(node, branch), branch) for begin, branch in begins]
        for _is_ahead, _end, branch in sorted(ends):
            if branch != turn.branch:
                yield self._within(node, branch, candidates)

    def count(self, node: int, channel: int, candidates: int) -> None:
        """Count a start in a channel below `node`, which had these candidates."""
        words, turn, branch = self._core.words, self._turn(node, candidates), self.branch(node, channel)
        words[self._pass_word(node, branch)] = self._begin(node, branch) + self._stride(node, branch)
        words[self._core.channel_base(node) + Channel.CLOCK] = turn.clock + UNIT // turn.weights

    def branch(self, node: int, channel: int) -> int:
        """The branch of `node` that contains a channel; `node` itself for its own jobs."""
        path = self._tree.paths[channel]
        return node if channel == node else path[path.index(node) - 1]

    def _within(self, node: int, branch: int, candidates: int) -> int:
        return candidates & (1 << node if branch == node else self._tree.below[branch])

    def _stride(self, node: int, branch: int) -> int:
        return UNIT if branch == node else UNIT // self._tree.weights[branch]

    def _pass_word(self, node: int, branch: int) -> int:
        return self._core.channel_base(branch) + (Channel.OWN_PASS if branch == node else Channel.PASS)

    def _begin(self, node: int, branch: int) -> int:
        """The pass from which a branch goes on."""
        words, clock = self._core.words, self._core.channel_base(node) + Channel.CLOCK
        return int(max(words[self._pass_word(node, branch)], words[clock] - self._stride(node, branch)))

    def _turn(self, node: int, candidates: int) -> Turn:
        """Which branch with candidates is next."""
        found = self._turns.get((node, candidates))
        if found is None:
            found = self._turns[node, candidates] = self._choose(node, self._classes(node, candidates))
        return found

    def _choose(self, node: int, classes: Sequence[WeightClass]) -> Turn:
        """Of branches of one weight the first to end is the first to begin, so there is one of each to compare."""
        core, layout = self._core, self._core.layout
        clock = int(core.words[core.channel_base(node) + Channel.CLOCK])
        # One read for all, as there may be hundreds of branches.
        end = core.channel_base(len(self._tree.names))
        known = core.words[layout.channel + Channel.PASS : end : layout.channel_size].tolist()
        firsts = []
        weights = 0
        for weight, stride, branches, passes_of in classes:
            weights += weight * len(branches)
            if branches[0] == node:
                firsts.append((self._begin(node, node), stride, node))
                continue
            passes, begin = passes_of(known), clock - stride
            least = min(passes)
            if least >= begin:
                firsts.append((least, stride, branches[passes.index(least)]))
            else:
                first = next(branch for branch, each in zip(branches, passes, strict=True) if each <= begin)
                firsts.append((begin, stride, first))
        clock = max(clock, min(firsts)[0])
        _is_ahead, _end, branch = min((begin > clock, begin + stride, branch) for begin, stride, branch in firsts)
        return Turn(branch, clock, weights)

    def _classes(self, node: int, candidates: int) -> list[WeightClass]:
        """The branches of a channel that have candidates, by weight; kept, as the same ones are asked for often."""
        kept, key = self._tree.weight_classes, (node, candidates & self._tree.below[node])
        found = kept.get(key)
        if found is None:
            if len(kept) >= MOST_KEPT:
                kept.clear()
            found = kept[key] = self._sort_out(node, candidates)
        return found

    def _sort_out(self, node: int, candidates: int) -> list[WeightClass]:
        tree, by_weight = self._tree, dict[int, list[int]]()
        for child in tree.children[node]:
            if candidates & tree.below[child]:
                by_weight.setdefault(tree.weights[child], []).append(child)
        if candidates >> node & 1:
            by_weight = {0: [node], **by_weight}
        return [
            WeightClass(max(1, weight), UNIT // max(1, weight), branches, _picker(branches))
            for weight, branches in by_weight.items()
        ]


def _picker(places: Sequence[int]) -> Callable[[Sequence[int]], Sequence[int]]:
    """The items of a sequence at these places, in C."""
    return operator.itemgetter(*places) if len(places) > 1 else lambda items: (items[places[0]],)


def union(bitmaps: Iterable[int]) -> int:
    """The bits set in any of the bitmaps."""
    found = 0
    for each in bitmaps:
        found |= each
    return found
