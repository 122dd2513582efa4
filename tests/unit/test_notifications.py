"""Notifications, as the driver hands them over."""

from __future__ import annotations

from psycopg2.extensions import Notify

from qjsupervisor.postgres.notifications import MAX_NOTIFIED, Notified


def test_notifications() -> None:
    notified = Notified()
    notified.own_pid = 5
    for pid, payload in ((5, "mine"), (6, "a"), (6, "b"), (7, "a"), (6, ""), (6, "reload")):
        notified.append(Notify(pid, "queue_job", payload))
    assert (notified.heard_itself, notified.reload, notified.overflowed) == (True, True, False)
    assert list(notified.take(2)) == ["a", "b"]
    assert list(notified.take(2)) == [""]
    assert len(notified) == 0


def test_more_notifications_than_are_remembered() -> None:
    notified = Notified()
    for number in range(MAX_NOTIFIED + 1):
        notified.append(Notify(6, "queue_job", str(number)))
    assert notified.overflowed
    assert len(notified) == MAX_NOTIFIED
    notified.forget()
    assert (len(notified), notified.overflowed) == (0, False)


def test_what_is_no_news_is_dropped_as_it_comes() -> None:
    notified = Notified()
    notified.is_news = lambda uuid: uuid != "ours"
    for payload in ("ours", "theirs"):
        notified.append(Notify(6, "queue_job", payload))
    assert notified.take(9) == ["theirs"]
