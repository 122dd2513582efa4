"""Chooses what goes before the order of turns: databases and channels below their minimums, and branches by weight.

Runs under the table's lock, as part of a Scheduler (grants.py), only if there are such settings; asks the order of
turns (turns.py) wherever they leave several. The rules:
- Permits a channel keeps free for reserved minimums are given to nobody else.
- At each channel, branches below their minimum that have something to start come first, the one with the smallest
  share of its minimum before the others. At root this includes databases below their minimum.
- Then weights decide between branches if any are set, otherwise the turns of databases (or the keys of jobs).
- A database granted a permit a moment ago may have more to start in a branch below its minimum, as only it knows. As
  many permits as the branch lacks are left for it until it comes, or until PICK_UP_NS has passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .branches import Branches, union
from .layout import Channel, Header, Slot
from .turns import Grant, Turns
from .words import bits


class First(NamedTuple):
    """A database below its minimum that comes first, and its share of that minimum."""

    part: float
    slot: int
    channel: int


class Guarantees:
    """Chooses for one Scheduler. `candidates`: a bitmap of channels; `others`: a bitmap of waiting databases."""

    def __init__(self, choice: Turns) -> None:
        self._choice = choice
        self._core = choice.core
        self._tree = choice.core.tree()
        self._branches = Branches(choice.core)

    def next(self, candidates: int, others: int) -> Grant | None:
        """The next permit, or None for now."""
        grant = self._next(candidates, others)
        if grant is not None and self._tree.weighted:
            for node in self._tree.paths[grant.channel]:
                if self._tree.weighted >> node & 1:
                    self._branches.count(node, grant.channel, candidates)
        return grant

    def _next(self, candidates: int, others: int) -> Grant | None:
        for node in self._tree.guarantors:
            if node and candidates & self._tree.below[node]:
                candidates = self._without_kept(node, candidates)
        free = self._branches.free(0)
        is_tight = free is not None and free <= 0
        let = candidates
        if is_tight:
            let = candidates & self._branches.keeping(0) if self._tree.has_minimums else 0
        for node in self._tree.guarantors:
            if node and candidates & self._tree.below[node]:
                candidates = self._let_through(node, candidates, let, others)
        let &= candidates
        short = self._short(0, let)
        branch = self._least(short, others)
        database = self._neediest(candidates, others, only_reserved=is_tight)
        if database is not None and (branch < 0 or database.part <= self._branches.part(branch)):
            return Grant(database.slot, database.channel)
        if branch >= 0:
            return self._descend(short[branch], others)
        if not let or (free is not None and self._leaves_all(free, candidates, short)):
            return None
        return self._descend(let, others) if self._tree.ruled else self._choice.in_turn(let, others)

    def _without_kept(self, node: int, candidates: int) -> int:
        """The candidates without those below `node` that would use permits kept there for others."""
        free = self._branches.free(node)
        if free is None or free > 0:
            return candidates
        return candidates & (~self._tree.below[node] | self._branches.keeping(node))

    def _let_through(self, node: int, candidates: int, let: int, others: int) -> int:
        """The candidates without those below `node` that others there go before.

        Only for those does anybody wait that the root has a permit for: channels in `let`, or databases for which it
        keeps some.
        """
        within = candidates & self._tree.below[node]
        short = self._short(node, within)
        if short:
            first, free = union(short.values()), self._branches.free(node)
            if self._could_start(first, let, others) or (free is not None and self._leaves_all(free, 0, short)):
                within = first
        return candidates & ~self._tree.below[node] | within

    def _could_start(self, candidates: int, let: int, others: int) -> bool:
        if self._choice.competing(candidates & let, others):
            return True
        waiting, words = self._choice.competing(candidates, others), self._core.words
        return any(words[self._core.slot_base(slot) + Slot.DEFICIT] for slot in bits(waiting))

    def _short(self, node: int, candidates: int) -> dict[int, int]:
        return self._branches.short(node, candidates) if candidates and self._tree.has_minimums else {}

    def _least(self, short: dict[int, int], others: int) -> int:
        """The branch with the smallest share of its minimum in which a job could start; -1 if there is none."""
        if len(short) > 1 and not self._choice.competing(union(short.values()), others):
            return -1
        for branch in sorted(short, key=self._branches.part):
            if self._choice.competing(short[branch], others):
                return branch
        return -1

    def _neediest(self, candidates: int, others: int, *, only_reserved: bool) -> First | None:
        """The database with the smallest part of its minimum that could start a job."""
        core, words = self._core, self._core.words
        needy = core.read_bitmap(core.layout.needy, core.slots) if words[Header.SHARES] else 0
        if not needy:
            return None
        found = []
        for slot in bits(needy & self._choice.competing(candidates, others & needy)):
            base = core.slot_base(slot)
            if not only_reserved or words[base + Slot.DEFICIT]:
                found.append((words[base + Slot.TOTAL] / words[base + Slot.MIN], slot))
        for part, slot in sorted(found):
            channel = self._choice.best(slot, candidates)
            if channel >= 0:
                return First(part, slot, channel)
        return None

    def _leaves_all(self, free: int, candidates: int, short: dict[int, int]) -> bool:
        """Whether the `free` permits are for databases that are about to come for a grant; then somebody looks again.

        `candidates`: those that databases below their minimums may come for, beside short branches.
        """
        core, words, choice = self._core, self._core.words, self._choice
        coming, left = 0, free
        for branch, within in short.items():
            found = choice.coming(within)
            coming |= found
            if found and not words[core.channel_base(branch) + Channel.RESERVE]:
                left -= self._branches.lack(branch)
        if candidates and words[Header.SHARES]:
            needy = core.read_bitmap(core.layout.needy, core.slots)
            found = choice.coming(candidates) & needy if needy else 0
            coming |= found
            left -= sum(self._lack(slot) for slot in bits(found))
        if not coming or left > 0:
            return False
        choice.wait_for(coming)
        return True

    def _lack(self, slot: int) -> int:
        """How many permits a database lacks that are not kept for it anyway."""
        words, base = self._core.words, self._core.slot_base(slot)
        return int(words[base + Slot.MIN] - words[base + Slot.TOTAL] - words[base + Slot.DEFICIT])

    def _descend(self, candidates: int, others: int) -> Grant | None:
        """From the root down to who is next, in a branch of each channel on the way."""
        node = 0
        while True:
            short = self._short(node, candidates)
            branch = self._least(short, others)
            if branch >= 0:
                candidates = short[branch]
                node = self._branches.branch(node, branch)
                continue
            if self._tree.weighted >> node & 1:
                candidates = self._in_turn(self._branches.in_turn(node, candidates), others)
                if not candidates:
                    return None
                below = self._branches.branch(node, next(bits(candidates)))
                if below != node:
                    node = below
                    continue
            grant = self._choice.pick(node, candidates, others)
            if grant is None or grant.channel == node:
                return grant
            node = self._branches.branch(node, grant.channel)
            candidates &= self._tree.below[node]

    def _in_turn(self, branches: Iterable[int], others: int) -> int:
        return next((within for within in branches if self._choice.competing(within, others)), 0)
