"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.loop import Loop

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
