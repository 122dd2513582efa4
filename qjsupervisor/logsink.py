"""Where log lines go: a file or standard output. Never blocks and never raises: a line that cannot be written is
counted, and the count is reported before the first line that can be written again.

A blocking write to a pipe whose reader has stopped (a stopped supervisord, a paused terminal) would stop the master.
So pipes and terminals are reopened in non-blocking mode, separate from the open file description that we share with
the process that started us. After a fork each process has its own sink on the same open file. A write to a file can
hang with its file system, so in a supervisor one process does it for all others (master/log_writer.py), which write
into its pipe.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial

#: Temporary errors that are not the configuration's fault: a full disk, no free descriptors.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EINTR})
_STDOUT = 1
#: The largest pipe buffer that Linux allows unprivileged users.
_PIPE_BYTES = 1 << 20
#: What goes into a pipe at once is not mixed with what others write: (process id, bytes that follow).
_FRAME = struct.Struct("!IH")
_LONGEST_PART = select.PIPE_BUF - _FRAME.size

Write = Callable[[bytes], int]
Release = Callable[[], None]
#: (lines lost, reason) -> the line that reports them.
Report = Callable[[int, str], bytes]


class LogSink:
    """Appends lines to `path`, or to standard output if that is None.

    Each process notices at its next line that the file was moved or removed (logrotate). The constructor raises
    OSError if the file cannot be written for a reason that will not pass.
    """

    def __init__(self, path: str | None, report: Report) -> None:
        self.path = path
        #: Lines lost since the start.
        self.lost_in_all = 0
        self._report = report
        #: Lines go into a pipe, and another process writes the file.
        self.is_piped = False
        self._lock = threading.Lock()
        self._lost = 0
        self._reason = ""
        #: The unwritten rest of a line whose beginning has been written.
        self._rest = b""
        self._release: Release = _nothing
        #: Device and inode of the open file.
        self._identity: tuple[int, int] | None = None
        self._write: Write = _write_nowhere
        if path is None:
            self._write, self._release = _standard_output()
        else:
            try:
                self._open(path)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise

    def write(self, line: bytes) -> None:
        """Write whole lines, or count them as lost."""
        with self._lock:
            if self.path is not None and not self.is_piped:
                self._follow(self.path)
            report = self._report(self._lost, self._reason) if self._lost else b""
            if self._put(report + line):
                self._lost = 0
            else:
                lines = line.count(b"\n")
                self._lost += lines
                self.lost_in_all += lines

    def reopen(self) -> None:
        """Reopen the file, for example after a rotation. If that fails, keep the old one.

        May be called by a signal handler that interrupted `write` in the same thread. Then the lock is taken, and
        `write` checks the file itself at the next line.
        """
        if self._lock.acquire(blocking=False):
            try:
                if self.path is not None and not self.is_piped:
                    self._try_open(self.path)
            finally:
                self._lock.release()

    def into_pipe(self) -> int:
        """Write into a pipe from now on; its end for who writes the file, see Frames."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writing, False)
        _enlarge(writing)
        with self._lock:
            self._release()
            self._write, self._release = _frame_writer(writing), partial(os.close, writing)
            self.is_piped, self._rest = True, b""
        return reading

    def close(self) -> None:
        """Close the file; called when another sink replaces this one."""
        with self._lock:
            self._release()
            self._write, self._release, self._identity = _write_nowhere, _nothing, None

    def forget(self) -> None:
        """In a forked child: drop the parent's half-written line and lost count, which the parent will handle."""
        self._lock = threading.Lock()
        self._rest, self._lost, self.lost_in_all = b"", 0, 0

    def _put(self, data: bytes) -> bool:
        """Whether the data was written at least in part; `_rest` holds what is left."""
        if self._write is _write_nowhere:
            self._reason = self._reason or "it is not open"
            return False
        try:
            if self._rest:
                self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
            self._rest = data[self._write(data) :]
        except OSError as error:
            self._reason = error.strerror or type(error).__name__
            return False
        return True

    def _follow(self, path: str) -> None:
        """Reopen the file if its name now refers to another file, or to none."""
        try:
            there = os.stat(path)
        except FileNotFoundError:
            self._try_open(path)
        except OSError as error:
            # The path cannot be checked now, so stay with the open file.
            self._reason = error.strerror or type(error).__name__
        else:
            if self._identity != (there.st_dev, there.st_ino):
                self._try_open(path)

    def _try_open(self, path: str) -> None:
        try:
            self._open(path)
        except OSError as error:
            self._reason = error.strerror or type(error).__name__

    def _open(self, path: str) -> None:
        # Without blocking: it may be a named pipe.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(path, flags, 0o640)
        status = os.fstat(fd)
        self._release()
        self._write, self._release = _writer(fd), partial(os.close, fd)
        self._identity = status.st_dev, status.st_ino


