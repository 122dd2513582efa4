"""Releases what a dead worker left in the shared table: its demand, its untaken grant and, at last, its permits.

Under the table's lock; its caller grants anew and wakes. The permits of its running jobs stay at first, as Odoo goes on
with them: the master decides when they are given up (semaphore.py). What a death inside the lock left: repair.py.
"""

from __future__ import annotations

from . import rates
from .core import TableCore
from .layout import STARTS_UNKNOWN, STARTS_UNREAD, Cell, Header, Slot
from .servers import dismiss_dead


def drop_demand(core: TableCore, slot: int, now_ns: int) -> None:
    """Drop what it waited for and read, and a grant that it has not taken. Its successor does that too."""
    base = core.slot_base(slot)
    core.drop_demand(slot)
    if core.words[base + Slot.STARTS] == STARTS_UNREAD:
        rates.set_starts(core, slot, STARTS_UNKNOWN, now_ns)
    grant = core.words[base + Slot.GRANT]
    if grant:
        core.put_grant(slot, -1)
        rates.take_back_start(core, grant - 1, core.words[base + Slot.GRANTED_NS], now_ns)
        core.add_held(slot, grant - 1, -1, now_ns)


def release(core: TableCore, slot: int, now_ns: int, *, give_up: bool) -> None:
    """After the worker was reaped. `give_up`: its permits too, although its jobs may still run."""
    base = core.slot_base(slot)
    core.words[base + Slot.PID] = 0
    core.words[base + Slot.TERM] = core.words[base + Slot.TREE] = 0
    drop_demand(core, slot, now_ns)
    dismiss_dead(core, slot)
    if give_up:
        _give_up_permits(core, slot, now_ns)


def _give_up_permits(core: TableCore, slot: int, now_ns: int) -> None:
    for channel in range(core.words[Header.USED_CHANNELS]):
        cell = core.cell_base(slot, channel)
        held = core.words[cell + Cell.HELD]
        if held:
            core.add_held(slot, channel, -held, now_ns)
        core.set_failed(slot, channel, 0, now_ns)
        core.words[cell + Cell.PENDING] = core.words[cell + Cell.NOT_DUE] = 0
