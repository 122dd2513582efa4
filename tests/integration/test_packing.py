"""Code that workers run, on few pages."""

from __future__ import annotations

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.master import memory, packing
from qjsupervisor.worker import warmup


def test_code_that_workers_run_lies_together(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load({}, {"ODOO_RC": "/dev/null"})

    def code_pages() -> tuple[int, int]:
        """How many functions are run, and on how many pages their code begins."""
        with packing.recorded() as codes:
            warmup.play(config, starts=1, jobs=3)
        return len(codes), len({number // 4096 for number in codes})

    monkeypatch.setattr(memory, "filling", [])
    before, scattered = code_pages()
    memory.fill_gaps()
    with packing.recorded() as codes:
        warmup.play(config, starts=1, jobs=3)
    packing.pack(codes)
    del codes
    after, together = code_pages()
    assert after == pytest.approx(before, rel=0.1)
    assert together <= scattered / 2
