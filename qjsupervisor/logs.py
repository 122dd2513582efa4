"""Logging with structlog: one line per event, as JSON or for people.

`configure` runs in the master before the first fork; forked processes inherit it. Logged values may come from anyone
who can write to a database, so they are truncated, and no control character reaches a terminal. A log that cannot be
written (`logsink`) stops nothing.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Protocol, cast

from .config.settings import Config
from .errors import ConfigError
from .lean_import import lean_import
from .logsink import LogSink, is_terminal
from .text import printable

# For terminals and asynchronous programs it would import more than half of what a worker imports in all, and rich alone
# is 5 MiB and 80 ms.
with lean_import(
    hidden=("rich", "better_exceptions", "colorama", "greenlet", "twisted"),
    late=("asyncio", "structlog.stdlib", "structlog.threadlocal"),
):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: syslog priorities, for the journal.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_LONGEST_VALUE = 2_000
#: By the method of the logger, where that is not its name.
_LEVEL_OF = {"warn": "warning", "exception": "error"}
#: Tracebacks are cut at the beginning, because what matters is at the end.
_LONGEST_TRACEBACK = 20_000
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31;1m"}
_COLOUR_END = "\x1b[0m"

Renderer = Callable[[EventDict], str]


class EventLog(Protocol):
    """Where events are logged: a logger, or whoever collects lines for one."""

    def debug(self, event: str, **facts: Any) -> Any: ...
    def info(self, event: str, **facts: Any) -> Any: ...
    def warning(self, event: str, **facts: Any) -> Any: ...
    def error(self, event: str, **facts: Any) -> Any: ...


def get_logger(**bound: Any) -> FilteringBoundLogger:
    """A logger whose lines all carry the given facts. It follows later calls of `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger(**bound))


class _Bound:
    """A logger that is bound once per `configure` instead of once per line."""

    def __init__(self, **facts: Any) -> None:
        self._facts = facts
        self.bind_anew()
        _all_bound.add(self)

    def bind_anew(self) -> None:
        logger = get_logger(**self._facts).bind()
        self.debug, self.info, self.warning, self.error = logger.debug, logger.info, logger.warning, logger.error


_all_bound: weakref.WeakSet[_Bound] = weakref.WeakSet()


def bound_logger(**facts: Any) -> FilteringBoundLogger:
    """A faster get_logger for a process that logs a lot: debug, info, warning and error only."""
    return cast("FilteringBoundLogger", _Bound(**facts))


def configure(config: Config) -> None:
    """Apply the logging configuration.

    Raises ConfigError and changes nothing if the file cannot be opened. A full disk does not raise.
    """
    global _sink, _chain, jobs_wanted
    sink = _sink if _sink is not None and _stays(_sink, config.log_file) else None
    if sink is None:
        sink = _open_sink(config.log_file)
    if _sink is not None and _sink is not sink:
        _sink.close()
        sink.lost_in_all += _sink.lost_in_all
    sink.path = config.log_file
    _sink = sink
    jobs_wanted = config.log_jobs
    _chain = _processors(
        _renderer(config.log_format, terminal=is_terminal(config.log_file)),
        prefixed=config.log_file is None and _is_journal(),
    )
    structlog.configure(
        processors=list(_chain),
        wrapper_class=_logger_class(_LEVELS[config.log_level]),
        logger_factory=_SinkLogger,
        # Otherwise loggers made at import would keep the configuration of their first line.
        cache_logger_on_first_use=False,
    )
    for logger in _all_bound:
        logger.bind_anew()


def _logger_class(least: int) -> type[FilteringBoundLogger]:
    """structlog's own, with a shorter way from the call to the line: two lines are logged for each job."""
    base = structlog.make_filtering_bound_logger(least)
    methods = {name: _method(name) for name, level in _LEVELS.items() if level >= least}
    return type("Logger", (base,), methods)


def _method(name: str) -> Callable[..., None]:
    """The method of a level: keeps what structlog promises of one processor or more."""

    def log(self: Any, event: str, **values: Any) -> None:
        line: Any = {**self._context, **values, "event": event}
        try:
            for process in self._processors:
                line = process(self._logger, name, line)
            self._logger.msg(line)
        except structlog.DropEvent:
            pass

    return log


def silent_logger(**bound: Any) -> FilteringBoundLogger:
    """A logger that renders every line as configured and then drops it."""
    return cast("FilteringBoundLogger", structlog.wrap_logger(_Nowhere(), **bound).bind())


class _Nowhere:
    """The sink of a silent logger."""

    def msg(self, line: bytes) -> None:
        pass

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def reopen() -> None:
    """Reopen the log file (SIGUSR1). If that fails, logging continues to the old one."""
    if _sink is not None:
        _sink.reopen()


def lost_lines() -> int:
    """How many lines this process has failed to write since its start."""
    return 0 if _sink is None else _sink.lost_in_all


def into_pipe() -> int:
    """Lines of this process and of those it forks go into a pipe from now on; the end from which they are read."""
    assert _sink is not None, "configure() first"
    return _sink.into_pipe()


def write_file(path: str) -> LogSink:
    """In the process that writes the file for all: log into it. Raises OSError if it cannot be opened."""
    global _sink
    close()
    _sink = LogSink(path, _lost_line)
    return _sink


def current_file() -> str | None:
    """The file that is logged to; None: standard output."""
    return None if _sink is None else _sink.path


def close() -> None:
    """Log nothing more."""
    if _sink is not None:
        _sink.close()


#: Whether lines of single jobs are wanted: read before each, which costs less than a logger that drops them.
jobs_wanted = True
_sink: LogSink | None = None
_chain: list[Processor] = []
_pid = os.getpid()


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()
    if _sink is not None:
        _sink.forget()


os.register_at_fork(after_in_child=_after_fork)


def _stays(sink: LogSink, path: str | None) -> bool:
    """Whether the sink is right for this file; of a pipe, who writes the file is told of another one."""
    return sink.path == path or (sink.is_piped and path is not None)


def _open_sink(path: str | None) -> LogSink:
    try:
        return LogSink(path, _lost_line)
    except OSError as error:
        raise ConfigError(
            "log_file",
            f"log_file {path!r} cannot be opened: {error.strerror}; name a file that can be written",
        ) from error


class _SinkLogger:
    """Receives the finished line from structlog."""

    def __init__(self, *_args: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        if _sink is not None:
            _sink.write(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def _processors(render: Renderer, *, prefixed: bool = False) -> list[Processor]:
    """One processor for the whole line: a worker logs each of its jobs, and each processor is a call or four."""
    return [_finish(_for_journal(render) if prefixed else render)]


def _finish(render: Renderer) -> Processor:
    """Produces the line's bytes. Values that cannot be rendered are replaced by their repr."""

    def rendered(values: EventDict) -> str:
        try:
            return render(values)
        except (TypeError, ValueError, RecursionError):
            return render({str(key): _as_text(value) for key, value in values.items()})

    def finish(logger: WrappedLogger, method: str, event_dict: EventDict) -> bytes:
        values: EventDict = {
            "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
            "level": _LEVEL_OF.get(method, method),
            "event": event_dict.pop("event", None),
            **event_dict,
            "pid": _pid,
        }
        if "exc_info" in values:
            values = structlog.processors.format_exc_info(logger, method, values)
        line = rendered(values)
        if len(line) > _LONGEST_VALUE:  # it is no shorter than any of its values
            line = rendered({key: _cut(key, value) for key, value in values.items()})
        return (line + "\n").encode("utf-8", "backslashreplace")

    return finish


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else _cut("", repr(value))


def _cut(key: str, value: Any) -> Any:
    """Truncate a text, so that a hostile one cannot flood the log."""
    if not isinstance(value, str) or len(value) <= _LONGEST_VALUE:
        return value
    if key != "exception":
        return f"{value[:_LONGEST_VALUE]}... ({len(value)} characters)"
    return value if len(value) <= _LONGEST_TRACEBACK else "..." + value[-_LONGEST_TRACEBACK:]


def _renderer(log_format: str, *, terminal: bool) -> Renderer:
    if log_format == "console" or (log_format == "auto" and terminal):
        return _Console(colours=terminal)
    return _json


#: ASCII only, so that nothing in it can control a terminal. Built once: `json.dumps` with options builds one per call.
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=repr).encode


def _json(values: EventDict) -> str:
    return _encode(values)


class _Console:
    """For people: time, level, event, then key=value pairs; tracebacks go on their own lines."""

    def __init__(self, *, colours: bool) -> None:
        self._begin = _COLOURS if colours else dict.fromkeys(_COLOURS, "")
        self._end = _COLOUR_END if colours else ""

    def __call__(self, values: EventDict) -> str:
        values = dict(values)
        traceback = values.pop("exception", None)
        timestamp, level, event = (str(values.pop(key, "")) for key in ("timestamp", "level", "event"))
        facts = " ".join(f"{printable(key)}={_shown(value)}" for key, value in values.items())
        level = f"{self._begin.get(level, '')}{level:<7}{self._end}"
        line = f"{timestamp} {level} {printable(event)} {facts}".rstrip()
        if traceback is None:
            return line
        return "\n".join([line, *(f"    {printable(part)}" for part in str(traceback).splitlines())])


def _shown(value: object) -> str:
    """A value as one word, quoted if it contains blanks or the like."""
    if not isinstance(value, str):
        return printable(repr(value))
    if value and value.isprintable() and not set(value) & set(" =\"'\\"):
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def _is_journal() -> bool:
    """Whether standard output is systemd's journal, which it announces by device and inode in JOURNAL_STREAM."""
    try:
        found = os.fstat(1)
    except OSError:  # closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _for_journal(render: Renderer) -> Renderer:
    """Prefix each line with its priority, as described in sd-daemon(3)."""

    def prefixed(values: EventDict) -> str:
        priority = _PRIORITIES.get(str(values.get("level")), 6)
        return "\n".join(f"<{priority}>{line}" for line in render(values).split("\n"))

    return prefixed


def _lost_line(lost: int, reason: str) -> bytes:
    """The line that precedes the first one that can be written again."""
    event: Any = {"event": "log_lines_lost", "lines": lost, "reason": reason}
    for process in _chain:
        event = process(None, "warning", event)
    return cast("bytes", event)
