"""Logging: structlog, one line an event, JSON or for people.

`configure` runs in the master, before the first fork; a forked process needs nothing more. What is logged may
come from anybody who can write to a database: values are cut to a length, and no control character reaches a
terminal. A log that cannot be written (`logsink`) stops nobody.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from .config.settings import Config
from .errors import ConfigError
from .logsink import LogSink, is_terminal
from .text import printable


@contextmanager
def _without_rich() -> Iterator[None]:
    """structlog imports rich where it finds it, for coloured tracebacks: 5 MiB and 80 ms for nothing."""
    if "rich" in sys.modules:
        yield
        return
    # The import system's own way to say 'not there'; its type knows modules only.
    cast("dict[str, object]", sys.modules)["rich"] = None
    try:
        yield
    finally:
        del sys.modules["rich"]


with _without_rich():
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: syslog's, for the journal.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_LONGEST_VALUE = 2_000
#: When, how grave and what come first in a line.
_FIRST_KEYS = ("timestamp", "level", "event")
#: A traceback ends with what matters: its beginning is cut.
_LONGEST_TRACEBACK = 20_000
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31;1m"}
_COLOUR_END = "\x1b[0m"

Renderer = Callable[[EventDict], str]


def get_logger(**bound: Any) -> FilteringBoundLogger:
    """A logger with facts that stand in each of its lines; it follows later calls of `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger(**bound))


class _Bound:
    """A logger that is bound once for each `configure`, and not for each line."""

    def __init__(self, **facts: Any) -> None:
        self._facts = facts
        self.bind_anew()
        _all_bound.add(self)

    def bind_anew(self) -> None:
        logger = get_logger(**self._facts).bind()
        self.debug, self.info, self.warning, self.error = logger.debug, logger.info, logger.warning, logger.error


_all_bound: weakref.WeakSet[_Bound] = weakref.WeakSet()


def bound_logger(**facts: Any) -> FilteringBoundLogger:
    """The same, for many lines of one process: only debug, info, warning and error."""
    return cast("FilteringBoundLogger", _Bound(**facts))


def configure(config: Config) -> None:
    """Log as the configuration says, from now on.

    Raises ConfigError and changes nothing if the file cannot be opened; a full disk is no reason to raise.
    """
    global _sink, _chain
    sink = _sink if _sink is not None and _sink.path == config.log_file else None
    if sink is None:
        sink = _open_sink(config.log_file)
    if _sink is not None and _sink is not sink:
        _sink.close()
        sink.lost_in_all += _sink.lost_in_all
    _sink = sink
    _chain = _processors(
        _renderer(config.log_format, terminal=is_terminal(config.log_file)),
        prefixed=config.log_file is None and _is_journal(),
    )
    structlog.configure(
        processors=list(_chain),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.log_level]),
        logger_factory=_SinkLogger,
        # Loggers made at import would else stay with the configuration of their first line.
        cache_logger_on_first_use=False,
    )
    for logger in _all_bound:
        logger.bind_anew()


def silent_logger(**bound: Any) -> FilteringBoundLogger:
    """A logger that renders every line as `configure` said, and drops it."""
    return cast("FilteringBoundLogger", structlog.wrap_logger(_Nowhere(), **bound).bind())


class _Nowhere:
    """What takes the lines of a silent logger."""

    def msg(self, line: bytes) -> None:
        pass

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def reopen() -> None:
    """Open the log file again (SIGUSR1). Where that fails, the old one goes on."""
    if _sink is not None:
        _sink.reopen()


def lost_lines() -> int:
    """Lines of this process that could not be written since its start."""
    return 0 if _sink is None else _sink.lost_in_all


_sink: LogSink | None = None
_chain: list[Processor] = []


def _after_fork() -> None:
    if _sink is not None:
        _sink.forget()


os.register_at_fork(after_in_child=_after_fork)


def _open_sink(path: str | None) -> LogSink:
    try:
        return LogSink(path, _lost_line)
    except OSError as error:
        raise ConfigError(
            "log_file",
            f"log_file {path!r} cannot be opened: {error.strerror}; name a file that can be written",
        ) from error


class _SinkLogger:
    """What structlog calls with the finished line."""

    def __init__(self, *_args: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        if _sink is not None:
            _sink.write(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def _processors(render: Renderer, *, prefixed: bool = False) -> list[Processor]:
    if prefixed:
        render = _for_journal(render)
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_pid,
        structlog.processors.format_exc_info,
        _finish(render),
    ]


def _add_pid(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    event_dict["pid"] = os.getpid()
    return event_dict


def _finish(render: Renderer) -> Processor:
    """The last step: the line's bytes. Values that cannot be rendered are replaced by their repr."""

    def finish(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> bytes:
        values = {**{key: event_dict.pop(key, None) for key in _FIRST_KEYS}, **event_dict}
        for key, value in values.items():
            if isinstance(value, str) and len(value) > _LONGEST_VALUE:
                values[key] = _cut(key, value)
        try:
            line = render(values)
        except (TypeError, ValueError, RecursionError):
            line = render({str(key): _as_text(value) for key, value in values.items()})
        return (line + "\n").encode("utf-8", "backslashreplace")

    return finish


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else _cut("", repr(value))


def _cut(key: str, value: str) -> str:
    """A text of a length that is no attack."""
    if len(value) <= _LONGEST_VALUE:
        return value
    if key != "exception":
        return f"{value[:_LONGEST_VALUE]}... ({len(value)} characters)"
    return value if len(value) <= _LONGEST_TRACEBACK else "..." + value[-_LONGEST_TRACEBACK:]


def _renderer(log_format: str, *, terminal: bool) -> Renderer:
    if log_format == "console" or (log_format == "auto" and terminal):
        return _Console(colours=terminal)
    return _json


#: ASCII only, so that nothing in it can steer a terminal; made once, which `json.dumps` with options is not.
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=repr).encode


def _json(values: EventDict) -> str:
    return _encode(values)


class _Console:
    """For people: time, level, event, then key=value; a traceback on lines of its own."""

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
    """A value as one word, in quotes where it would not be one."""
    if not isinstance(value, str):
        return printable(repr(value))
    if value and value.isprintable() and not set(value) & set(" =\"'\\"):
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def _is_journal() -> bool:
    """Whether standard output leads into systemd's journal: it says so by device and inode."""
    try:
        found = os.fstat(1)
    except OSError:  # closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _for_journal(render: Renderer) -> Renderer:
    """Each line with its priority, as sd-daemon(3) has it."""

    def prefixed(values: EventDict) -> str:
        priority = _PRIORITIES.get(str(values.get("level")), 6)
        return "\n".join(f"<{priority}>{line}" for line in render(values).split("\n"))

    return prefixed


def _lost_line(lost: int, reason: str) -> bytes:
    """What stands in front of the first line that can be written again."""
    event: Any = {"event": "log_lines_lost", "lines": lost, "reason": reason}
    for process in _chain:
        event = process(None, "warning", event)
    return cast("bytes", event)
