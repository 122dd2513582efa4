"""Tables of a given width: nothing is cut, the least important columns go first. Of `status`: test_status_view."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from qjsupervisor.commands.columns import Column, Row, folded, lines

COLUMNS = (Column("state", is_number=False), Column("jobs", optional=1), Column("age", optional=2))
ROWS = (Row("first", ("ready", "12", "3 s")), Row("a-name-that-is-long", ("blocked", "0", "-"), (("why so", "red"),)))


def shown(width: int) -> list[str]:
    return [line.plain for line in lines("name", COLUMNS, ROWS, width)]


def test_numbers_to_the_right_words_to_the_left() -> None:
    assert shown(80) == [
        "name                 state    jobs  age",
        "first                ready      12  3 s",
        "a-name-that-is-long  blocked     0    -",
        "    why so",
    ]


def test_the_least_important_column_goes_first() -> None:
    assert shown(48)[0].split() == ["name", "state", "jobs", "age"]
    wide = (Column("state", is_number=False), Column("j" * 15, optional=1), Column("a" * 15, optional=2))
    found = [line.plain for line in lines("name", wide, ROWS, 50)]
    assert found[0].split() == ["name", "state", "j" * 15]


def test_a_narrow_terminal_gets_sentences_without_what_says_nothing() -> None:
    assert shown(47)[:2] == ["first: ready, jobs 12, age 3 s", "a-name-that-is-long: blocked"]


@pytest.mark.parametrize("width", [1, 2, 7, 20, 30])
@pytest.mark.parametrize("line", ["  words of a line that is long", "漢字データベース" * 3, "x" * 50, "", "   "])
def test_folded_lines_fit_and_lose_nothing(line: str, width: int) -> None:
    parts = [part.plain for part in folded(line, width)]
    assert all(cell_len(part) <= max(2, width) for part in parts)
    assert "".join("".join(parts).split()) == "".join(line.split())


def test_a_folded_line_keeps_its_indentation_and_its_words() -> None:
    assert [part.plain for part in folded("    one two three four", 13)] == ["    one two", "    three", "    four"]
    assert [part.plain for part in folded("anything", 0)] == ["anything"]
    assert [part.plain for part in folded("\x1b[2J", 0)] == ["\\x1b[2J"]
