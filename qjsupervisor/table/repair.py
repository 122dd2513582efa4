"""Repairs the shared table after a process died, or failed, while it held the lock.

Sums and bitmaps are computed afresh from the truth (HELD, FAILED, the demand orders), and Header.REPAIRS tells every
worker to write its own HELD words again. It takes nothing from anybody: what a dead worker held and wanted is released
in dead_workers.py.
"""

from __future__ import annotations

from ..states import TargetState
from .derived import DerivedWords
from .layout import CELL_WORDS, NEVER_NS, STARTS_UNREAD, Cell, Channel, Header, Server, Slot


def repair(table: DerivedWords, now_ns: int) -> None:
    """Compute afresh all that is derived. It may die as well, anywhere: the mark DIRTY stays until the lock is left."""
    table.words[Header.DIRTY] = 1
    # The dead holder may have added a channel without announcing it.
    table.words[Header.GENERATION] += 1
    used = table.words[Header.USED_CHANNELS]
    for word in range(table.layout.active, table.layout.classes):
        table.bits[word] = 0
    for channel in range(used):
        base = table.channel_base(channel)
        table.words[base + Channel.TOTAL] = table.words[base + Channel.FAILED] = 0
        table.words[base + Channel.LACK] = table.words[base + Channel.KEPT] = 0
        for word in range(base + table.layout.waiting_slots_in, base + table.layout.channel_size):
            table.bits[word] = 0
    table.words[Header.STARTS_UNREAD] = table.words[Header.RESERVED] = 0
    table.words[Header.NEXT_OPEN_NS] = NEVER_NS
    for slot in range(table.slots):
        if table.words[table.slot_base(slot) + Slot.NAME_LENGTH]:
            _repair_slot(table, slot, used)
    for channel in range(used):
        limits = table.tree().limits[channel]
        if limits is not None and limits.ring is not None:
            limits.ring.mend()
        table.settle(channel, now_ns)
        table.settle_minimums(channel)
    for number in range(table.words[Header.USED_SERVERS]):
        _repair_server(table, table.server_base(number))
    table.words[Header.REPAIRS] += 1


def _repair_slot(table: DerivedWords, slot: int, used: int) -> None:
    words, paths = table.words, table.tree().paths
    start = table.cell_base(slot, 0)
    row = words[start : start + used * CELL_WORDS].tolist()
    base = table.slot_base(slot)
    words[base + Slot.TOTAL], words[base + Slot.DEFICIT] = sum(row[Cell.HELD :: CELL_WORDS]), 0
    table.settle_share(slot)
    for channel, held in enumerate(row[Cell.HELD :: CELL_WORDS]):
        if held:
            for node in paths[channel]:
                words[table.channel_base(node) + Channel.TOTAL] += held
    for channel, failed in enumerate(row[Cell.FAILED :: CELL_WORDS]):
        if failed:
            words[table.channel_base(channel) + Channel.FAILED] += failed
    order = [channel for channel in table.demand_order(slot) if channel < used]
    for channel in order:
        table.put_demand(slot, channel, True)
    words[Header.STARTS_UNREAD] += words[base + Slot.STARTS] == STARTS_UNREAD
    waits = bool(order) and not words[base + Slot.GRANT]
    table.put_bit(table.layout.waiting, slot, waits)
    table.put_bit(table.layout.granted, slot, bool(words[base + Slot.GRANT]))
    table.put_bit(table.layout.unserved, slot, waits)  # not known: a turn too early does no harm


def _repair_server(table: DerivedWords, base: int) -> None:
    words = table.words
    words[base + Server.PROBER] = words[base + Server.LEASE_NS] = 0  # the next one to look probes
    if words[base + Server.STATE] == TargetState.DOWN:
        words[base + Server.FAILURES] = max(1, words[base + Server.FAILURES])
    else:
        words[base + Server.FAILURES] = words[base + Server.REASON_LENGTH] = 0
