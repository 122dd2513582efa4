"""The channels of one database, and the mapping from a job's channel name to one of them.  Pure.

An unconfigured channel gets the defaults of its nearest configured ancestor and becomes its direct child, in whatever
order the names appear.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..channelspec import ROOT, ChannelSpec, complete_name, inherited, makes_channels, parent_name
from .nodes import Branch, Node
from .ruled import RuledBranch

#: Limit of remembered raw channel names, which let a read of one channel use the index.
KNOWN_NAMES = 10_000
#: Limit of unconfigured channels per database, since their names come from data. Further ones share one channel per
#: configured ancestor, so that limits hold and memory is bounded.
MAX_MADE = 1000
_OTHERS = "(others)"


def not_shared(_spec: ChannelSpec, _parent: int) -> int | None:
    """For trees whose channels are not shared with other databases."""
    return None


class Shared(NamedTuple):
    """The part of a tree that is in the shared table."""

    #: Channel -> its index there. Owned by the tree, which adds to it.
    channels: dict[str, int]
    #: The tree also enforces the limits of these.
    keep_limits: bool
    #: Called with a channel created by an ancestor's defaults and that ancestor's index; returns its index in the table
    #: or None.
    add: Callable[[ChannelSpec, int], int | None] = not_shared


def only_root() -> Shared:
    """For a tree per database: the table only knows root's overall limit."""
    return Shared({ROOT: 0}, keep_limits=True)


class ChannelNames(ABC):
    """Nodes by name."""

    def __init__(self, specs: Iterable[ChannelSpec], shared: Shared, window: int) -> None:
        """`specs`: parents before children. `window`: most jobs held per node."""
        self._window = window
        self._shared, self._keep_limits, self._share = shared
        self.nodes: dict[str, Node] = {}
        self.names: dict[str | None, Node] = {}
        self._configured: set[str] = set()
        self._paused: frozenset[str] = frozenset()
        self._limits: dict[str, int] = {}
        self._branches: dict[int, Branch] = {}
        specs = list(specs)
        #: Whether it is for this tree to keep minimums or weights.
        self._is_ruled = self._keep_limits and any(spec.minimum or spec.weight for spec in specs)
        for spec in specs:
            self._add(spec)
            if not spec.made:  # (another database's worker may have shared it)
                self._configured.add(spec.name)

    def node_for(self, channel: str | None) -> Node:
        """The node of a job's channel.

        An unconfigured channel shares its ancestor's node if that makes no difference.
        """
        node = self.names.get(channel)
        if node is None:
            name = complete_name(channel)
            node = self.nodes.get(name) or self._unknown(name)
            if len(self.names) < KNOWN_NAMES:
                self.names[channel] = node
        return node

    def _configured_above(self, name: str) -> Node:
        above = parent_name(name)
        while above is not None and above not in self._configured:
            above = parent_name(above)
        return self.nodes[above or ROOT]

    def _nearest(self, name: str) -> Node:
        above = parent_name(name)
        while above is not None and above not in self.nodes:
            above = parent_name(above)
        return self.nodes[above or ROOT]

    def _unknown(self, name: str) -> Node:
        above = self._configured_above(name)
        if not makes_channels(above.spec):
            nearest = self._nearest(name)
            # In a sequential channel, its own failed or not yet due jobs hold up the others.
            if not nearest.spec.sequential:
                return nearest
        return self._make(name, above)

    def _make(self, name: str, above: Node) -> Node:
        """Create a channel from its ancestor's defaults."""
        if len(self.nodes) - len(self._configured) >= MAX_MADE:
            name = f"{above.name}.{_OTHERS}"
            if name in self.nodes:
                return self.nodes[name]
        spec = inherited(name, above.spec, made=True)
        if spec.capacity is not None or spec.rate is not None:
            index = self._share(spec, above.shared)
            if index is not None:
                self._shared[name] = index
        return self._add(spec)

    def _add(self, spec: ChannelSpec) -> Node:
        parent = self._configured_above(spec.name) if self._configured else None
        index = self._shared.get(spec.name)
        local = index is None or self._keep_limits
        if index is None:
            index = parent.shared if parent is not None else 0
        node = Node(spec, parent, index, self._window, local_limits=local)
        node.paused_by_order = self._is_paused(spec.name)
        node.scheduled = self._limit_of(spec.name)
        if index not in self._branches:
            self._branches[index] = RuledBranch(index) if self._is_ruled else Branch(index)
        self._branches[index].add(node)
        self.nodes[spec.name] = node
        return node

    # -- pauses ------------------------------------------------------------------------------------------

    def set_paused(self, names: Iterable[str]) -> bool:
        """Pause exactly these channels and their subchannels by an operator's order.

        Returns True if jobs must be read again for it to take effect.
        """
        self._paused = frozenset(names)
        unknown = self._paused - self.nodes.keys()
        for name in unknown:
            self._make(name, self._configured_above(name))
        for name, node in self.nodes.items():
            paused = self._is_paused(name)
            if node.paused_by_order != paused:
                node.paused_by_order = paused
                self._give_room(node)
        return bool(unknown)

    def set_limits(self, limits: Mapping[str, int]) -> bool:
        """Apply the schedule's limits to exactly these channels, besides their own; 0: nothing starts.

        Returns True if jobs must be read again for it to take effect.
        """
        self._limits = dict(limits)
        unknown = limits.keys() - self.nodes.keys()
        for name in unknown:
            self._make(name, self._configured_above(name))
        for name, node in self.nodes.items():
            limit = self._limit_of(name)
            if node.scheduled != limit:
                node.scheduled = limit
                self._give_room(node)
        return bool(unknown)

    def _limit_of(self, name: str) -> int | None:
        """The schedule's limit for a channel; a closed channel closes its subchannels, whatever their parent is."""
        above: str | None = name
        while self._limits and above is not None:
            if self._limits.get(above) == 0:
                return 0
            above = parent_name(above)
        return self._limits.get(name)

    def _is_paused(self, name: str | None) -> bool:
        while name is not None and name not in self._paused:
            name = parent_name(name)
        return name is not None

    @abstractmethod
    def _give_room(self, node: Node) -> None:
        """Something that held up jobs in a node may have ended."""
