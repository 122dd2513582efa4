"""The place of the control socket: a directory that is ours alone, a path that fits, and nothing else there."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from ..errors import ConfigError, unusable_path
from ..logs import get_logger

_BACKLOG = 128
_MAX_PATH_BYTES = 107  # sun_path
_OPTION = "control_socket"


def prepare_directory(path: str) -> None:
    """Create the socket's directory (0700), or refuse one that somebody else could modify."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    except OSError as error:
        raise unusable_path(_OPTION, path, "cannot be made", error) from error
    status = check_directory(path)
    if status.st_mode & 0o055:
        get_logger().warning("directory_accepted", path=path, reason="others may look into it: chmod 0700")


def check_length(path: str) -> None:
    """Raise ConfigError for a path that no socket can have."""
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise _refused(path, f"is longer than the {_MAX_PATH_BYTES} bytes that a socket's path may have")


def check_kind(path: str, status: os.stat_result) -> None:
    """Raise ConfigError for something at the socket's path that is none."""
    if not stat.S_ISSOCK(status.st_mode):
        raise _refused(path, "exists and is not a socket; remove it, or name another path")


def check_directory(path: str) -> os.stat_result:
    """Raise ConfigError for a directory that somebody else could modify; else its status."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise unusable_path(_OPTION, path, "cannot be used", error) from error
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        raise _refused(path, "must be a directory, not a link or a file")
    if status.st_uid != os.geteuid():
        raise _refused(path, f"belongs to user id {status.st_uid}, not to us ({os.geteuid()})")
    if status.st_mode & 0o022:
        raise _refused(path, "may be written to by others; name a path in a directory of its own, mode 0700")
    return status


def listen(path: str) -> socket.socket:
    """Bind with mode 0600 from the start; between bind and a later chmod anybody could connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former_umask = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise unusable_path(_OPTION, path, "cannot be listened on", error) from error
    finally:
        os.umask(former_umask)
    return listener


def _refused(path: str, what: str) -> ConfigError:
    return ConfigError(_OPTION, f"{_OPTION}: {path} {what}")
