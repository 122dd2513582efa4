"""A worker's lines that its master writes."""

from __future__ import annotations

from typing import Any

from qjsupervisor import logs
from qjsupervisor.control import Pipe
from qjsupervisor.worker.database_log import ForwardingLog as WorkersLog


def test_a_worker_tells_its_master_and_writes_where_that_does_not_listen(log_events: list[Any]) -> None:
    ours, theirs = Pipe.pair()
    log = WorkersLog(theirs, logs.get_logger(database="a"))
    log.error("database_lost", reason="password")
    assert ours.receive_all() == [
        {"is": "log", "level": "error", "event": "database_lost", "facts": {"reason": "password"}}
    ]
    assert log_events == []
    ours.close()
    for write in (log.info, log.warning, log.error):
        write("database_lost", reason="password")
    assert [each["log_level"] for each in log_events] == ["info", "warning", "error"]
    theirs.close()
