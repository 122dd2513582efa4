"""Clients of the control socket that are slow, hostile or many, and who may listen there; all in one process."""

from __future__ import annotations

import json
import math
import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from qjsupervisor.control import MAX_FRAME_BYTES
from qjsupervisor.errors import AlreadyRunning, ConfigError
from qjsupervisor.master import control_socket
from qjsupervisor.master.control_socket import CLIENT_TIMEOUT_S, MAX_CLIENTS, ControlSocket

from .control_server import Server


@pytest.fixture
def client(server: Server, path: str) -> Iterator[socket.socket]:
    with connected(path) as sock:
        server.settle()
        yield sock


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.setblocking(False)
    return sock


def sent(sock: socket.socket, data: bytes) -> int:
    """How much of the data went without waiting."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def lines(sock: socket.socket) -> list[Any]:
    return [json.loads(line) for line in sock.recv(1 << 20).splitlines()]


def is_hung_up(sock: socket.socket) -> bool:
    """What a client sees: the end, or a reset where its bytes were not read."""
    try:
        while True:
            if not sock.recv(1 << 20):
                return True
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_modes_of_socket_and_directory(server: Server, path: str) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    server.control.close()
    assert os.listdir(os.path.dirname(path)) == []


def test_a_request_in_pieces(server: Server, client: socket.socket) -> None:
    for byte in b'{"do":"x","text":"hello"}\n':
        client.send(bytes([byte]))
        server.settle()
    assert lines(client) == [{"ok": True, "echo": "hello", "filling": ""}]


def test_several_requests_at_once_one_a_turn(server: Server, client: socket.socket) -> None:
    client.send(b'{"do":"a"}\n{"do":"b"}\n{"do":"refuse"}\nnonsense\n{"do":"c"}\n')
    server.turn()
    assert len(server.answers) == 1
    server.settle()
    answers = lines(client)
    assert [each["ok"] for each in answers] == [True, True, False, False, True]
    assert answers[2]["error"] == "no"


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_request_without_end_is_refused_and_hung_up_on(server: Server, client: socket.socket, ending: bytes) -> None:
    rest = b"x" * (3 * MAX_FRAME_BYTES) + ending
    with suppress(ConnectionError):
        while rest:
            rest = rest[sent(client, rest) :]
            server.turn()
    server.settle()
    assert server.answers == []
    assert is_hung_up(client)


def test_a_client_that_takes_nothing_does_not_block_the_others(
    server: Server, client: socket.socket, path: str
) -> None:
    client.send(b'{"do":"x","size":4000000}\n' * 3)
    server.settle()
    assert len(server.answers) == 1, "no second request before the first response is out"
    with connected(path) as other:
        other.send(b'{"do":"y","text":"quick"}\n')
        server.settle()
        assert lines(other)[0]["echo"] == "quick"
    server.now_s += CLIENT_TIMEOUT_S
    server.settle()
    assert is_hung_up(client)


def test_a_large_response_is_given_in_pieces(server: Server, client: socket.socket) -> None:
    client.send(b'{"do":"x","size":3000000}\n')
    received = b""
    while not received.endswith(b"\n"):
        server.settle()
        received += client.recv(1 << 20)
    assert len(json.loads(received)["filling"]) == 3_000_000


def test_a_silent_client_is_let_go(server: Server, client: socket.socket) -> None:
    server.now_s += CLIENT_TIMEOUT_S - 0.1
    server.settle()
    assert not is_hung_up(client)
    assert server.loop.next_s() == pytest.approx(server.now_s + 0.1)
    server.now_s += 0.1
    server.settle()
    assert is_hung_up(client)


def test_too_many_clients_the_oldest_goes(server: Server, client: socket.socket, path: str) -> None:
    with ExitStack() as stack:
        server.now_s += 1
        others = [stack.enter_context(connected(path)) for _ in range(MAX_CLIENTS)]
        server.settle()
        assert is_hung_up(client)
        others[-1].send(b'{"do":"x"}\n')
        server.settle()
        assert lines(others[-1])[0]["ok"]


def test_a_client_that_is_gone_before_its_answer(server: Server, client: socket.socket) -> None:
    client.send(b'{"do":"x","size":4000000}\n')
    client.close()
    server.settle()
    assert server.loop.next_s() == math.inf, "nothing is left of it"


def test_an_answer_that_comes_later_holds_up_nobody_else(server: Server, client: socket.socket, path: str) -> None:
    client.send(b'{"do":"later"}\n{"do":"x","text":"second"}\n')
    server.settle()
    with connected(path) as other:
        other.send(b'{"do":"y","text":"quick"}\n')
        server.settle()
        assert lines(other)[0]["echo"] == "quick"
    server.now_s += 10 * CLIENT_TIMEOUT_S
    server.settle()
    server.deferred[0].settle({"ok": True, "echo": "at last"})
    server.settle()
    assert [each["echo"] for each in lines(client)] == ["at last", "second"]
    server.now_s += CLIENT_TIMEOUT_S
    server.settle()
    assert is_hung_up(client)


def test_a_client_that_is_gone_before_its_late_answer(server: Server, client: socket.socket, path: str) -> None:
    client.send(b'{"do":"later"}\n')
    server.settle()
    client.close()
    server.deferred[0].settle({"ok": True})
    server.settle()
    assert server.loop.next_s() == math.inf, "nothing is left of it"
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(path)) for _ in range(MAX_CLIENTS)]
        for each in clients:
            each.send(b'{"do":"later"}\n')
        server.settle()
        newest = stack.enter_context(connected(path))
        newest.send(b'{"do":"x"}\n')
        server.settle()
        assert lines(newest)[0]["ok"], "those that wait do not keep others out"
        for deferred in server.deferred[1:]:
            deferred.settle({"ok": True})
        assert sum(is_hung_up(each) for each in clients) == 1


def test_a_stranger_is_hung_up_on(server: Server, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "peer_credentials", lambda _: (4711, 65534))
    monkeypatch.setattr(control_socket, "is_trusted", lambda uid: uid != 65534)
    with connected(path) as stranger:
        server.settle()
        assert is_hung_up(stranger)
    assert server.answers == []


def test_without_descriptors_it_pauses_instead_of_spinning(server: Server, path: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connected(path) as client:
        free = os.dup(client.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            assert server.turn()
            assert not server.turn(), "the listener is not looked at for a while"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.now_s += control_socket.ACCEPT_PAUSE_S
        client.send(b'{"do":"x"}\n')
        server.turn()
        server.settle()
        assert lines(client)[0]["ok"]


# -- who runs ------------------------------------------------------------------------------------------------


def test_a_second_one_is_told_and_disturbs_nothing(server: Server, client: socket.socket, path: str) -> None:
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}") as raised:
        ControlSocket(path, server.handle).open()
    assert raised.value.pid == os.getpid()
    client.send(b'{"do":"x"}\n')
    server.settle()
    assert lines(client)[0]["ok"]


def test_a_live_socket_whose_lock_was_removed_is_still_found(server: Server, path: str) -> None:
    os.unlink(path + ".lock")
    with pytest.raises(AlreadyRunning, match="listens at"):
        ControlSocket(path, server.handle).open()


def test_what_a_killed_one_left_is_replaced(path: str) -> None:
    os.mkdir(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with open(path + ".lock", "w") as lock:
        lock.write("1\n")
    server = Server(path)
    server.control.open()
    server.control.close()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_something_else_in_its_place_is_left_alone(path: str, kind: str) -> None:
    os.mkdir(os.path.dirname(path), 0o700)
    if kind == "file":
        Path(path).write_text("precious")
    else:
        os.mkdir(path)
    with pytest.raises(ConfigError, match="not a socket"):
        ControlSocket(path, lambda request: request).open()
    assert os.path.exists(path)


def test_a_fault_of_ours_is_answered_and_survived(
    server: Server, client: socket.socket, log_events: list[EventDict]
) -> None:
    client.send(b'{"do":"fail"}\n{"do":"x","text":"still here"}\n')
    server.settle()
    failed, fine = lines(client)
    assert failed["ok"] is False
    assert "IndexError: list index out of range" in failed["error"]
    assert fine["echo"] == "still here"
    assert [each["event"] for each in log_events if each["log_level"] == "error"] == ["request_failed"]


# -- client --------------------------------------------------------------------------------------------------
