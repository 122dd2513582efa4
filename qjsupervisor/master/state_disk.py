"""What a child does for the state file: reads it, or puts another one there. It may take for ever; see state_file."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

#: A file that is larger is none of ours.
MAX_BYTES = 16 * 1_048_576
#: Exit codes of the child that reads: what it left is the file, or the reason why there is none.
READ, MISSING, BROKEN, UNUSABLE = 0, 3, 4, 5
#: Of the child that writes: what it left is the reason.
WRITTEN, FAILED = 0, 3


def run_read(path: str, memory: int) -> int:
    """Leave the content of the file, or why there is none."""
    code, left = read_file(path)
    with open(memory, "wb", closefd=False) as stream:
        stream.write(left)
    return code


def read_file(path: str) -> tuple[int, bytes]:
    """(one of the exit codes, the content or the reason)."""
    folder = os.path.dirname(path)
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    except OSError as error:
        return UNUSABLE, f"{folder} cannot be made: {error.strerror}".encode()
    if not os.path.isdir(folder) or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return UNUSABLE, f"{folder} is no directory that we may read and write".encode()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return MISSING, b""
    except OSError as error:
        return BROKEN, str(error.strerror).encode()
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return BROKEN, b"it is no regular file"
        if status.st_uid not in (0, os.geteuid()):
            return BROKEN, f"it belongs to user id {status.st_uid}".encode()
        if status.st_size > MAX_BYTES:
            return BROKEN, f"it is larger than {MAX_BYTES} bytes".encode()
        with open(descriptor, "rb", closefd=False) as stream:
            return READ, stream.read(MAX_BYTES)
    except OSError as error:
        return BROKEN, str(error.strerror).encode()
    finally:
        os.close(descriptor)


def run_write(path: str, content: bytes, spoilt: bool, memory: int) -> int:
    """Put the content there, or leave the reason why that cannot be."""
    temporary = f"{path}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if spoilt:
            with suppress(FileNotFoundError):
                os.rename(path, f"{path}.ignored")
        os.rename(temporary, path)
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        with open(memory, "wb", closefd=False) as stream:
            stream.write(f"it cannot be written: {error.strerror}".encode())
        return FAILED
    return WRITTEN


def _sync_folder(folder: str) -> None:
    """The name is on disk too when a machine loses its power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
