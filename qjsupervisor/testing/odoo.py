"""A stand-in for Odoo, in its own process: `python -m qjsupervisor.testing.odoo --port 8069`.

It runs jobs of real databases and writes their states as Odoo with queue_job does (odoo_jobs), answers as Odoo does
(odoo_http), and can be made to misbehave through its control port. It finds PostgreSQL through libpq's PGHOST,
PGPORT, PGUSER and PGPASSWORD, or --pg-dsn.
When it listens it writes one line of JSON to standard output: {"port": ..., "control_port": ...}. SIGTERM ends it
like a kill: running jobs stay `started`, unlocked.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import ssl
import sys
from collections.abc import Sequence

from .odoo_control import Control
from .odoo_http import Application
from .odoo_jobs import JobRunner
from .odoo_sessions import Sessions
from .odoo_stats import OdooStatistics

_BACKLOG = 4096


class OdooServer:
    """The listening sockets; the modes open and close the one for jobs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._host: str = options.host
        self._port: int = options.port
        self._tls = _tls_context(options.tls_cert, options.tls_key) if options.tls_cert else None
        statistics = OdooStatistics()
        sessions = Sessions(options.pg_dsn, idle_limit=max(32, 2 * options.workers))
        jobs = JobRunner(sessions, statistics)
        authorization = _basic(options.auth) if options.auth else None
        self._application = Application(
            jobs, statistics, options.workers, authorization=authorization, series=options.series
        )
        self._control = Control(self._application, jobs, sessions, statistics, self._modes_changed)
        self._server: asyncio.Server | None = None

    async def start(self, control_port: int) -> None:
        await self._open()
        loop = asyncio.get_running_loop()
        control = await loop.create_server(self._control.exchange, self._host, control_port)
        ports = {"port": self._port, "control_port": control.sockets[0].getsockname()[1]}
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._application.exchange, self._host, self._port, backlog=_BACKLOG, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def _modes_changed(self) -> None:
        """Open or close the socket for jobs as the modes say."""
        if self._application.refuses() and self._server is not None:
            self._server.close()
            self._server = None
        elif not self._application.refuses() and self._server is None:
            await self._open()


def _tls_context(certificate: str, key: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="A stand-in for Odoo with queue_job.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="for jobs; 0: a free one")
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--pg-dsn", default="", help="libpq connection string; no password in it, please")
    parser.add_argument("--workers", type=int, default=8, help="jobs at once; further requests wait")
    parser.add_argument("--auth", help="USER:PASSWORD that every request must have (HTTP basic)")
    parser.add_argument("--series", type=int, help="database by: 18 the query, 19 the header")
    parser.add_argument("--tls-cert", help="certificate file: serve https")
    parser.add_argument("--tls-key")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, which end the process at once without waiting for running jobs."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, os._exit, 0)
    await OdooServer(options).start(options.control_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(parse(sys.argv[1:])))
