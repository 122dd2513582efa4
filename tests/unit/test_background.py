"""Work beside the loop: its result comes back in the loop, an error as a line, and the queue is short."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.typing import EventDict

from qjsupervisor.errors import DatabaseError
from qjsupervisor.loop import Loop
from qjsupervisor.monitor.background import MOST_WAITING, THREADS, Background


class Taken:
    """What came back, and in which thread."""

    def __init__(self) -> None:
        self.results: list[tuple[Any, str]] = []
        self.threads: set[int] = set()

    def __call__(self, value: Any, error: str) -> None:
        self.results.append((value, error))
        self.threads.add(threading.get_ident())


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


@pytest.fixture
def background(loop: Loop) -> Iterator[Background]:
    made = Background(loop)
    yield made
    made.close()


def turn_until(loop: Loop, taken: Taken, count: int) -> None:
    deadline_s = time.monotonic() + 10
    while len(taken.results) < count:
        assert time.monotonic() < deadline_s
        loop.turn(0.1)


def raises(error: Exception) -> Any:
    raise error


def test_results_and_errors_come_back_in_the_loop(
    loop: Loop, background: Background, log_events: list[EventDict]
) -> None:
    taken = Taken()
    background.submit(lambda: 42, taken)
    background.submit(lambda: raises(DatabaseError("db", "db: away")), taken)
    background.submit(lambda: raises(ZeroDivisionError("a bug")), taken)
    background.submit(lambda: 43, taken)
    turn_until(loop, taken, 4)
    assert sorted(taken.results, key=str) == sorted(
        [(42, ""), (None, "db: away"), (None, "this cannot be done: see the log"), (43, "")], key=str
    )
    assert taken.threads == {threading.get_ident()}
    assert [event["event"] for event in log_events] == ["monitor_request_failed"], "only a bug is logged"


def test_too_many_at_once_are_refused_at_once(loop: Loop, background: Background) -> None:
    taken, go_on, busy = Taken(), threading.Event(), threading.Semaphore(0)

    def waits() -> None:
        busy.release()
        assert go_on.wait(10)

    for _ in range(THREADS):
        background.submit(waits, taken)
        assert busy.acquire(timeout=10)
    for _ in range(MOST_WAITING):
        background.submit(lambda: "waited", taken)
    background.submit(lambda: "never", taken)
    assert taken.results == [(None, "too many ask at once: try again in a moment")]
    go_on.set()
    turn_until(loop, taken, 1 + THREADS + MOST_WAITING)
    assert taken.results.count(("waited", "")) == MOST_WAITING
