"""The command line's grammar: commands, their arguments and the configuration's options. Runs nothing.

`start` is parsed here, so every forked process has this module; it imports only the table of options.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..config.options import OPTIONS, Option
from ..config.values import called
from ..states import JobState
from ..version import __version__
from .arguments import parse_channel, parse_duration, parse_scope

PROG = "qjsupervisor"
#: Prefix of options in the parsed arguments, to keep them apart from arguments of the commands.
_PREFIX = "option:"

#: Metavars of parsers outside config.values.
_METAVARS = {
    "channel_options": "CHANNEL:OPTION=VALUE,...",
    "coordination_floor": "CHANNEL:N,...",
    "db_capacity": "PATTERN:OPTION=VALUE,...",
    "odoo_version": "VERSION",
    "schedule": "CHANNEL:WINDOW,...",
    "targets": "URLS",
    "timezone": "ZONE",
}

_T = TypeVar("_T")


class _Formatter(argparse.HelpFormatter):
    """argparse's, without shutil: it would be imported for the terminal's width, in every process, before any help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As shutil.get_terminal_size has it."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return 80


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; `command` is the name of the command. Wrong usage raises SystemExit(2).

    Positional arguments may follow options, which argparse alone would not accept once it has consumed some.
    """
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser(words[0] if words else None)
    arguments, rest = parser.parse_known_args(words)
    several = next((name for name in ("uuids", "patterns") if hasattr(arguments, name)), None)
    if any(text.startswith("-") for text in rest) or (rest and several is None):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and several is not None:
        setattr(arguments, several, [*getattr(arguments, several), *rest])
    if hasattr(arguments, "all_databases"):
        _settle_database(parser, arguments)
    if arguments.command == "cluster" and (arguments.what == "forget") is (arguments.member is None):
        parser.error("cluster: forget takes a MEMBER, HOST:PID as `cluster status` shows it, and nothing else does")
    return arguments


def _settle_database(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """With --all there is no database, so an argument in its place is a UUID."""
    if arguments.all_databases and arguments.database is not None:
        arguments.database, arguments.uuids = None, [arguments.database, *arguments.uuids]
    if arguments.database is None and not arguments.all_databases:
        parser.error(f"{arguments.command}: name a DATABASE, or --all for all of them")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command, or of all commands if there is no such one; sets `command` to the chosen one's name.

    All of them together take ten milliseconds.
    """
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Runs the jobs of Odoo's queue_job, for all databases, one process each.",
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"{PROG} {__version__}", help="show the version and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in (command,) if command in _BUILDERS else _BUILDERS:
        _BUILDERS[name](commands)
    return parser


_Commands = argparse._SubParsersAction  # noqa: SLF001  (argparse has no public name for it)


def _add(
    commands: _Commands[argparse.ArgumentParser],
    name: str,
    text: str,
    *,
    shows_options: bool = False,
) -> argparse.ArgumentParser:
    """Add a command with every option of the configuration; its help lists them or refers to `start --help`."""
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=None if shows_options else f"All options of `{PROG} start --help` are understood here too.",
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.set_defaults(command=name)
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "-c",
        "--config",
        dest=_PREFIX + "config",
        metavar="FILE",
        help="Odoo's configuration file (default: $ODOO_RC, ~/.odoorc, /etc/odoo/odoo.conf)",
    )
    for option in OPTIONS:
        if option.flag is not None:
            group.add_argument(
                option.flag,
                dest=_PREFIX + option.name,
                metavar=_METAVARS.get(option.name) or called(option.parse),
                help=_help(option) if shows_options else argparse.SUPPRESS,
            )
    return parser


def _help(option: Option[Any]) -> str:
    default = f" (default: {option.default_text})" if option.default_text else ""
    return (option.help + default).replace("%", "%%")


def _add_start(commands: _Commands[argparse.ArgumentParser]) -> None:
    _add(commands, "start", "run in the foreground until stopped", shows_options=True)


def _add_check(commands: _Commands[argparse.ArgumentParser]) -> None:
    check = _add(commands, "check", "say what would run, what would not, and why")
    check.add_argument("--json", action="store_true", help="one JSON document")


#: Sort orders of `status --sort`; see status_view.
SORTS = ("problems", "name", "pending", "running", "failed", "oldest", "rate", "dispatched", "restarts")


def _add_status(commands: _Commands[argparse.ArgumentParser]) -> None:
    status = _add(commands, "status", "show databases, channels and targets of the running supervisor")
    status.add_argument(
        "patterns",
        nargs="*",
        metavar="DATABASE",
        help="only these databases; shell patterns such as 'prod_*' are allowed",
    )
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--names", action="store_true", help="only the names of the databases, one per line")
    form.add_argument("--watch", action="store_true", help="refresh every second until q or Ctrl-C")
    form.add_argument(
        "--check",
        action="store_true",
        help="one line for a monitoring system, exit status 0, 1, 2 or 3: OK, WARNING, CRITICAL, UNKNOWN",
    )
    status.add_argument("--problems", action="store_true", help="only what is wrong")
    status.add_argument(
        "--sort",
        choices=SORTS,
        default=SORTS[0],
        metavar="BY",
        help=f"order of the databases: {', '.join(SORTS)} (default: {SORTS[0]} first)",
    )
    status.add_argument("--all", action="store_true", help="list idle databases and channels too")


def _add_release(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "release",
        "close the connection to a database and stay away, so that it can be duplicated or restored",
    )
    parser.add_argument("database", metavar="DATABASE")
    _add_for(parser, "come back")


