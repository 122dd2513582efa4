"""Statements of the commands, for old servers too."""

from __future__ import annotations

from qjsupervisor.commands import statements


def test_an_old_server_gets_no_words_that_it_does_not_know() -> None:
    """MATERIALIZED is of PostgreSQL 12."""
    known = "WITH a AS MATERIALIZED (SELECT 1), b AS NOT MATERIALIZED (SELECT 2) SELECT 3"
    assert statements.for_version(known, 120000) == known
    old = statements.for_version(known, 110000)
    assert "MATERIALIZED" not in old
    assert old.count("AS") == 2
