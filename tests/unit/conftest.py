"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.loop import Loop

from .called import calls  # noqa: F401
from .channel_trees import ours  # noqa: F401
from .configured import conf  # noqa: F401
from .control_server import path, server  # noqa: F401
from .cores import core  # noqa: F401
from .play import Play


@pytest.fixture
def play() -> Iterator[Play]:
    with Loop() as loop:
        made = Play(loop, ChannelSpec(name="root", capacity=1, sequential=True))
        yield made
        made.close()


@pytest.fixture
def wide() -> Iterator[Play]:
    """With room for one more."""
    with Loop() as loop:
        made = Play(loop, ChannelSpec(name="root", capacity=2))
        yield made
        made.close()
