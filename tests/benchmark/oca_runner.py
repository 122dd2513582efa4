"""Runs OCA's own job runner without Odoo: `python -m tests.benchmark.oca_runner FILE`.

FILE is JSON: `addon` (the addon's folder out of the wheel), `databases`, `dsn` (what psycopg2 needs besides the name),
and `port` of Odoo. Channels are in ODOO_QUEUE_JOB_CHANNELS, as OCA has it. Only what its runner imports from `odoo` is
stood in for; its own files run as they are. It starts at once, which it does not do in Odoo: there it first sleeps for
five seconds.
"""

from __future__ import annotations

import importlib
import json
import logging
import signal
import sys
import types
from pathlib import Path
from typing import Any

from psycopg2 import extensions

_STATES = ("cancelled", "done", "enqueued", "failed", "pending", "started", "wait_dependencies")
_ADDON = "odoo.addons.queue_job"


class _Server:
    """In place of Odoo's servers, some methods of which OCA wraps when it is imported."""

    start = stop = process_spawn = worker_pop = None


def stand_in_for_odoo(settings: dict[str, Any]) -> None:
    """Make `import odoo...` of what the runner imports work."""
    options: dict[str, Any] = {"db_name": settings["databases"], "http_interface": "127.0.0.1"}
    options["http_port"] = settings["port"]
    for package in ("odoo", "odoo.service", "odoo.addons"):
        _module(package, __path__=[])
    _module("odoo.tools", config=options)
    _module("odoo.sql_db", connection_info_for=lambda name: (name, {**settings["dsn"], "dbname": name}))
    prefork, threaded = type("PreforkServer", (_Server,), {}), type("ThreadedServer", (_Server,), {})
    _module("odoo.service.server", PreforkServer=prefork, ThreadedServer=threaded, Worker=object)
    _module(_ADDON, __path__=[settings["addon"]])
    _module(f"{_ADDON}.job", **{state.upper(): state for state in _STATES})
    _module(f"{_ADDON}.exception", ChannelNotFound=type("ChannelNotFound", (Exception,), {}))


def _module(name: str, **attributes: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _float(value: str | bytes | None, _cursor: object) -> float | None:
    return None if value is None else float(value)


def main() -> None:
    stand_in_for_odoo(json.loads(Path(sys.argv[1]).read_text()))
    # Odoo reads PostgreSQL's numeric as float, too.
    extensions.register_type(extensions.new_type(extensions.DECIMAL.values, "NUMERIC", _float))
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    module = importlib.import_module(f"{_ADDON}.jobrunner.runner")
    runner = module.QueueJobRunner.from_environ_or_config()
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    runner.run()


if __name__ == "__main__":
    main()