def _writer(fd: int) -> Write:
    def write(data: bytes) -> int:
        return os.write(fd, data)

    return write


def _frame_writer(fd: int) -> Write:
    """Write in parts that are never mixed with another process's; the bytes that were taken."""

    def write(data: bytes) -> int:
        pid, taken = os.getpid(), 0
        while taken < len(data):
            part = data[taken : taken + _LONGEST_PART]
            try:
                os.write(fd, _FRAME.pack(pid, len(part)) + part)
            except BlockingIOError:
                if not taken:
                    raise
                break
            taken += len(part)
        return taken

    return write


class Frames:
    """Puts the lines of several processes together again that came through one pipe."""

    def __init__(self) -> None:
        self._unread = b""
        #: Of each process, a line that has not come whole.
        self._begun: dict[int, bytes] = {}

    def take(self, data: bytes) -> bytes:
        """What was read from the pipe; the lines that are whole by now."""
        data, at, lines = self._unread + data, 0, []
        while len(data) - at >= _FRAME.size:
            pid, size = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + size
            if end > len(data):
                break
            part = self._begun.pop(pid, b"") + data[at + _FRAME.size : end]
            if part.endswith(b"\n"):
                lines.append(part)
            else:
                self._begun[pid] = part
            at = end
        self._unread = data[at:]
        return b"".join(lines)


def _write_nowhere(_data: bytes) -> int:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _nothing() -> None:
    """The release function of an output that needs none."""


def _standard_output() -> tuple[Write, Release]:
    """A non-blocking writer for standard output, whatever it is, and a function that releases it."""
    try:
        kind = os.fstat(_STDOUT).st_mode
    except OSError:
        return _write_nowhere, _nothing
    if stat.S_ISREG(kind):
        return _writer(_STDOUT), _nothing
    if stat.S_ISSOCK(kind):
        return _socket_writer(_STDOUT)
    try:
        fd = os.open(f"/proc/self/fd/{_STDOUT}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        # Another user's pipe can be written to but not reopened: check for room before each write.
        return _guarded_writer(_STDOUT), _nothing
    if stat.S_ISFIFO(kind):
        _enlarge(fd)
    return _writer(fd), partial(os.close, fd)


def _enlarge(fd: int) -> None:
    """Enlarge the pipe (64 KiB by default), to hold a burst until the reader gets to it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass  # over a limit of the system or the user; the default size will do


def _socket_writer(fd: int) -> tuple[Write, Release]:
    """For systemd's journal, which is a socket and so has its own non-blocking send."""
    peer = socket.socket(fileno=os.dup(fd))

    def write(data: bytes) -> int:
        return peer.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    return write, peer.close


def _guarded_writer(fd: int) -> Write:
    """Write only what is sure not to block: a writable pipe accepts PIPE_BUF bytes."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def write(data: bytes) -> int:
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(fd, data[: select.PIPE_BUF])

    return write


def is_terminal(path: str | None) -> bool:
    """Whether lines go to a terminal; `path` as for LogSink."""
    return path is None and sys.stdout is not None and os.isatty(_STDOUT)
