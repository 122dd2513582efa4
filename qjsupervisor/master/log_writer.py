"""The process that writes `log_file` for all others, and the pipe that carries their lines.

A write to a hanging file system cannot be interrupted and blocks its process. So only this process writes; the others
write into a pipe without blocking. Lines that do not fit are lost, counted and reported (logsink.py). The pipe belongs
to the master, so lines wait in it while the writer is replaced. The writer exits when the last process that could write
a line has ended; it outlives a master that is killed.
"""

from __future__ import annotations

import functools
import mmap
import os
import selectors
import signal
import time
from typing import Any

from .. import logs
from ..control import Message, Pipe
from ..logsink import Frames, LogSink
from ..loop import Loop
from .child import Body, Child, ChildSpawner, wait_for
from .service import Service

#: A write that takes longer is reported in `status`.
SLOW_S = 5.0
#: Time limit at the end for writing what is still in the pipe.
DRAIN_S = 2.0
_CHUNK_BYTES = 65_536
#: Words of the memory shared with the writer: since when it has been writing (monotonic ns; 0: not), and lines lost.
_SINCE_NS, _LOST = 0, 1


class LogWriter:
    """The master's side."""

    def __init__(self, spawner: ChildSpawner, loop: Loop) -> None:
        self._spawner = spawner
        #: The writer is being forked, and must keep its end of the pipe.
        self._is_spawning = False
        self._service = Service("log", self, loop)
        self._lines = -1
        self._words = memoryview(mmap.mmap(-1, 16)).cast("q")
        self._path: str | None = None

    def follow(self, path: str | None, now_s: float) -> None:
        """Write this file from now on; None: no file."""
        self._path = path
        if path is None:
            self._end()
        elif self._lines < 0:
            self._lines = logs.into_pipe()
            self._service.run(lambda pipe: run_log_writer(self._lines, str(self._path), self._words, pipe), now_s)
        else:
            self._service.send({"do": "file", "path": path})

    def spawn(self, title: str, body: Body) -> Child:
        """As ChildSpawner.spawn."""
        self._is_spawning = True
        try:
            return self._spawner.spawn(title, body)
        finally:
            self._is_spawning = False

    def reopen(self) -> None:
        """Reopen the file after a rotation."""
        self._service.signal(signal.SIGUSR1)

    def reaped(self, pid: int, exit_code: int, now_s: float) -> bool:
        """As Service.reaped."""
        return self._service.reaped(pid, exit_code, now_s)

    def close_in_child(self) -> None:
        self._service.close_in_child()
        if self._lines >= 0 and not self._is_spawning:
            os.close(self._lines)

    @property
    def lost(self) -> int:
        """Number of lines that reached the writer but not the file."""
        return self._words[_LOST]

    def problem(self, now_ns: int) -> str | None:
        """Why lines do not reach the file, or None."""
        since_ns = self._words[_SINCE_NS]
        if since_ns and now_ns - since_ns > SLOW_S * 1e9:
            silent_s = (now_ns - since_ns) / 1e9
            return f"{self._path}: nothing could be written for {silent_s:.0f} s: does its file system answer?"
        if self._lines >= 0 and self._service.pid is None and self._service.last_error:
            return f"{self._path} is not written: {self._service.last_error}"
        return None

    def finish(self) -> None:
        """Nothing more will be logged: wait a moment until the rest is written."""
        pid = self._service.pid
        logs.close()
        if pid is not None and wait_for(pid, DRAIN_S) is None:
            self._service.kill()

    def _end(self) -> None:
        """The other processes log elsewhere now; the writer exits after the last line."""
        if self._lines >= 0:
            self._service.dismiss()
            os.close(self._lines)
            self._lines = -1


def run_log_writer(lines: int, path: str, words: Any, pipe: Pipe) -> int:
    """Write what arrives through the pipe `lines` until its other end is closed everywhere. Raises OSError."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the master's end is not ours: there may be lines of its workers
    words[_SINCE_NS], lost_before = time.monotonic_ns(), words[_LOST]
    sink, frames = logs.write_file(path), Frames()
    signal.signal(signal.SIGUSR1, lambda *_: sink.reopen())
    words[_SINCE_NS] = 0
    with selectors.DefaultSelector() as selector:
        selector.register(lines, selectors.EVENT_READ)
        selector.register(pipe, selectors.EVENT_READ, functools.partial(_obey, pipe, sink))
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    if not key.data():
                        selector.unregister(pipe)
                    continue
                data = os.read(lines, _CHUNK_BYTES)
                if not data:
                    return 0
                words[_SINCE_NS] = time.monotonic_ns()
                sink.write(frames.take(data))
                words[_LOST] = lost_before + sink.lost_in_all
                words[_SINCE_NS] = 0


def _obey(pipe: Pipe, sink: LogSink) -> bool:
    """Carry out the master's orders; False if the master is gone."""
    try:
        orders: list[Message] = pipe.receive_all()
    except EOFError:
        return False
    for order in orders:
        if order.get("do") == "file":
            sink.path = str(order["path"])  # its next line opens it
    return True
