"""Rates and throttles in the shared table: what a start closes, until when, and which of several counts."""

from __future__ import annotations

from qjsupervisor.table import rates
from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import NEVER_NS, Header

from .cores import SLOW, SUB, S, is_closed


def test_a_throttle_closes_until_its_time_and_opens_then(core: TableCore) -> None:
    assert core.has_rules(SLOW)
    assert not core.has_rules(SUB)
    assert not rates.count_start(core, SLOW, 10 * S), "a throttle is no rate"
    assert is_closed(core, SLOW)
    assert core.not_before_ns(SLOW) == 15 * S
    assert core.words[Header.NEXT_OPEN_NS] == 15 * S
    rates.open_throttled(core, 14 * S)
    assert is_closed(core, SLOW)
    rates.open_throttled(core, 15 * S)
    assert not is_closed(core, SLOW)


def test_of_two_starts_in_a_throttled_channel_the_later_one_counts(core: TableCore) -> None:
    rates.start_throttles(core, SLOW, 10 * S, 10 * S)
    rates.start_throttles(core, SLOW, 7 * S, 10 * S)
    assert core.not_before_ns(SLOW) == 15 * S
    assert rates.restart_throttles(core, SLOW, 10 * S, 12 * S), "nobody started since"
    assert core.not_before_ns(SLOW) == 17 * S
    assert not rates.restart_throttles(core, SLOW, 10 * S, 13 * S), "another one did"


def test_a_worker_looks_again_when_a_channel_that_it_wants_opens(core: TableCore) -> None:
    rates.count_start(core, SLOW, 10 * S)
    throttled = core.read_bitmap(core.layout.throttled, core.layout.channels)
    assert rates.watch_until_ns(core, 0, throttled, 1 << SLOW) == 15 * S
    assert rates.watch_until_ns(core, 0, throttled, 1 << SUB) == NEVER_NS
