"""Databases that compete for permits in a tree with minimums or weights."""

from __future__ import annotations

from collections.abc import Sequence

from qjsupervisor.config.channel_string import parse_channels, with_options
from qjsupervisor.states import Fairness
from qjsupervisor.table.grants import NoDemand, Scheduler

from .slots import World


class Branches:
    """Databases that want a permit in some channels each, for ever; whose is the next one, which comes back at once."""

    def __init__(
        self,
        channels: str,
        wanted: Sequence[Sequence[str]],
        fairness: Fairness = Fairness.ROUND_ROBIN,
    ) -> None:
        self.specs = with_options(parse_channels(channels), ())
        self.world = World(self.specs, [1] * len(wanted), fairness)
        self.fairness = fairness
        self.names = [spec.name for spec in self.specs]
        self.world.start_all()
        for slot, names in enumerate(wanted):
            for place, name in enumerate(names):
                self.want(slot, name, place)

    def want(self, slot: int, name: str, place: int = 0) -> None:
        worker = self.world.workers[slot]
        assert worker.queue is not None
        assert worker.worker_slot is not None
        worker.queue.arrive(self.names.index(name), (10, place, slot))
        worker.worker_slot._publish(worker.queue, self.world.now_ns, served=False)

    def away(self, slot: int, name: str) -> None:
        worker = self.world.workers[slot]
        assert worker.queue is not None
        assert worker.worker_slot is not None
        worker.queue.cancel(self.names.index(name))
        worker.worker_slot._publish(worker.queue, self.world.now_ns, served=False)

    def next(self) -> str | None:
        grant = Scheduler(self.world.core, self.fairness, -1, NoDemand(), self.world.now_ns).next()
        return None if grant is None else self.names[grant.channel]

    def run(self, slot: int, name: str, number: int = 1) -> None:
        """Jobs are found running there, or (negative) are over."""
        self.world.core.add_held(slot, self.names.index(name), number, self.world.now_ns)

    def served(self, number: int) -> list[str]:
        found = [self.next() for _ in range(number)]
        assert None not in found
        return [name for name in found if name is not None]

    def close(self) -> None:
        self.world.close()
