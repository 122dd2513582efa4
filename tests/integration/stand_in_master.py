"""The real master, with workers and a scout that do what their database's name says; no PostgreSQL, no Odoo.

    python -m tests.integration.stand_in_master --config FILE

The databases are the keys of `databases.json` beside the configuration file, read anew by each scan: name -> verdict.
A worker's behaviour is the beginning of its database's name, see WORKERS.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from qjsupervisor import logs
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.control import Pipe
from qjsupervisor.errors import QJSupervisorError
from qjsupervisor.master.master import Master
from qjsupervisor.master.parts import MasterParts, Table
from qjsupervisor.states import EXIT_GONE


def obey(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    """Ready, and idle until the end; tells its orders to the log."""
    worker_slot = table.worker_slot(slot)  # type: ignore[attr-defined]
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    log = logs.get_logger(database=settings.database)
    log.info("worker_began", shared=gc.get_freeze_count())
    pipe.send({"is": "read"})
    pipe.send({"is": "ready"})
    while not stopped.is_set():
        worker_slot.heartbeat(time.monotonic_ns())
        select.select([pipe], [], [], 0.2)
        try:
            orders = pipe.receive_all()
        except EOFError:
            return 0
        for order in orders:
            log.info("order_received", **order)
            if order["do"] == "stop":
                return 0
    return 0


def crash(*_: Any) -> NoReturn:
    raise ValueError("as the name says")


def vanish(*_: Any) -> int:
    return EXIT_GONE


def never_ready(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    pipe.send({"is": "starting", "reason": "connection refused"})
    return wait_for_end(pipe)


def stand_by(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    pipe.send({"is": "standby", "reason": "somebody else leads"})
    return obey_only_stop(table, slot, pipe)


def hang(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    """Ready, then a loop that neither stamps nor listens; only a signal without a handler ends it."""
    pipe.send({"is": "read"})
    pipe.send({"is": "ready"})
    while True:
        signal.pause()


def stubborn(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hang(settings, table, slot, pipe)


def babble(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    pipe._socket.send(b"\x00\xff nonsense")
    return wait_for_end(pipe)


def flood(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    pipe.send({"is": "read"})
    worker_slot = table.worker_slot(slot)  # type: ignore[attr-defined]
    while not pipe.gone:
        worker_slot.heartbeat(time.monotonic_ns())
        pipe.send({"is": "ready"})
    return 0


def close_pipe(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    """It closes its end and stays: no SIGCHLD for the master, only EOF."""
    pipe.close()
    while True:
        signal.pause()


def wait_for_end(pipe: Pipe) -> int:
    while True:
        select.select([pipe], [], [])
        try:
            if any(order["do"] == "stop" for order in pipe.receive_all()):
                return 0
        except EOFError:
            return 0


def obey_only_stop(table: Table, slot: int, pipe: Pipe) -> int:
    worker_slot = table.worker_slot(slot)  # type: ignore[attr-defined]
    while True:
        worker_slot.heartbeat(time.monotonic_ns())
        select.select([pipe], [], [], 0.2)
        try:
            if any(order["do"] == "stop" for order in pipe.receive_all()):
                return 0
        except EOFError:
            return 0


WORKERS: dict[str, Callable[[Any, Table, int, Pipe], int]] = {
    "crash": crash,
    "vanish": vanish,
    "never": never_ready,
    "standby": stand_by,
    "hang": hang,
    "stubborn": stubborn,
    "babble": babble,
    "flood": flood,
    "closed": close_pipe,
}


def run_worker(settings: Any, table: Table, slot: int, pipe: Pipe) -> int:
    behaviour = WORKERS.get(settings.database.partition("_")[0], obey)
    return behaviour(settings, table, slot, pipe)


def run_scout(config: Config, pipe: Pipe, _first: Sequence[str]) -> int:
    assert config.config_file is not None
    databases = json.loads((Path(config.config_file).parent / "databases.json").read_text())
    if "error" in databases:
        pipe.send({"error": databases["error"]})
        return 0
    if "hang" in databases:
        signal.pause()
    if "crash" in databases:
        os._exit(3)
    selected = {name: verdict for name, verdict in databases.items() if config.selects(name)}
    pipe.send({"listed": list(selected)})
    for name, verdict in selected.items():
        message = {"database": name, "verdict": verdict, "reason": f"the scan says {verdict}", "details": {}}
        if verdict == "odd":
            message = {"listed": 5}  # what no scan says, and what the master's callback fails at
        while not pipe.send(message):
            select.select([], [pipe], [])
    pipe.send({"done": True})
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    arguments = vars(parser.parse_args())

    def load_again() -> Config:
        return load(arguments, os.environ)

    try:
        config = load_again()
        logs.configure(config)
        return Master(config, load_again, MasterParts(run_worker=run_worker, run_scout=run_scout)).run()
    except QJSupervisorError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
