"""A file system that does not answer: FUSE, with nobody behind it. Whoever looks into it waits inside the kernel."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType

import pytest

_DETACH = 2  # MNT_DETACH, of linux/fs.h


class HangingFolder:
    """Mounted at `path`, an empty folder, until it is left; then all who wait get an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> HangingFolder:
        try:
            self._descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            pytest.skip(f"no FUSE on this machine: {error}")
        options = f"fd={self._descriptor},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if self._libc.mount(b"hanging", os.fsencode(self.path), b"fuse", 0, options.encode()) != 0:
            os.close(self._descriptor)
            pytest.skip(f"this user may not mount: {os.strerror(ctypes.get_errno())}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._libc.umount2(os.fsencode(self.path), _DETACH)
        os.close(self._descriptor)
