"""Looks on, from a process of its own: for how long could something start, and did not?

A channel's room is counted from the ledger, so from the jobs themselves. Only of a database whose worker is struck
(stopped, or dead and not replaced yet) the table is asked: it keeps the permits that it holds, by design.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

from qjsupervisor.table.layout import CELL_WORDS, Cell
from qjsupervisor.table.semaphore import SemaphoreTable

from .ledger import ALIVE_NS, STRUCK_NS, WAITING, Ledger

LOOK_MS = 2
#: A worker may have written that it lives just before the stop or kill reached it.
SETTLE_NS = 5_000_000


class Observer:
    """One look every LOOK_MS; `report` when it was told to end."""

    def __init__(self, table: SemaphoreTable, ledger: Ledger, capacities: list[int]) -> None:
        self._table = table
        self._ledger = ledger
        self._capacities = capacities
        self._paths = table.core.tree().paths
        self._since_ns: list[int | None] = [None] * len(capacities)
        self._episodes: list[list[int]] = [[] for _ in capacities]
        self._looks = 0
        self._idle_looks = [0] * len(capacities)
        self._last_look_ns = 0

    def run(self, the_end: int, report_to: int) -> None:
        """Look until the descriptor `the_end` is readable; write the report."""
        poll = select.poll()
        poll.register(the_end, select.POLLIN)
        while not poll.poll(LOOK_MS):
            self.look(time.monotonic_ns())
        os.write(report_to, json.dumps(self.report()).encode())

    def look(self, now_ns: int) -> None:
        # While we did not get to look, we cannot say that nothing was begun.
        late = now_ns - self._last_look_ns > 50_000_000
        self._last_look_ns = now_ns
        room, waiting = self._room(now_ns)
        self._looks += 1
        for channel, path in enumerate(self._paths):
            idle = waiting[channel] and all(room[node] for node in path)
            since_ns = self._since_ns[channel]
            if not idle:
                if since_ns is not None:
                    self._episodes[channel].append(now_ns - since_ns)
                self._since_ns[channel] = None
            else:
                self._idle_looks[channel] += 1
                if since_ns is None or late:
                    self._since_ns[channel] = now_ns

    def _room(self, now_ns: int) -> tuple[list[bool], list[bool]]:
        """Which channels have room, and in which a worker waits that could take it."""
        words = self._ledger.words
        taken = [0] * len(self._paths)
        waiting = [False] * len(self._paths)
        for slot in range(self._ledger.databases):
            head = self._ledger.head(slot)
            held = [0] * len(self._paths)
            for job in self._ledger.running(slot, now_ns):
                held[job.channel] += 1
            if words[head + ALIVE_NS] > words[head + STRUCK_NS] + SETTLE_NS:
                for channel in range(len(waiting)):
                    waiting[channel] |= bool(words[head + WAITING + channel])
            else:
                start = self._table.core.cell_base(slot, 0) + Cell.HELD
                row = self._table.core.words[start : start + len(held) * CELL_WORDS].tolist()[::CELL_WORDS]
                held = [max(pair) for pair in zip(held, row, strict=True)]
            for channel, number in enumerate(held):
                for node in self._paths[channel]:
                    taken[node] += number
        return [t < c for t, c in zip(taken, self._capacities, strict=True)], waiting

    def report(self) -> dict[str, Any]:
        """Per channel: the longest, the 99th percentile, and the part of all looks that found it idle."""
        names = self._table.core.tree().names
        found = {}
        for channel, episodes in enumerate(self._episodes):
            last = self._since_ns[channel]
            spans = sorted([*episodes, *([self._last_look_ns - last] if last is not None else [])])
            found[names[channel]] = {
                "longest_ms": round(spans[-1] / 1e6, 1) if spans else 0,
                "p99_ms": round(spans[len(spans) * 99 // 100] / 1e6, 1) if spans else 0,
                "idle_share": round(self._idle_looks[channel] / max(1, self._looks), 4),
            }
        return found
