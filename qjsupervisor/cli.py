"""The command line: arguments in, exit status out.

`start` imports nothing that a worker does not need, because every forked process carries its imports. The other
commands are imported on demand. An error that this package raises on purpose becomes one line on standard error and
its `exit_status`, never a traceback. A new command goes into _COMMANDS here and into commands/parser.py.
"""

from __future__ import annotations

import argparse
import errno
import functools
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, QJSupervisorError

if TYPE_CHECKING:
    from .config.load import Config

#: The status that a shell reports for a program ended by SIGINT.
_EXIT_SIGINT = 128 + signal.SIGINT
_EXIT_SIGPIPE = 128 + signal.SIGPIPE
#: errno of a write that fails through no fault of ours: a full disk, a terminal that is gone.
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
Command = Callable[[argparse.Namespace], int]
#: The credentials in one or several URLs: everything from the first user to the last @.
_CREDENTIALS = re.compile(r"(?<=://).*(?=@)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. Wrong usage raises SystemExit(2), as argparse does."""
    # Importing leaves nearly no garbage, and each look for it goes through everything. `start` enables it after its
    # warm-up, see memory.make_ready.
    gc.disable()
    from .commands.parser import parse

    _open_closed_streams()
    _hide_credentials()
    arguments = parse(argv)
    command = _COMMANDS[arguments.command]
    if command is not _start:
        gc.enable()
    try:
        _escape_what_the_terminal_cannot_show()
        status = command(arguments)
        sys.stdout.flush()
        return status
    except QJSupervisorError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return _EXIT_SIGINT
    except BrokenPipeError:  # the reader of our output is gone
        _drop_output()
        return _EXIT_SIGPIPE
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _drop_output()
        return _complain(QJSupervisorError(f"the output cannot be written: {error.strerror}"))


def _drop_output() -> None:
    """Keep the interpreter from flushing the rest at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Put /dev/null in place of standard streams that whoever started us closed."""
    fill_standard_descriptors()
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  (for as long as we run)


def _hide_credentials() -> None:
    """Remove passwords from our command line, which everyone on the machine can see."""
    shown = [_CREDENTIALS.sub("...", word) for word in sys.orig_argv]
    if shown != sys.orig_argv:
        from setproctitle import setproctitle

        setproctitle(" ".join(shown))


def _config(arguments: argparse.Namespace) -> Config:
    from .commands.parser import options
    from .config.load import load

    return load(options(arguments), os.environ)


def _start(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    from .logs import configure
    from .master.places import refuse_unfit

    refuse_unfit(config)
    configure(config)
    from .master.master import Master
    from .master.parts import MasterParts
    from .monitor.monitor import run_monitor

    parts = MasterParts(run_monitor=functools.partial(run_monitor, jobs=_JobsOfMonitor()))
    return Master(config, lambda: _config(arguments), parts).run()


def fill_standard_descriptors() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed.

    Otherwise a socket could get that number, and with it whatever is written there, such as the stacks of a crash.
    """
    descriptor = -1
    while descriptor < 2:  # open() returns the lowest free number, so 0 to 2 come first
        descriptor = os.open(os.devnull, os.O_RDWR)
    if descriptor > 2:
        os.close(descriptor)


class _JobsOfMonitor:
    """Imports commands.for_monitor in the monitor when a page first asks for jobs."""

    def list_jobs(self, config: Config, database: str, status: Mapping[str, Any]) -> Mapping[str, Any]:
        from .commands.for_monitor import list_jobs

        return list_jobs(config, database, status)

    def requeue(self, config: Config, database: str, uuids: Sequence[str] | None) -> tuple[int, int]:
        from .commands.for_monitor import requeue_failed

        return requeue_failed(config, database, uuids)


def _check(arguments: argparse.Namespace) -> int:
    from .commands import check

    return check.run(_config(arguments), as_json=arguments.json)


def _status(arguments: argparse.Namespace) -> int:
    from .commands import status
    from .commands.status_view import Choice

    choice = Choice(
        patterns=tuple(arguments.patterns),
        only_problems=arguments.problems,
        sort=arguments.sort,
        everything=arguments.all,
    )
    if arguments.check:
        return _probe(arguments)
    return status.run(
        _config(arguments), choice, as_json=arguments.json, only_names=arguments.names, watch=arguments.watch
    )


def _probe(arguments: argparse.Namespace) -> int:
    from .commands import probe

    try:
        return probe.run(_config(arguments), tuple(arguments.patterns))
    except QJSupervisorError as error:  # a plugin's words are on standard output
        return probe.answer(probe.UNKNOWN, [str(error)])


def _reload(arguments: argparse.Namespace) -> int:
    from .commands import control as orders

    return orders.reload(_config(arguments))


def _stop(arguments: argparse.Namespace) -> int:
    from .commands import control as orders

    return orders.stop(_config(arguments))


def _pause(arguments: argparse.Namespace) -> int:
    from .commands import control as orders

    return orders.pause(_config(arguments), arguments.scope, arguments.for_s)


def _release(arguments: argparse.Namespace) -> int:
    from .commands import control as orders

    return orders.release(_config(arguments), arguments.database, arguments.for_s)


def _resume(arguments: argparse.Namespace) -> int:
    from .commands import control as orders

    return orders.resume(_config(arguments), arguments.scope, anyway=arguments.anyway)


def _jobs(arguments: argparse.Namespace) -> int:
    from .commands import jobs

    wanted = jobs.Wanted(
        uuids=tuple(arguments.uuids),
        state=arguments.state,
        channel=arguments.channel,
        limit=arguments.limit,
    )
    return jobs.run(_config(arguments), arguments.database, wanted, as_json=arguments.json)


def _requeue(arguments: argparse.Namespace) -> int:
    from .commands import requeue

    wanted = requeue.Selection(
        uuids=tuple(arguments.uuids),
        state=arguments.state,
        channel=arguments.channel,
        older_than_s=arguments.older_than_s,
    )
    return requeue.run(_config(arguments), arguments.database, wanted, sure=arguments.yes)


def _cluster(arguments: argparse.Namespace) -> int:
    from .commands import cluster

    if arguments.what == "init":
        return cluster.init(_config(arguments), only_print=arguments.print)
    if arguments.what == "forget":
        return cluster.forget(_config(arguments), arguments.member)
    return cluster.status(_config(arguments), as_json=arguments.json)


def _eventlistener(arguments: argparse.Namespace) -> int:
    from .commands import eventlistener

    return eventlistener.run(_config(arguments), arguments.program, arguments.patience_s)


def _demo(arguments: argparse.Namespace) -> int:
    from .demo.run import run

    return run(keep=arguments.keep)


def _escape_what_the_terminal_cannot_show() -> None:
    """Print escapes instead of raising UnicodeEncodeError on a terminal without UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _complain(error: QJSupervisorError) -> int:
    from .commands.parser import PROG
    from .text import printable

    where = "configuration: " if isinstance(error, ConfigError) else ""
    print(f"{PROG}: {where}{printable(error)}", file=sys.stderr)
    return error.exit_status


_COMMANDS: Mapping[str, Command] = {
    "start": _start,
    "check": _check,
    "status": _status,
    "reload": _reload,
    "stop": _stop,
    "pause": _pause,
    "release": _release,
    "resume": _resume,
    "jobs": _jobs,
    "requeue": _requeue,
    "cluster": _cluster,
    "eventlistener": _eventlistener,
    "demo": _demo,
}