def _add_reload(commands: _Commands[argparse.ArgumentParser]) -> None:
    _add(commands, "reload", "make the running supervisor read its configuration again")


def _add_stop(commands: _Commands[argparse.ArgumentParser]) -> None:
    _add(commands, "stop", "stop the running supervisor; jobs running in Odoo continue")


def _add_pause(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add(commands, "pause", "start no more jobs of a database, a channel, or everything")
    _add_scope(parser)
    _add_for(parser, "resume automatically")


def _add_resume(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add(commands, "resume", "end a pause")
    _add_scope(parser)
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="run the jobs of DATABASE although a module is still to be installed, upgraded or removed",
    )


def _add_for(parser: argparse.ArgumentParser, then: str) -> None:
    text = f"{then} after 90s, 30m, 2h, 1d (default: on `resume`)"
    parser.add_argument("--for", dest="for_s", type=_argument(parse_duration), metavar="TIME", help=text)


def _add_scope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scope",
        nargs="?",
        default=parse_scope(""),
        type=_argument(parse_scope),
        metavar="[DATABASE][:CHANNEL]",
        help="without a database: every one; without a channel: all channels",
    )


def _add_jobs(commands: _Commands[argparse.ArgumentParser]) -> None:
    jobs = _add(commands, "jobs", "list the jobs of a database, and why waiting ones wait")
    _add_database(jobs)
    _add_state(jobs, [state.value for state in JobState])
    _add_channel(jobs)
    jobs.add_argument(
        "--limit", type=_argument(_positive), default=100, metavar="N", help="at most N of a database (100)"
    )
    jobs.add_argument("--json", action="store_true", help="one JSON document")


def _add_requeue(commands: _Commands[argparse.ArgumentParser]) -> None:
    requeue = _add(commands, "requeue", "set jobs back to pending; needs --state or UUIDs")
    _add_database(requeue)
    _add_channel(requeue)
    requeue.add_argument("--yes", action="store_true", help="do not ask")
    _add_state(requeue, ["enqueued", "started", "failed"])
    requeue.add_argument(
        "--older-than",
        dest="older_than_s",
        type=_argument(parse_duration),
        metavar="TIME",
        help="only jobs that have been in their state longer than 90s, 30m, 2h, 1d",
    )


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", nargs="?", metavar="DATABASE", help="whose jobs; or --all")
    parser.add_argument("uuids", nargs="*", metavar="UUID", help="only these jobs")
    parser.add_argument("--all", dest="all_databases", action="store_true", help="the jobs of all databases")


def _add_state(parser: argparse.ArgumentParser, states: Sequence[str]) -> None:
    parser.add_argument(
        "--state", choices=states, metavar="STATE", help=f"only jobs in this state: {', '.join(states)}"
    )


def _add_channel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channel",
        type=_argument(parse_channel),
        metavar="CHANNEL",
        help="only jobs of this channel and its subchannels",
    )


def _add_cluster(commands: _Commands[argparse.ArgumentParser]) -> None:
    cluster = _add(
        commands, "cluster", "one capacity over several supervisors: create its schema, show or forget members"
    )
    cluster.add_argument(
        "what",
        choices=["init", "status", "forget"],
        help="create the schema; show members and leases; free what is kept for a lost member",
    )
    cluster.add_argument("member", nargs="?", metavar="MEMBER", help="forget: HOST:PID as `cluster status` shows it")
    cluster.add_argument("--print", action="store_true", help="init: print the SQL and change nothing")
    cluster.add_argument("--json", action="store_true", help="status: one JSON document")


def _add_listener(commands: _Commands[argparse.ArgumentParser]) -> None:
    listener = _add(commands, "eventlistener", "under supervisord: restart a supervisor that does not answer")
    listener.add_argument(
        "--program", default=PROG, metavar="NAME", help=f"as supervisord calls it, GROUP:NAME in a group ({PROG})"
    )
    listener.add_argument(
        "--patience",
        dest="patience_s",
        type=_argument(parse_duration),
        default=25.0,
        metavar="TIME",
        help="how long it may be silent; replacing two hundred workers takes about 12 s (25s)",
    )


def _add_demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    text = "throw-away PostgreSQL, stand-in Odoo, three databases, live table"
    demo = commands.add_parser(
        "demo", help=text, description=f"Show it at work: {text}.", allow_abbrev=False, formatter_class=_Formatter
    )
    demo.add_argument("--keep", action="store_true", help="keep running, with the page, until Ctrl-C")
    demo.set_defaults(command="demo")


#: In the order of the help.
_BUILDERS: Mapping[str | None, Callable[[_Commands[argparse.ArgumentParser]], None]] = {
    "start": _add_start,
    "check": _add_check,
    "status": _add_status,
    "reload": _add_reload,
    "stop": _add_stop,
    "release": _add_release,
    "pause": _add_pause,
    "resume": _add_resume,
    "jobs": _add_jobs,
    "requeue": _add_requeue,
    "cluster": _add_cluster,
    "eventlistener": _add_listener,
    "demo": _add_demo,
}


def _argument(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Wrap a parser so that argparse shows the message of its ValueError unchanged."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise ValueError(f"a whole number from 1 on, not {text!r}")
    return number


def options(arguments: argparse.Namespace) -> dict[str, str]:
    """The options given on the command line, as name -> text."""
    return {
        name.removeprefix(_PREFIX): text
        for name, text in vars(arguments).items()
        if name.startswith(_PREFIX) and text is not None
    }
