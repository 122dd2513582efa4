"""Fills the windows through which a worker sees the waiting jobs of its database.  Pure.

A read takes time, and jobs change meanwhile. Between `begin_read` and its end (`load`, `merge`, `abandon_read`) every
notified change is kept and overrides what was read. So the windows keep the exact order even when better jobs arrive
beyond them, when etas fall due outside them, and when rows change during a read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..channelspec import ROOT, ChannelSpec, makes_channels
from ..job import Key, Pending
from .nodes import Node
from .tree import DEFERRED, FAILED, HELD, WAITING, Change, ChannelTree, Failed


class Found(NamedTuple):
    """Pending jobs as read: due ones best first, later ones by eta; `..._more`: the read stopped at its limit."""

    due: Sequence[Pending]
    due_more: bool
    later: Sequence[Pending]
    later_more: bool


class Snapshot(NamedTuple):
    """Everything a worker needs to know about its database at one moment, so that the parts are consistent."""

    #: (id, raw channel) of jobs that hold permits.
    held: Sequence[tuple[int, str | None]]
    #: Over all channels.
    found: Found
    #: (raw channel, state) -> number of jobs.
    counts: dict[tuple[str | None, str], int]
    #: (id, raw channel) of failed jobs, possibly not all.
    failed: Sequence[tuple[int, str | None]]


#: Marks that no jobs that are not due are known.
_UNKNOWN = (-(1 << 62), (-(1 << 62), 0, 0))


class Backlog(ChannelTree):
    """A channel tree filled from the database."""

    #: Only the best due jobs are known so far: no failed jobs, none that are not due, and no counts.
    partial = False
    #: Generation of the shared table as of which its channels were read; 0: it only shares root.
    tree_generation = 0

    def unread(self) -> list[Node]:
        """Nodes whose windows should be refilled."""
        if self._needs_refill:
            self._needs_refill = {node for node in self._needs_refill if node.needs_refill}
        return list(self._needs_refill)

    def raw_names(self, node: Node) -> tuple[list[str], bool]:
        """The channel names in rows that belong to a node, and whether NULL does."""
        names = [name for name, known in self.names.items() if known is node]
        return [name for name in names if name is not None], None in names or node.parent is None

    def oldest_due_us(self) -> int:
        """UTC microseconds since which the longest waiting due job has waited; 0: none waits.

        Considers jobs in the windows, and of each priority the one created first.
        """
        first = [key for node in self.nodes.values() for key in _first_of_each_priority(node.ready.items)]
        jobs = [self._places[key[2]][2] for key in first]
        return min((max(job.key[1], job.eta_us or 0) for job in jobs if isinstance(job, Pending)), default=0)

    def names_in_order(self) -> list[str]:
        """The channel names in rows whose channels stop on a failed job, as far as known; '' includes NULL."""
        found = {name or "" for name, node in self.names.items() if node.spec.sequential}
        for name, node in self.nodes.items():
            if node.spec.sequential:
                found |= {name, name.removeprefix(f"{ROOT}.") if name != ROOT else ""}
        return sorted(found)

    def known(self) -> list[int]:
        """Ids of individually known jobs that hold no permit and are not deferred."""
        return [job_id for job_id, place in self._places.items() if place[1] in (WAITING, FAILED)]

    @property
    def is_idle(self) -> bool:
        """Whether no startable job waits, none is deferred, and no read is running."""
        return not self._line and not self._deferred_count and self._changes_during_read is None

    def is_plain(self, channel: str) -> bool:
        """Whether no job waits in a channel whose jobs need neither counting (throttle, rate) nor ordering."""
        node: Node | None = self.node_for(channel)
        if node is not None and node.pending:
            return False
        while node is not None and not (node.spec.throttle_s or node.spec.sequential or node.spec.rate):
            node = node.parent
        return node is None

    def rename(self, job_id: int, new_id: int) -> None:
        """Move a job's permit to another id in the same channel, whose job may be known as failed."""
        self._leave(new_id)
        self._places[new_id] = self._places.pop(job_id)

    @property
    def longest_throttle_s(self) -> int:
        """The longest throttle in seconds; 0: none."""
        return max(node.spec.throttle_s for node in self.nodes.values())

    def rated(self) -> list[ChannelSpec]:
        """The channels that have a rate, or pass one on to unconfigured subchannels."""
        specs = [node.spec for node in self.nodes.values()]
        return [spec for spec in specs if spec.rate is not None or spec.rate_default is not None]

    def await_starts(self, waits: bool) -> None:
        """Treat channels whose rates are kept here as full while starts of former processes are being read."""
        for node in self.nodes.values():
            if node.starts is not None and node.awaits_starts != waits:
                node.awaits_starts = waits
                self._give_room(node)

    def note_past_starts(self, starts: Iterable[tuple[str | None, float]], now_us: int) -> dict[int, list[float]]:
        """Count past starts, given as (row's channel, seconds ago), in the rates kept here.

        Returns channel index in the shared table -> seconds ago, for rates kept there.
        """
        here: dict[Node, list[int]] = defaultdict(list)
        shared: dict[int, list[float]] = defaultdict(list)
        for channel, age_s in starts:
            node = self.node_for(channel)
            shared[node.shared].append(age_s)
            for guard in node.guards:
                if guard.starts is not None:
                    here[guard].append(now_us - int(age_s * 1e6))
        for guard, moments in here.items():
            assert guard.starts is not None
            guard.starts.add_past(moments)
            self._follow_rate(guard)
        return shared

    def note_start(self, channel: str | None, started_us: int) -> int:
        """Let throttles count from a start at this UTC time. Returns the channel's index in the shared table."""
        node = self.node_for(channel)
        for guard in node.guards:
            until_us = started_us + guard.spec.throttle_s * 1_000_000
            if guard.local_limits and guard.spec.throttle_s and until_us > guard.not_before_us:
                self._throttle(guard, until_us)
        return node.shared

    def begin_read(self) -> None:
        """A read begins: changes notified from now on, and claims about to be made, override its result."""
        self._changes_during_read = dict.fromkeys(self.taken)

    def abandon_read(self) -> None:
        """The read failed."""
        self._changes_during_read = None

    @property
    def changed_too_much(self) -> bool:
        """Whether so much changed during a read that it must be repeated."""
        return self._changes_during_read is not None and len(self._changes_during_read) > 8 * self._window

    # -- some nodes --------------------------------------------------------------------------------------

    def merge(self, found: dict[str, Found]) -> None:
        """End a read of some nodes, given by name: their windows hold their best jobs again."""
        changes, self._changes_during_read = self._changes_during_read or {}, None
        counted: dict[Node, bool] = {}
        for name, read in found.items():
            node = self.nodes.get(name)
            if node is not None:
                counted[node] = read.due_more or read.later_more
                self._merge_node(node, read, changes)
        self._put_changes(changes, counted)

    def _merge_node(self, node: Node, read: Found, changes: dict[int, Change]) -> None:
        due = [job for job in read.due if self._is_news(job, changes)]
        later = [job for job in read.later if self._is_news(job, changes)]
        if read.due_more or read.later_more:
            node.unread_count = max(0, node.unread_count - len(due) - len(later))
        else:
            node.unread_count = 0
        self._fill(node, due, later, _last_due(read), _last_later(read))

    def _is_news(self, job: Pending, changes: dict[int, Change]) -> bool:
        """Whether a job that was read is pending now and not known yet."""
        return job.job_id not in changes and job.job_id not in self._places

    def _fill(
        self,
        node: Node,
        due: Iterable[Pending],
        later: Iterable[Pending],
        last_due: tuple[int, int, int] | None,
        last_later: tuple[int, tuple[int, int, int]] | None,
    ) -> None:
        """Add jobs to a node's windows, which are complete up to the last ones read (None: entirely)."""
        self._places.update({job.job_id: (node, WAITING, job) for job in (*due, *later)})
        dropped = [key[2] for key in node.ready.extend([job.key for job in due], last_due)]
        etas = [(job.eta_us or 0, job.key) for job in later]
        dropped += [key[2] for _eta_us, key in node.etas.extend(etas, last_later)]
        for job_id in dropped:
            del self._places[job_id]
        node.unread_count += len(dropped)
        node.head_unknown = False
        self._renew(node)

    def _put_changes(self, changes: dict[int, Change], counted: Mapping[Node, bool]) -> None:
        """Place jobs that arrived during the read and did not fit into a window then.

        `counted`: the nodes that were read, and whether `unread_count` already includes the job.
        """
        for job in changes.values():
            if isinstance(job, Pending) and job.job_id not in self._places:
                node = self.node_for(job.channel)
                if node in counted:
                    node.unread_count = max(0, node.unread_count - counted[node])
                    self._place(node, job)

    # -- the head ----------------------------------------------------------------------------------------

    @property
    def can_begin_with_head(self) -> bool:
        """Whether no further channel can appear, which would be taken for empty."""
        return not any(makes_channels(node.spec) for node in self.nodes.values())

    def load_head(self, held: Iterable[tuple[int, str | None]], due: Sequence[Pending]) -> None:
        """Begin with the best due jobs over all channels; `load` must follow with the rest.

        Until then nothing starts in a sequential channel, since it is not known what its jobs must wait for.
        """
        self._changes_during_read = None
        self.partial = True
        by_node: dict[Node, list[Pending]] = defaultdict(list)
        for job in due:
            by_node[self.node_for(job.channel)].append(job)
        for node in self.nodes.values():
            node.unread_count = 1  # more than none; not counted yet
            self._fill(node, by_node[node], (), due[-1].key, _UNKNOWN)
        for job_id, channel in held:
            self.hold(job_id, channel)

    # -- everything --------------------------------------------------------------------------------------

    def load(self, snapshot: Snapshot) -> dict[int, Change]:
        """End a full read. Returns the jobs held here that do not run according to the database.

        The value is what it says of the job, if that is pending or failed. The caller knows which of them have an open
        request, and passes the others to `accept_database`.
        """
        changes, self._changes_during_read = self._changes_during_read or {}, None
        self.partial = False
        self._places = {i: place for i, place in self._places.items() if place[1] in (HELD, DEFERRED)}
        self._known_failed = 0
        for node in self.nodes.values():
            node.ready.clear()
            node.etas.clear()
        self._count(snapshot, changes)
        self._load_found(snapshot.found, changes)
        more = snapshot.found.due_more or snapshot.found.later_more
        self._put_changes(changes, dict.fromkeys(self.nodes.values(), more))
        return self._load_held(snapshot, changes)

    def accept_database(self, conflicting: Mapping[int, Change]) -> None:
        """Accept the database's view of these jobs that are held here."""
        for job_id, what in conflicting.items():
            if isinstance(what, Failed):
                self.fail(job_id, what.channel)
                continue
            self.forget(job_id)
            if what is not None:
                self.put(what)

    def _load_found(self, found: Found, changes: dict[int, Change]) -> None:
        due: dict[Node, list[Pending]] = defaultdict(list)
        later: dict[Node, list[Pending]] = defaultdict(list)
        for jobs, by_node in ((found.due, due), (found.later, later)):
            for job in jobs:
                if self._is_news(job, changes):
                    by_node[self.node_for(job.channel)].append(job)
        more = found.due_more or found.later_more
        for node in self.nodes.values():
            # The best jobs over all channels were read, so each window is complete up to the last one read.
            # Deferred jobs may have been read or not, so they say nothing about what is unread.
            unread = node.unread_count - len(due[node]) - len(later[node]) if more else 0
            node.unread_count = max(0, unread - len(node.deferred))
            last_due, last_later = (_last_due(found), _last_later(found)) if unread > 0 else (None, None)
            self._fill(node, due[node], later[node], last_due, last_later)

    def _load_held(self, snapshot: Snapshot, changes: dict[int, Change]) -> dict[int, Change]:
        said = {job_id: channel for job_id, channel in snapshot.held if job_id not in changes}
        for job_id, channel in said.items():
            self.hold(job_id, channel)
        conflicting: dict[int, Change] = dict.fromkeys(self.holding() - said.keys() - changes.keys())
        read = (*snapshot.found.due, *snapshot.found.later)
        conflicting.update({job.job_id: job for job in read if job.job_id in conflicting})
        conflicting.update({i: Failed(channel) for i, channel in snapshot.failed if i in conflicting})
        return conflicting

    def _count(self, snapshot: Snapshot, changes: dict[int, Change]) -> None:
        """Count pending jobs (into `unread_count`, for now) and failed jobs anew."""
        pending: dict[Node, int] = defaultdict(int)
        failed: dict[Node, int] = defaultdict(int)
        for (channel, state), number in snapshot.counts.items():
            if state in ("pending", "failed"):
                (pending if state == "pending" else failed)[self.node_for(channel)] += number
        for job_id, channel in snapshot.failed:
            node = self.node_for(channel)
            if job_id in changes or self.is_held(job_id):  # what is known here stands, and counts it if it fails
                failed[node] -= 1
            else:
                self.release(job_id)
                self._know_failed(job_id, node)
        for job_id, what in changes.items():
            if isinstance(what, Failed):
                node = self.node_for(what.channel)
                failed[node] += 1
                self._know_failed(job_id, node)
        for node in list(self.nodes.values()):
            node.unread_count = pending[node]
            self._count_failed(node, failed[node])


def _first_of_each_priority(keys: Sequence[Key]) -> Iterator[Key]:
    """The first key of each priority in sorted `keys`; a search per priority, not a step per job."""
    at = 0
    while at < len(keys):
        yield keys[at]
        at = bisect_left(keys, (keys[at][0] + 1,), at)


def _last_due(found: Found) -> tuple[int, int, int] | None:
    return found.due[-1].key if found.due_more else None


def _last_later(found: Found) -> tuple[int, tuple[int, int, int]] | None:
    return (found.later[-1].eta_us or 0, found.later[-1].key) if found.later_more else None
