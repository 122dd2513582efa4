"""A dispatcher in a loop of its own, for tests that let it ask scripted servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qjsupervisor.config.settings import TargetSettings
from qjsupervisor.loop import Loop
from qjsupervisor.odoo.dispatcher import Dispatcher, Ended
from qjsupervisor.table.servers import private_servers

OK = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"


class Asking:
    """A dispatcher in a loop."""

    def __init__(self, *targets: TargetSettings | str, database: str = "prod", **timeouts: float | None) -> None:
        self.loop = Loop()
        settings = [TargetSettings(url=t) if isinstance(t, str) else t for t in targets]
        timeouts = {"connect_timeout_s": 5.0, "read_timeout_s": None, **timeouts}
        servers = private_servers([target.url for target in settings])
        self.dispatcher = Dispatcher(self.loop, settings, database, servers, **timeouts)  # type: ignore[arg-type]

    def turn(self, timeout_s: float) -> None:
        self.loop.turn(timeout_s)
        self.dispatcher.tick(time.monotonic())

    def until(self, predicate: Callable[[], bool], timeout_s: float = 30.0) -> None:
        end_s = time.monotonic() + timeout_s
        while not predicate():
            assert time.monotonic() < end_s, f"not within {timeout_s} s"
            self.turn(0.02)

    def ended(self, count: int = 1, timeout_s: float = 30.0) -> list[Ended]:
        self.until(lambda: len(self.dispatcher.ended) >= count, timeout_s)
        return self.dispatcher.ended

    def ask(self, *uuids: str) -> list[Ended]:
        """Send these, and wait for their ends."""
        self.dispatcher.ended.clear()
        for uuid in uuids:
            self.dispatcher.send(uuid)
        return self.ended(len(uuids))

    def close(self) -> None:
        self.dispatcher.close()
        self.loop.close()


def at(port: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{port}"


@pytest.fixture
def loops() -> Iterator[Callable[..., Asking]]:
    made: list[Asking] = []

    def make(*targets: Any, **options: Any) -> Asking:
        made.append(Asking(*targets, **options))
        return made[-1]

    yield make
    for loop in made:
        loop.close()
