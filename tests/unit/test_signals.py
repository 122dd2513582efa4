"""SignalQueue: what came is noted, wakes a selector, and nothing is left behind."""

from __future__ import annotations

import os
import select
import signal
import threading

from qjsupervisor.master.signals import SignalQueue, all_blocked


def readable(queue: SignalQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def test_signals_are_noted_in_order_and_wake() -> None:
    with SignalQueue([signal.SIGUSR1, signal.SIGUSR2]) as queue:
        assert not readable(queue)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert readable(queue)
        assert queue.drain() == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2]
        assert not readable(queue)
        assert queue.drain() == []


def test_a_flood_of_signals_fills_no_buffer_for_good() -> None:
    with SignalQueue([signal.SIGUSR1]) as queue:
        for _ in range(3000):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert set(queue.drain()) == {signal.SIGUSR1}
        os.kill(os.getpid(), signal.SIGUSR1)
        assert readable(queue)


def test_leaving_restores_handlers_and_wakeup() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        with SignalQueue([signal.SIGUSR1]):
            assert signal.getsignal(signal.SIGUSR1) is not mine
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_blocked_signals_come_afterwards() -> None:
    with SignalQueue([signal.SIGUSR1]) as queue:
        with all_blocked() as former:
            assert signal.SIGUSR1 not in former
            # To this thread: the test runner's others do not block it.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert queue.drain() == []
        assert queue.drain() == [signal.SIGUSR1]
