"""Reads the configuration again, in a child: a file system may hang, and a file may take long to read.

At most one child reads at a time. Who asks meanwhile waits for the next one, all together: the file may have changed
since the first began. A child that does not end in READ_TIMEOUT_S is killed; where not even that ends it (it waits
inside the kernel), everybody is refused until it does. Decides nothing about what was read.
"""

from __future__ import annotations

import functools
import os
import pickle  # nosec B403  (of what our own fork wrote)
import signal
from collections.abc import Callable
from contextlib import suppress

from .. import logs
from ..config.settings import Config
from ..control import Message
from ..errors import ConfigError, NoRoom
from ..logs import get_logger
from ..loop import Alarm
from .child import Child, exit_reason
from .parts import MasterParts
from .places import check_log

#: A megabyte of nonsense takes a second.
READ_TIMEOUT_S = 10.0
_OPTION = "config"

#: Reads the configuration; ConfigError where it is wrong.
Load = Callable[[], Config]
#: Puts in force what was read, or notes why nothing was; gives the answer to all who asked.
Apply = Callable[[Config | ConfigError, float], Message]
#: Takes that answer.
Answer = Callable[[Message], None]


class ConfigReader:
    """Reads for whoever asks; `apply` is called once for each read."""

    def __init__(self, load: Load, apply: Apply, parts: MasterParts) -> None:
        self._load = load
        self._apply = apply
        self._parts = parts
        self._child: Child | None = None
        #: Where the child puts what it read.
        self._memory = -1
        #: Who gets what is being read, and who asked since.
        self._served: list[Answer] = []
        self._waiting: list[Answer] = []
        #: The child was killed, and is not gone yet.
        self._hangs = False
        self._closed = False
        self._limit = Alarm(parts.loop, self._give_up)
        self._log = get_logger()

    def read(self, answer: Answer, now_s: float) -> None:
        """Have `answer` called with what becomes of a read that begins now or later."""
        self._waiting.append(answer)
        if self._closed:
            self._settle(self._take_waiting(), ConfigError(_OPTION, "the supervisor is being stopped"), now_s)
        elif self._child is None:
            self._start(now_s)
        elif self._hangs:
            self._settle(self._take_waiting(), self._unanswered(self._child), now_s)

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """A child has ended; False if it was not this one."""
        if self._child is None or self._child.pid != pid:
            return False
        self._child.pipe.close()
        self._child, self._hangs = None, False
        self._limit.clear()
        found, served = self._take_result(exit_code), self._served
        self._served = []
        self._settle(served, found, now_s)
        if self._waiting and not self._closed:
            self._start(now_s)
        return True

    def kill(self) -> None:
        """End it at once, for good; nobody gets an answer any more."""
        self._closed = True
        self._served, self._waiting = [], []
        self._limit.clear()
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def close_in_child(self) -> None:
        if self._child is not None:
            self._child.pipe.close()
            os.close(self._memory)

    def _start(self, now_s: float) -> None:
        self._served = self._take_waiting()
        try:
            self._memory = os.memfd_create("configuration")
        except OSError as error:
            self._refuse_start(error, now_s)
            return
        memory, load = self._memory, self._load
        try:
            self._child = self._parts.spawner.spawn("qjsupervisor: configuration", lambda _pipe: _run(load, memory))
        except OSError as error:
            os.close(memory)
            self._refuse_start(error, now_s)
            return
        self._limit.set(now_s + READ_TIMEOUT_S)

    def _refuse_start(self, error: OSError, now_s: float) -> None:
        self._log.error("fork_failed", reason=error.strerror)
        served, self._served = self._served, []
        reason = f"no process could be started to read the configuration: {error.strerror}; try again"
        self._settle(served, ConfigError(_OPTION, reason), now_s)

    def _take_result(self, exit_code: int) -> Config | ConfigError:
        """What the child left. It is gone, so nobody writes any more."""
        with open(self._memory, "rb") as memory:
            memory.seek(0)
            content = memory.read()
        if exit_code != 0 or not content:
            return ConfigError(_OPTION, f"reading the configuration ended with {exit_reason(exit_code)}, see the log")
        config, option, message = pickle.loads(content)  # nosec B301  (our own fork wrote it)
        return config if isinstance(config, Config) else ConfigError(option, message)

    def _give_up(self, now_s: float) -> None:
        """It takes too long."""
        child = self._child
        if child is None:
            return
        self._hangs = True
        child.signal(signal.SIGKILL)
        error = self._unanswered(child)
        served, self._served = self._served + self._take_waiting(), []
        self._settle(served, error, now_s)

    def _unanswered(self, child: Child) -> ConfigError:
        return ConfigError(
            _OPTION,
            f"the configuration could not be read within {READ_TIMEOUT_S:g} s: does its file system answer?"
            f" (process {child.pid} was killed over it)",
        )

    def _settle(self, answers: list[Answer], found: Config | ConfigError, now_s: float) -> None:
        if not answers:
            return
        message: Message = {"ok": False, "error": "a fault of qjsupervisor, see its log"}

        def apply(now_s: float) -> None:
            nonlocal message
            message = self._apply(found, now_s)

        self._parts.loop.call(apply, now_s)
        for answer in answers:
            self._parts.loop.call(functools.partial(_hand_over, answer, message), now_s)

    def _take_waiting(self) -> list[Answer]:
        waiting, self._waiting = self._waiting, []
        return waiting


def _hand_over(answer: Answer, message: Message, _now_s: float) -> None:
    answer(message)


def _run(load: Load, memory: int) -> int:
    """In the child: read, and leave (configuration or None, option, message)."""
    try:
        config = load()
        if config.log_file != logs.current_file():  # where the current one hangs, other changes are not to wait for it
            with suppress(NoRoom):
                check_log(config)
        left: tuple[Config | None, str, str] = (config, "", "")
    except ConfigError as error:
        left = (None, error.option, str(error))
    with open(memory, "wb", closefd=False) as stream:
        pickle.dump(left, stream)
    return 0
