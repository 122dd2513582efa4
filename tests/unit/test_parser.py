"""Command lines as they are parsed: help, wrong usage, completions."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from qjsupervisor import cli
from qjsupervisor.commands.parser import SORTS, build_parser, options, parse
from qjsupervisor.commands.status_view import DATABASE_KEYS
from qjsupervisor.config.options import OPTIONS

from .called import Calls


@pytest.mark.parametrize("command", ["start", "check", "status", "pause", "jobs", "requeue"])
def test_every_option_is_an_option_of_every_command(
    command: str, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    positional = ["db"] if command in ("jobs", "requeue") else []
    argv = [command, *positional, *(f"--{option.name.replace('_', '-')}=x" for option in OPTIONS if option.flag)]
    arguments = parse(argv)
    assert options(arguments) == {option.name: "x" for option in OPTIONS if option.flag}


def test_help_of_start_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["start", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        if option.secret:  # everybody on the machine can read a command line
            assert option.name.replace("_", "-") not in text
            continue
        assert re.search(rf"{option.flag} (?!VALUE)\S+ ", text), f"{option.name}: see _METAVARS in parser.py"
        assert option.help in text


@pytest.mark.parametrize(
    "argv", [["pause", "--help"], ["start", "--port"], ["stop", "--bogus"], ["cluster", "all"], ["restart"]]
)
def test_the_parser_of_one_command_says_what_that_of_all_says(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as alone:
        build_parser(argv[0]).parse_args(argv)
    said = capsys.readouterr()
    with pytest.raises(SystemExit) as among_all:
        build_parser().parse_args(argv)
    assert (alone.value.code, said) == (among_all.value.code, capsys.readouterr())


@pytest.mark.parametrize("columns", ["50", "100", "", "0", "wide", None])
def test_help_is_as_wide_as_the_terminal(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    build_parser().print_help()
    said = capsys.readouterr().out
    parser = build_parser()
    parser.formatter_class = argparse.HelpFormatter
    parser.print_help()
    assert said == capsys.readouterr().out


def test_every_order_of_the_status_is_known() -> None:
    assert ("problems", "name", *DATABASE_KEYS) == SORTS


def test_the_completion_of_a_shell_knows_commands_options_and_values() -> None:
    """In a real bash, as it asks when somebody presses Tab."""
    script = Path(__file__).resolve().parents[2] / "conf" / "completions" / "qjsupervisor"

    def complete(*words: str) -> set[str]:
        given = " ".join(f"'{word}'" for word in words)
        code = (
            f"qjsupervisor() {{ echo one; echo two; }}; source {script}; COMP_WORDS=(qjsupervisor {given});"
            f" COMP_CWORD={len(words)}; _shtab_qjsupervisor; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", code], check=True, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return {line.strip() for line in done.stdout.splitlines()}

    assert complete("re") == {"reload", "release", "resume", "requeue"}
    assert "--problems" in complete("status", "--")
    assert complete("jobs", "--state", "pen") == {"pending"}
    assert complete("pause", "t") == {"two"}
