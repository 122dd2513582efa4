"""The words of the shared table."""

from __future__ import annotations

import sys

import pytest

from qjsupervisor.errors import SemaphoreError
from qjsupervisor.table.words import TableWords


def test_no_table_where_bitmaps_would_be_read_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(SemaphoreError, match="little-endian"):
        TableWords(2, 2)
