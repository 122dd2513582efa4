"""What a repair makes of a table whose lock a dead process held."""

from __future__ import annotations

import pytest

from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import Channel, Header

from .cores import LINE, ROOT, SUB, is_closed, total


def test_what_was_left_in_the_middle_of_a_change_is_put_right_by_the_next_one(core: TableCore) -> None:
    core.add_held(0, SUB, 1, 0)
    core.set_failed(0, LINE, 1, 0)
    repairs, generation = core.words[Header.REPAIRS], core.words[Header.GENERATION]
    core.words[core.channel_base(ROOT) + Channel.TOTAL] = 7
    core.words[core.channel_base(LINE) + Channel.FAILED] = 7
    core.put_bit(core.layout.closed, SUB, False)
    with pytest.raises(ZeroDivisionError), core.locked(0):
        raise ZeroDivisionError
    assert core.words[Header.DIRTY]
    with core.locked(0):
        assert [total(core, channel) for channel in (ROOT, SUB)] == [1, 1]
        assert core.words[core.channel_base(LINE) + Channel.FAILED] == 1
        assert is_closed(core, SUB)
        assert is_closed(core, LINE)
    assert core.words[Header.REPAIRS] == repairs + 1
    assert core.words[Header.GENERATION] > generation
    with core.locked(0):
        pass
    assert core.words[Header.REPAIRS] == repairs + 1, "once is enough"
