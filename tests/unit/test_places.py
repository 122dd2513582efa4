"""The places that a configuration names, before anything is made there. What `start` does: tests/acceptance."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.errors import ConfigError, QJSupervisorError
from qjsupervisor.master.places import refuse_unfit


def refusal(tmp_path: Path, **options: str) -> QJSupervisorError | None:
    places = {"control_socket": str(tmp_path / "run" / "control.sock"), **options}
    try:
        refuse_unfit(load({"config": "/dev/null", **places}, {"HOME": str(tmp_path)}))
    except QJSupervisorError as error:
        return error
    return None


def test_fit_ones_are_not_touched(tmp_path: Path) -> None:
    log, state = tmp_path / "log", tmp_path / "state"
    assert refusal(tmp_path, log_file=str(log), pidfile=str(tmp_path / "pid"), state_dir=str(state)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["log_file", "pidfile", "state_dir"])
def test_a_folder_that_is_not_there_is_named_with_its_option(tmp_path: Path, option: str) -> None:
    found = refusal(tmp_path, **{option: str(tmp_path / "no" / "where")})
    assert isinstance(found, ConfigError)
    assert found.option == option
    assert f"{tmp_path}/no does not exist" in str(found)


@pytest.mark.parametrize("option", ["log_file", "pidfile", "state_dir"])
def test_a_folder_that_is_a_file_is_said_to_be_one(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    found = refusal(tmp_path, **{option: str(tmp_path / "file" / "below")})
    assert found is not None
    assert "is not a directory" in str(found)


def test_a_state_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"state_dir: {tmp_path}/file cannot be made: {tmp_path}/file is not" in str(
        refusal(tmp_path, state_dir=str(tmp_path / "file"))
    )


def test_a_log_that_is_a_folder_cannot_be_opened(tmp_path: Path) -> None:
    found = refusal(tmp_path, log_file=str(tmp_path))
    assert found is not None
    assert str(found).startswith(f"log_file: {tmp_path} cannot be opened")


def test_a_pipe_as_a_log_is_left_alone(tmp_path: Path) -> None:
    """Its reader would take an end that is opened and closed for the end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert refusal(tmp_path, log_file=str(fifo)) is None
    finally:
        os.close(reader)


def test_what_is_no_socket_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("mine")
    found = refusal(tmp_path, control_socket=str(tmp_path / "control.sock"))
    assert isinstance(found, ConfigError)
    assert found.option == "control_socket"
    (tmp_path / "control.sock").unlink()
    with closing(socket.socket(socket.AF_UNIX)) as former:
        former.bind(str(tmp_path / "control.sock"))
        assert refusal(tmp_path, control_socket=str(tmp_path / "control.sock")) is None, "one that was left is replaced"
