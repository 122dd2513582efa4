"""Framing of pipe and socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from qjsupervisor import control
from qjsupervisor.control import MAX_FRAME_BYTES, Message, Pipe, decode, encode
from qjsupervisor.errors import ProtocolError

# -- frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [b"", b"{", b"[]", b"null", b"17", b"\xff\xfe", b'{"a":1} x', b"[" * 60_000, b'{"a":' * 20_000, b'"\\ud800"'],
)
def test_nonsense_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


def test_any_text_survives_in_one_line() -> None:
    message = {"reason": "ü\n\x00\x1b[2J\ud800\u202e", "n": 1.5}
    assert b"\n" not in encode(message)
    assert decode(encode(message)) == message


# -- pipe ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[Pipe, Pipe]]:
    ends = Pipe.pair()
    yield ends
    for end in ends:
        end.close()


def test_messages_arrive_whole_and_in_order(pipe: tuple[Pipe, Pipe]) -> None:
    master, child = pipe
    assert child.receive_all() == []
    for number in range(5):
        assert master.send({"do": "stop", "number": number})
    assert [message["number"] for message in child.receive_all()] == [0, 1, 2, 3, 4]


def test_a_full_pipe_refuses_and_loses_nothing(pipe: tuple[Pipe, Pipe]) -> None:
    master, child = pipe
    sent = 0
    while master.send({"number": sent, "filling": "x" * 1000}):
        sent += 1
    assert not master.gone
    received: list[Message] = []
    while batch := child.receive_all():
        assert len(batch) <= control.MAX_AT_ONCE
        received += batch
    assert [message["number"] for message in received] == list(range(sent))
    assert master.send({"do": "stop"})


def test_the_end_comes_after_the_last_words(pipe: tuple[Pipe, Pipe]) -> None:
    master, child = pipe
    child.send({"is": "error", "reason": "last words"})
    child.close()
    assert master.receive_all() == [{"is": "error", "reason": "last words"}]
    with pytest.raises(EOFError):
        master.receive_all()
    assert master.gone
    assert not master.send({"do": "stop"})


def test_the_last_words_of_one_who_did_not_read_are_heard(pipe: tuple[Pipe, Pipe]) -> None:
    """The kernel then says first that the connection was reset."""
    master, child = pipe
    master.send({"do": "resync"})
    child.send({"is": "error", "reason": "last words"})
    child.close()
    assert master.receive_all() == [{"is": "error", "reason": "last words"}]
    with pytest.raises(EOFError):
        master.receive_all()


def test_sending_to_nobody_is_noticed(pipe: tuple[Pipe, Pipe]) -> None:
    master, child = pipe
    child.close()
    assert not master.send({"do": "stop"})
    assert master.gone


def test_a_long_reason_is_cut_and_a_long_message_refused(pipe: tuple[Pipe, Pipe]) -> None:
    master, child = pipe
    assert child.send({"is": "error", "reason": "ü" * 1_000_000})
    (message,) = master.receive_all()
    assert len(message["reason"]) == control.MAX_REASON_CHARACTERS + 3
    with pytest.raises(ProtocolError, match="too long"):
        child.send({"is": "x" * MAX_FRAME_BYTES})


def test_foreign_frames_are_protocol_errors() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        end = Pipe(ours)
        theirs.send(b"x" * (MAX_FRAME_BYTES + 1))
        with pytest.raises(ProtocolError, match="longer"):
            end.receive_all()
        theirs.send(b"\x00")
        with pytest.raises(ProtocolError):
            end.receive_all()
        theirs.send(b'{"is":"read"}')
        assert end.receive_all() == [{"is": "read"}]


def test_an_intercepted_order_is_obeyed_and_not_returned(pipe: tuple[Pipe, Pipe]) -> None:
    master, child = pipe
    seen: list[Message] = []
    child.intercept("log", seen.append)
    master.send({"do": "log", "log_level": "debug"})
    master.send({"do": "stop"})
    assert child.receive_all() == [{"do": "stop"}]
    assert seen == [{"do": "log", "log_level": "debug"}]
