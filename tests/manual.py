"""`python -m tests.manual`: the man page and the shell completions in conf/, made from the command line's parser.

They are files of the repository, so that nobody who installs it needs what makes them: shtab writes the completions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import shtab

from qjsupervisor.commands.parser import PROG, build_parser
from qjsupervisor.config.options import OPTIONS
from qjsupervisor.version import __version__

CONF = Path(__file__).resolve().parents[1] / "conf"

#: Databases by name, as the running supervisor knows them: asked for when somebody presses Tab behind a command.
_DATABASES = {
    "bash": """
_qjsupervisor_databases() {
  local IFS=$'\\n'
  compgen -W "$(qjsupervisor status --names 2>/dev/null)" -- "$1"
}
""",
    "zsh": """
_qjsupervisor_databases() {
  local -a found
  found=(${(f)"$(qjsupervisor status --names 2>/dev/null)"})
  compadd -a found
}
""",
}
_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files"}
_EXITS = (
    (0, "done"),
    (1, "something would not run (check), was left alone (requeue), is not there (jobs, status), or was refused"),
    (2, "wrong usage; 64 too"),
    (69, "no supervisor answers"),
    (70, "an error, in one line on standard error"),
    (73, "another supervisor runs already"),
    (78, "the configuration is wrong"),
)
_SIGNALS = (
    ("HUP", "read the configuration again and look for databases"),
    ("TERM, INT", "start nothing more and exit within graceful_timeout; a second one: at once"),
    ("QUIT", "write all stacks to standard error, then at once"),
    ("USR1", "open the log file again"),
    ("USR2", "log the state of every worker and channel"),
)


def commands_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Each command's own parser."""
    (found,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return dict(found.choices)


def completion(shell: str) -> str:
    """The script that a shell reads."""
    parser = build_parser()
    for command in commands_of(parser).values():
        for action in command._actions:
            if action.metavar in ("FILE", "PATH"):
                action.complete = {shell: _FILES[shell]}  # type: ignore[attr-defined]
            elif str(action.metavar).lstrip("[").startswith("DATABASE"):
                action.complete = {shell: "_qjsupervisor_databases"}  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell, preamble=_DATABASES[shell])
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def man_page() -> str:
    """In roff, as man(7) has it."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    parser = build_parser()
    yield f'.TH QJSUPERVISOR 1 "" "{PROG} {__version__}" "User Commands"'
    yield from (".SH NAME", rf"{PROG} \- runs the jobs of Odoo's queue_job, for all databases, one process each")
    yield ".SH SYNOPSIS"
    commands = commands_of(parser)
    for name, command in commands.items():
        yield from (f".B {PROG} {name}", _synopsis(command), ".br")
    yield from (".SH DESCRIPTION", _roff(parser.description or ""))
    yield "It reads Odoo's own configuration file. Each command takes the options of the configuration below."
    yield ".SH COMMANDS"
    for name, command in commands.items():
        yield from (f".SS {name}", _roff(command.description or ""))
        for action in _own(command):
            yield from (".TP", _names(action), _roff(_help(action)))
    yield ".SH OPTIONS"
    start = commands["start"]
    for action in start._actions:
        yield from (".TP", _names(action), _roff(_help(action)))
    yield from (".SH ENVIRONMENT", ".TP", r".B ODOO_RC", "Odoo's configuration file, where --config does not name it")
    for option in OPTIONS:
        yield from (".TP", f".B {option.variable}", _roff(option.help))
    yield from (".TP", r".B ODOO_QUEUE_JOB_*", "as OCA's queue_job reads them: CHANNELS, HOST, PORT, SCHEME and others")
    yield from _listed("SIGNALS", _SIGNALS)
    yield from _listed("EXIT STATUS", ((str(number), text) for number, text in _EXITS))
    yield ".SH SEE ALSO"
    yield "The documentation: https://github.com/qjsupervisor/qjsupervisor/tree/main/docs"


def _listed(title: str, rows: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in rows:
        yield from (".TP", rf".B {name}", _roff(text))


def _own(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """What the command takes beside the options of the configuration and -h."""
    return [
        action
        for action in command._actions
        if action.help is not argparse.SUPPRESS and not action.dest.startswith("option:") and action.dest != "help"
    ]


def _synopsis(command: argparse.ArgumentParser) -> str:
    return " ".join(map(_usage, _own(command)))


def _usage(action: argparse.Action) -> str:
    if action.option_strings:
        takes = "" if action.nargs == 0 else rf" \fI{_roff(_value(action))}\fR"
        return rf"[{_roff(action.option_strings[-1])}{takes}]"
    name = rf"\fI{_roff(_value(action))}\fR"
    return {"?": f"[{name}]", "*": f"[{name} ...]"}.get(str(action.nargs), name)


def _names(action: argparse.Action) -> str:
    names = ", ".join(rf"\fB{_roff(each)}\fR" for each in action.option_strings)
    if action.nargs == 0:
        return names
    return f"{names} " * bool(names) + rf"\fI{_roff(_value(action))}\fR"


def _value(action: argparse.Action) -> str:
    if action.metavar is None and action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _roff(text: str) -> str:
    """Nothing in it is an order to roff."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + text if text.startswith((".", "'")) else text


#: Where it is -> what makes it.
FILES: Mapping[Path, Callable[[], str]] = {
    CONF / "qjsupervisor.1": man_page,
    CONF / "completions" / PROG: lambda: completion("bash"),
    CONF / "completions" / f"_{PROG}": lambda: completion("zsh"),
}


def write() -> None:
    """Renew them all."""
    for path, make in FILES.items():
        path.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write()
