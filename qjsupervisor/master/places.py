"""The files, the socket and the folders that a configuration names: whether `start` can use them, found out without
making any. `start` and `check` ask the same, before anything else; what the two then say is the same too.

A supervisor that runs holds its files and proves by that that they are fit: of its places nobody needs to ask.
"""

from __future__ import annotations

import os
import stat

from ..config.settings import Config
from ..errors import ConfigError, unusable_path
from .pidfile import Pidfile
from .socket_place import check_directory, check_kind, check_length


def refuse_unfit(config: Config) -> None:
    """Raise ConfigError, or NoRoom, for the first place that `start` could not use."""
    check_log(config)
    if config.pidfile is not None:
        _check_folder("pidfile", config.pidfile, os.path.dirname(config.pidfile))
        Pidfile(config.pidfile).check()
    check_length(config.control_socket)
    folder = os.path.dirname(config.control_socket) or "."
    if os.path.lexists(folder):
        check_directory(folder)
        _check_writable("control_socket", config.control_socket, folder)
        Pidfile(config.control_socket + ".lock", option="control_socket").check()
        if os.path.lexists(config.control_socket):
            check_kind(config.control_socket, os.lstat(config.control_socket))
    else:
        _check_folder("control_socket", config.control_socket, _existing(folder))
    check_state_dir(config)


def check_state_dir(config: Config) -> None:
    """Raise ConfigError if the state file could not be made."""
    if config.state_dir is not None:
        parent = config.state_dir if os.path.lexists(config.state_dir) else os.path.dirname(config.state_dir)
        _check_folder("state_dir", config.state_dir, parent)


def check_log(config: Config) -> None:
    """Raise ConfigError, or NoRoom, if LogSink could not open the log file; makes nothing."""
    path = config.log_file
    if path is None:
        return
    if not os.path.exists(path):
        _check_folder("log_file", path, os.path.dirname(path))
        return
    if stat.S_ISFIFO(os.stat(path).st_mode):
        return  # whoever reads it would take this for the end
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        raise unusable_path("log_file", path, "cannot be opened", error) from error


def _existing(folder: str) -> str:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    return folder


def _check_folder(option: str, path: str, folder: str) -> None:
    folder = folder or "."
    if not os.path.isdir(folder):
        what = "is not a directory" if os.path.lexists(folder) else "does not exist"
        raise ConfigError(option, f"{option}: {path} cannot be made: {folder} {what}")
    _check_writable(option, path, folder)


def _check_writable(option: str, path: str, folder: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        who = f"we (user id {os.geteuid()}) may not write into {folder}"
        raise ConfigError(option, f"{option}: {path} cannot be made: {who}")
