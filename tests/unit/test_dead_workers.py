"""What a dead worker leaves in the shared table, and when its permits go."""

from __future__ import annotations

from qjsupervisor.table import dead_workers, rates
from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import STARTS_UNREAD, Cell, Header, Slot

from .cores import LINE, ROOT, SUB, S, is_closed, total


def die(core: TableCore) -> None:
    """It ran a job, had a failed one, waited for more, read what was started before, and was granted a permit."""
    core.words[core.slot_base(0) + Slot.PID] = 7
    core.add_held(0, ROOT, 1, S)
    core.set_failed(0, LINE, 1, S)
    core.put_demand(0, SUB, True)
    core.put_bit(core.layout.waiting, 0, True)
    rates.set_starts(core, 0, STARTS_UNREAD, S)
    core.add_held(0, SUB, 1, S)
    core.put_grant(0, SUB)


def test_its_demand_and_what_it_had_not_taken_go_at_once_and_its_running_jobs_stay(core: TableCore) -> None:
    die(core)
    dead_workers.release(core, 0, 2 * S, give_up=False)
    assert [total(core, channel) for channel in (ROOT, SUB)] == [1, 0]
    assert core.words[core.slot_base(0) + Slot.GRANT] == core.words[core.slot_base(0) + Slot.PID] == 0
    assert not core.waiting_slots(1 << SUB)
    assert not core.words[Header.STARTS_UNREAD], "or no rate would ever open"
    assert is_closed(core, LINE), "its failed job is still there"


def test_what_runs_goes_where_it_is_given_up(core: TableCore) -> None:
    die(core)
    dead_workers.release(core, 0, 2 * S, give_up=True)
    assert total(core, ROOT) == core.words[core.cell_base(0, ROOT) + Cell.HELD] == 0
    assert not is_closed(core, LINE)


def test_a_successor_finds_no_grant_that_it_knows_nothing_of(core: TableCore) -> None:
    die(core)
    dead_workers.drop_demand(core, 0, 2 * S)
    assert [total(core, channel) for channel in (ROOT, SUB)] == [1, 0]
    assert core.words[core.slot_base(0) + Slot.GRANT] == 0
