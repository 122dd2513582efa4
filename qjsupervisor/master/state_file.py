"""The state file: what a supervisor knows and no configuration says, for its next life. Pauses, for instance.

One JSON object, in `state_dir`, or beside the control socket where that is not set:

    {"version": 1, "written": UTC seconds, "socket": the control socket of who wrote it, SECTION: anything, ...}

Who has something to keep adds a section: `section` gives what the former life kept there, `add` names who tells what
is to be kept, `changed` has it written. What the sections hold is theirs to check: the file may be anybody's.

The file is read once, at the start, and written at most once in WRITE_PAUSE_S and at the stop, as a whole or not at
all. A disk may be full, and a file system may hang: so a short-lived child reads and writes, with a limit. What
cannot be written is told in the log and in `status`, and tried again; nothing else waits for it.
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from ..config.settings import Config
from ..control import Message, decode
from ..errors import ConfigError, ProtocolError
from ..logs import get_logger
from ..loop import Alarm
from .child import Child, exit_reason, wait_for
from .parts import MasterParts
from .state_disk import BROKEN, FAILED, MISSING, READ, UNUSABLE, WRITTEN, read_file, run_read, run_write

VERSION = 1
FILE_NAME = "state.json"
#: From one write to the next.
WRITE_PAUSE_S = 1.0
#: After a write that failed.
RETRY_S = 10.0
#: What a read may take, at the start, which waits for it; and a write, for which nobody waits.
READ_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 10.0
#: What is no section.
_OWN = ("version", "written", "socket")
#: What is to be kept of a section, as JSON has it; called with monotonic and with UTC seconds.
Source = Callable[[float, float], Any]


def path_of(config: Config) -> str:
    """Where the state of a supervisor is kept."""
    return f"{config.control_socket}.state" if config.state_dir is None else os.path.join(config.state_dir, FILE_NAME)


class StateFile:
    """One supervisor's state file. `clock` and `wall` of the parts are monotonic and UTC seconds."""

    def __init__(self, config: Config, parts: MasterParts) -> None:
        self.path = path_of(config)
        #: Why it could not be written, or read; None: all is well.
        self.error: str | None = None
        self._socket = config.control_socket
        self._is_named = config.state_dir is not None
        self._parts = parts
        self._kept: Message = {}
        self._sources: dict[str, Source] = {}
        #: The sections as they are on disk, where we put them: as text, since a source may go on changing what it gave.
        self._written: str | None = None
        #: What is there is not ours, or of no use: it is put aside, not overwritten.
        self._spoilt = False
        self._dirty = False
        self._finished = False
        #: Not before is it written again.
        self._rests_until_s = -math.inf
        self._child: Child | None = None
        self._memory = -1
        self._writing = ""
        self._write_alarm = Alarm(parts.loop, self._write)
        self._limit_alarm = Alarm(parts.loop, self._give_up)
        self._log = get_logger()

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read what a former life kept; before anything else is forked. Waits for READ_TIMEOUT_S at most.

        A folder of its own may be on a file system that hangs, so a child reads there. Beside the control socket, where
        this process has just written, it costs less to read than to fork.

        A file that is of no use costs a warning. ConfigError where state_dir cannot be used at all, or is another
        running supervisor's.
        """
        code, left = self._ask_child() if self._is_named else read_file(self.path)
        text = left.decode("utf-8", "replace")
        if code == UNUSABLE and self._is_named:
            raise ConfigError("state_dir", f"state_dir: {text}; allowed: a directory that only we write into")
        if code == READ:
            self._take(left)
        elif code != MISSING:
            self._refuse(text)

    def _ask_child(self) -> tuple[int, bytes]:
        """(one of the exit codes, what goes with it)."""
        memory = os.memfd_create("state")
        try:
            path = self.path
            child = self._parts.spawner.spawn("qjsupervisor: state", lambda _pipe: run_read(path, memory))
            child.pipe.close()
            exit_code = wait_for(child.pid, READ_TIMEOUT_S)
            if exit_code is None:
                child.signal(signal.SIGKILL)  # the loop reaps it, whenever it ends
                return BROKEN, f"no answer within {READ_TIMEOUT_S:g} s: does its file system answer?".encode()
            if exit_code not in (READ, MISSING, BROKEN, UNUSABLE):
                return BROKEN, f"reading it ended with {exit_reason(exit_code)}".encode()
            return exit_code, _content(memory)
        except OSError as error:
            return BROKEN, f"no process could be started to read it: {error.strerror}".encode()
        finally:
            os.close(memory)

    def _take(self, content: bytes) -> None:
        try:
            found = decode(content)
        except ProtocolError:
            self._refuse("it holds no JSON object")
            return
        if found.get("version") != VERSION:
            version = str(found.get("version"))[:20]
            self._refuse(f"its version is {version}, this qjsupervisor reads {VERSION}")
            return
        owner = found.get("socket")
        if self._is_named and isinstance(owner, str) and owner != self._socket and _is_alive(owner):
            raise ConfigError(
                "state_dir", f"state_dir: {self.path} is in use by the supervisor at {owner}: give each its own"
            )
        self._kept = {name: value for name, value in found.items() if name not in _OWN}

    def _refuse(self, reason: str) -> None:
        self._spoilt, self.error = True, f"{self.path} is ignored: {reason}"
        self._log.warning("state_ignored", reason=self.error)

    def section(self, name: str) -> Any:
        """What the former life kept there, whatever that is; None: nothing."""
        return self._kept.get(name)

    # -- writing -------------------------------------------------------------------------------------------------

    def add(self, name: str, source: Source) -> None:
        """Keep a section from now on, whenever the file is written. A source that gives None has nothing to keep."""
        self._sources[name] = source

    def changed(self, now_s: float) -> None:
        """Something is to be kept that is not in the file yet."""
        self._dirty = True
        if self._child is None:
            self._write_alarm.set_earlier(max(now_s, self._rests_until_s))

    def finish(self, now_s: float) -> None:
        """The supervisor stops: write what is not written, at once. May be called again and again."""
        if self._finished:
            return
        self._finished = self._dirty = True
        if self._child is None:
            self._write(now_s)

    @property
    def is_busy(self) -> bool:
        """A child is at it."""
        return self._child is not None

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """A child has ended; False if it was not this one."""
        if self._child is None or self._child.pid != pid:
            return False
        self._child.pipe.close()
        self._child = None
        self._limit_alarm.clear()
        told = _content(self._memory).decode("utf-8", "replace")
        os.close(self._memory)
        if exit_code == WRITTEN:
            self._succeed()
        elif exit_code == FAILED:
            self._fail(told)
        else:
            self._fail(self._late() if exit_code == -signal.SIGKILL else exit_reason(exit_code))
        if not self._finished:
            self._rests_until_s = max(self._rests_until_s, now_s + RETRY_S if self.error is not None else -math.inf)
            if self._dirty:
                self._write_alarm.set(max(now_s, self._rests_until_s))
        elif self._dirty and self.error is None:
            self._write(now_s)  # what it wrote was from before the end
        return True

    def close_in_child(self) -> None:
        if self._child is not None:
            self._child.pipe.close()
            os.close(self._memory)

    def _write(self, now_s: float) -> None:
        """Have the file written, if what it should hold has changed."""
        self._dirty = False
        sections = self._sections(now_s)
        text = json.dumps(sections)
        if text == self._written or (self._written is None and not sections and not self._is_named):
            return
        self._rests_until_s = now_s + WRITE_PAUSE_S
        whole = {"version": VERSION, "written": self._parts.wall(), "socket": self._socket, **sections}
        content = json.dumps(whole).encode() + b"\n"
        path, spoilt, self._writing = self.path, self._spoilt, text
        try:
            memory = self._memory = os.memfd_create("state")
        except OSError as error:
            self._fail_start(error, now_s)
            return
        body = functools.partial(run_write, path, content, spoilt, memory)
        try:
            self._child = self._parts.spawner.spawn("qjsupervisor: state", lambda _pipe: body())
        except OSError as error:
            os.close(memory)
            self._fail_start(error, now_s)
            return
        self._limit_alarm.set(now_s + WRITE_TIMEOUT_S)

    def _sections(self, now_s: float) -> Message:
        """All sections: those that have a source, and, as they are, those of others that may have one once more."""
        wall_s = self._parts.wall()
        told = {name: source(now_s, wall_s) for name, source in self._sources.items()}
        every = {**self._kept, **told}
        return {name: value for name, value in every.items() if value is not None}

    def _give_up(self, _now_s: float) -> None:
        """The write takes too long. Where the child waits inside the kernel, not even that ends it."""
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
            self._fail(self._late())

    def _late(self) -> str:
        return f"not written within {WRITE_TIMEOUT_S:g} s: does its file system answer?"

    def _succeed(self) -> None:
        if self.error is not None:
            self._log.info("state_written", path=self.path)
        self._written, self._spoilt, self.error = self._writing, False, None

    def _fail(self, reason: str) -> None:
        """Told once for as long as it is the same."""
        self._dirty = True
        error = f"{self.path}: {reason}"
        if error != self.error:
            self.error = error
            self._log.error("state_not_written", reason=f"{error}: a restart will not know of pauses and the like")

    def _fail_start(self, error: OSError, now_s: float) -> None:
        self._fail(f"no process could be started to write it: {error.strerror}")
        if not self._finished:
            self._write_alarm.set(now_s + RETRY_S)


def _content(memory: int) -> bytes:
    """What a child left there."""
    with open(memory, "rb", closefd=False) as stream:
        stream.seek(0)
        return stream.read()


def _is_alive(path: str) -> bool:
    """Whether somebody listens at a control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:  # its backlog is full
            return True
        except (OSError, ValueError):
            return False
    return True
