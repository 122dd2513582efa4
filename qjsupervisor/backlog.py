"""The jobs of one database that are waiting in the table, and the windows through which its worker sees them.  Pure.

A read takes time, and jobs change meanwhile: between `begin_read` and its end (`load`, `merge`, `abandon_read`) all
that is heard is kept, and stands against what was read. So the windows are exact in order also when better jobs arrive
behind them, when etas fall due outside them, and when rows change under a read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .channels import ChannelTree
from .nodes import Node, Pending


class Found(NamedTuple):
    """Pending jobs as read, best first and next first; `..._more`: the read stopped at its limit."""

    due: Sequence[Pending]
    due_more: bool
    later: Sequence[Pending]
    later_more: bool


class Snapshot(NamedTuple):
    """All that a worker has to know of its database."""

    #: (id, raw channel) of the jobs that hold permits.
    held: Sequence[tuple[int, str | None]]
    #: Over all channels.
    found: Found
    #: (raw channel, state): how many.
    counts: dict[tuple[str | None, str], int]
    #: (id, raw channel) of failed jobs, not necessarily all.
    failed: Sequence[tuple[int, str | None]]


class Backlog(ChannelTree):
    """A channel tree that is filled from the database."""

    def unread(self) -> list[Node]:
        """Nodes of which more should be read."""
        if self._thirsty:
            self._thirsty = {node for node in self._thirsty if node.wants_reading}
        return list(self._thirsty)

    def raw_names(self, node: Node) -> tuple[list[str], bool]:
        """The channel names in the table that belong to a node, and whether NULL does."""
        names = [name for name, known in self.names.items() if known is node]
        return [name for name in names if name is not None], None in names or node.parent is None

    def begin_read(self) -> None:
        """A read begins now; what is heard from here on stands against it."""
        self._heard = {}

    def abandon_read(self) -> None:
        """The read came to nothing."""
        self._heard = None

    @property
    def heard_too_much(self) -> bool:
        """Whether so much changed during a read that it is not worth keeping; it is begun again."""
        return self._heard is not None and len(self._heard) > 8 * self._window

    def merge(self, found: dict[str, Found]) -> None:
        """End a read of some nodes (by name): their windows hold the best of their jobs again."""
        heard, self._heard = self._heard or {}, None
        for name, read in found.items():
            node = self.nodes.get(name)
            if node is not None:
                self._merge_node(node, read, heard)
        self._put_heard(heard)

    def load(self, snapshot: Snapshot) -> list[int]:
        """End a read of everything. Returns the ids of jobs held here of which the database says otherwise."""
        heard, self._heard = self._heard or {}, None
        self._pending.clear()
        self._next_eta_us = None
        for node in self.nodes.values():
            node.ready.clear()
            node.etas.clear()
            node.beyond = 0
            node.stale = False
        for job in (*snapshot.found.due, *snapshot.found.later):
            if self._is_news(job, heard):
                self._place(self.node_for(job.channel), job)
        self._load_counts(snapshot, heard)
        self._load_horizons(snapshot.found)
        self._put_heard(heard)
        for node in self.nodes.values():
            self._renew(node)
        return self._load_held(snapshot.held, heard)

    def _is_news(self, job: Pending, heard: dict[int, Pending | None]) -> bool:
        """Whether a job that was read is pending now and not here yet."""
        known = (heard, self._pending, self._holding, self.aside)
        return not any(job.job_id in ids for ids in known)

    def _load_held(self, held: Iterable[tuple[int, str | None]], heard: dict[int, Pending | None]) -> list[int]:
        said = {job_id: channel for job_id, channel in held if job_id not in heard}
        for job_id, channel in said.items():
            self.hold(job_id, channel)
        return [job_id for job_id in self._holding if job_id not in said and job_id not in heard]

    def _load_counts(self, snapshot: Snapshot, heard: dict[int, Pending | None]) -> None:
        self._failed_in.clear()
        for node in self.nodes.values():
            node.failed = 0
        for (channel, state), number in snapshot.counts.items():
            node = self.node_for(channel)
            if state == "failed":
                self.count_failed(node, node.failed + number)
            elif state == "pending":
                node.beyond += number
        for node in self.nodes.values():
            node.beyond = max(0, node.beyond - len(node.ready) - len(node.etas))
            self.count_failed(node, node.failed)
        for job_id, channel in snapshot.failed:
            if job_id not in heard:
                self._failed_in[job_id] = self.node_for(channel)

    def _load_horizons(self, found: Found) -> None:
        """What was read is the best of all channels together, so each window is whole up to the last one read."""
        last_due = found.due[-1].key if found.due_more else None
        last_later = (found.later[-1].eta_us or 0, found.later[-1].key) if found.later_more else None
        for node in self.nodes.values():
            if node.beyond:
                node.ready.horizon = node.ready.horizon or last_due
                node.etas.horizon = node.etas.horizon or last_later

    def _put_heard(self, heard: dict[int, Pending | None]) -> None:
        for job in heard.values():
            if job is not None and job.job_id not in self._pending:
                node = self.node_for(job.channel)
                node.beyond = max(0, node.beyond - 1)  # it was counted when the window had no room for it
                self._place(node, job)

    def _merge_node(self, node: Node, read: Found, heard: dict[int, Pending | None]) -> None:
        fresh = {job.job_id: job for job in (*read.due, *read.later) if self._is_news(job, heard)}
        for job in fresh.values():
            self._pending[job.job_id] = (node, job)
        due = [job.key for job in read.due if job.job_id in fresh]
        later = [(job.eta_us or 0, job.key) for job in read.later if job.job_id in fresh]
        last_due = read.due[-1].key if read.due_more else None
        last_later = (read.later[-1].eta_us or 0, read.later[-1].key) if read.later_more else None
        dropped = [key[2] for key in node.ready.extend(due, last_due)]
        dropped += [key[2] for _eta, key in node.etas.extend(later, last_later)]
        for job_id in dropped:
            del self._pending[job_id]
        more = read.due_more or read.later_more
        node.beyond = max(0, node.beyond - len(fresh)) + len(dropped) if more else len(dropped)
        node.stale = False
        if node.etas.items:
            first = node.etas.items[0][0]
            self._next_eta_us = first if self._next_eta_us is None else min(self._next_eta_us, first)
        self._renew(node)
