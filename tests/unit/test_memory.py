"""What is made ready in the master before workers are forked."""

from __future__ import annotations

import pytest

from qjsupervisor.master import memory


def pages(size: int) -> int:
    """On how many pages a few new objects of this size are."""
    return len({id(block) // 4096 for block in [bytes(size) for _ in range(50)]})


@pytest.mark.parametrize("size", [60, 200, 450, 800])
def test_new_objects_do_not_go_into_gaps(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "filling", [])
    blocks = [bytes(size) for _ in range(4000)]
    # One gap a page.
    kept = [block for number, block in enumerate(blocks) if number % (4096 // size)]
    del blocks
    assert pages(size) > 25
    memory.fill_gaps()
    assert pages(size) <= 50 * (size + 64) // 4096 + 4
    assert kept
