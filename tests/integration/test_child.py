"""A forked child: how it begins, and every way in which it ends; it never returns into its parent's frames."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from qjsupervisor.control import Message, Pipe
from qjsupervisor.master.child import Child, ChildSpawner, exit_reason, exited_children
from qjsupervisor.states import EXIT_FAULT

from ..helpers import is_alive, wait_until

Spawn = Callable[..., Child]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    children: list[Child] = []
    spawner = ChildSpawner(lambda: None)

    def start(body: Callable[[Pipe], int], *orders: Message) -> Child:
        children.append(spawner.spawn("a child of a test", body, orders))
        return children[-1]

    yield start
    for child in children:
        child.pipe.close()


def ended(child: Child) -> int:
    _, status = os.waitpid(child.pid, 0)
    return os.waitstatus_to_exitcode(status)


def told(child: Child) -> list[Message]:
    """Until it closes its end."""
    found: list[Message] = []

    def is_over() -> bool:
        try:
            found.extend(child.pipe.receive_all())
        except EOFError:
            return True
        return False

    wait_until(is_over, "its end is closed")
    return found


def test_its_orders_are_there_from_the_beginning_and_its_code_is_its_exit(spawn: Spawn) -> None:
    def body(pipe: Pipe) -> int:
        for order in pipe.receive_all():
            pipe.send({"is": "echo", **order})
        return 7

    child = spawn(body, {"do": "one"}, {"do": "two"})
    assert [message["do"] for message in told(child)] == ["one", "two"]
    assert ended(child) == 7


def raises(error: BaseException) -> Callable[[Pipe], int]:
    def body(_pipe: Pipe) -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError("a bug"), EXIT_FAULT),
        (KeyboardInterrupt(), EXIT_FAULT),
        (SystemExit(5), 5),
        (SystemExit("words"), EXIT_FAULT),
        (GeneratorExit(), EXIT_FAULT),
    ],
)
def test_whatever_is_raised_ends_it_and_only_it(spawn: Spawn, error: BaseException, code: int) -> None:
    child = spawn(raises(error))
    reasons = [message.get("reason") for message in told(child)]
    assert ended(child) == code
    assert reasons == ([] if isinstance(error, SystemExit) else [f"{type(error).__name__}: {error}"])


def test_even_where_nothing_can_be_said(spawn: Spawn) -> None:
    def body(_pipe: Pipe) -> int:
        sys.stdout.close()
        sys.stderr.close()
        raise ZeroDivisionError

    assert ended(spawn(body)) == EXIT_FAULT


def waits(pipe: Pipe) -> int:
    pipe.send({"is": "ready"})
    signal.pause()
    return 0


def ready(child: Child) -> Child:
    wait_until(lambda: child.pipe.receive_all(), "it runs")
    return child


def test_it_has_a_name_and_a_group_of_its_own_and_its_signals_do_what_they_say(spawn: Spawn) -> None:
    child = ready(spawn(waits))
    assert psutil.Process(child.pid).cmdline()[0] == "a child of a test"
    assert os.getpgid(child.pid) == child.pid
    child.signal(signal.SIGTERM)
    assert ended(child) == -signal.SIGTERM


def test_it_collects_garbage_though_its_master_does_not_yet(spawn: Spawn) -> None:
    gc.disable()
    try:
        child = spawn(lambda _pipe: int(gc.isenabled()))
    finally:
        gc.enable()
    assert ended(child) == 1


def test_its_collections_leave_out_what_its_master_has(spawn: Spawn) -> None:
    """They would copy every page of it."""
    of_master: list[list[int]] = [[]]
    assert any(each is of_master for each in gc.get_objects())
    assert ended(spawn(lambda _pipe: int(any(each is of_master for each in gc.get_objects())))) == 0


def test_a_signal_that_comes_at_its_birth_is_not_lost() -> None:
    """They are blocked until it has handlers of its own."""
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda signum, _frame: heard.append(signum))
    try:
        spawner = ChildSpawner(lambda: os.kill(os.getpid(), signal.SIGTERM))
        child = spawner.spawn("a child of a test", waits)
        assert ended(child) == -signal.SIGTERM
        child.pipe.close()
    finally:
        signal.signal(signal.SIGTERM, former)
    assert heard == []


def test_it_dies_with_its_master() -> None:
    reading, writing = os.pipe()
    master = os.fork()
    if master == 0:
        child = ChildSpawner(lambda: None).spawn("an orphan of a test", waits)
        child.pipe.receive_all()
        os.write(writing, str(child.pid).encode())
        signal.pause()
        os._exit(0)
    os.close(writing)
    orphan = psutil.Process(int(os.read(reading, 20)))
    os.close(reading)
    os.kill(master, signal.SIGKILL)
    os.waitpid(master, 0)
    wait_until(lambda: not is_alive(orphan), "it is gone")


def test_where_no_process_can_be_had_nothing_is_left() -> None:
    def fork() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="temporarily"):
        ChildSpawner(lambda: None, fork=fork).spawn("never", waits)
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_the_dead_are_named_with_their_codes_without_waiting(spawn: Spawn) -> None:
    first, second, alive = spawn(lambda _pipe: 3), spawn(lambda _pipe: 4), ready(spawn(waits))
    found: dict[int, int] = {}

    def all_dead() -> bool:
        found.update(exited_children())
        return {first.pid, second.pid} <= found.keys()

    wait_until(all_dead, "both are named")
    assert (found[first.pid], found[second.pid], alive.pid in found) == (3, 4, False)
    alive.signal(signal.SIGKILL)
    ended(alive)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (70, "exit code 70"),
        (-9, "killed by signal 9 (SIGKILL)"),
        (-40, "killed by signal 40"),
    ],
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert exit_reason(code) == words
