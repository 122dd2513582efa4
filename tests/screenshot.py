"""`python -m tests.screenshot FILE.png`: the monitor's page of a real supervisor at work, as README shows it.

A throw-away PostgreSQL, a stand-in Odoo and three databases with jobs that run, wait and failed. Needs chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import free_port
from qjsupervisor.testing.schema import Schema, install
from qjsupervisor.testing.stand_in import StandIn

from .helpers import Database, Supervisor, odoo_conf, wait_until

_NAMES = ("bakery", "brewery", "carpenter")
_SIZE = {"width": 1100, "height": 760}


def main(target: str) -> int:
    with tempfile.TemporaryDirectory() as folder, ThrowawayPostgres() as postgres, StandIn(postgres) as odoo:
        databases = []
        for name in _NAMES:
            postgres.create_database(name)
            databases.append(Database(postgres, name))
            install(databases[-1].connection, Schema())
        port = free_port()
        sections = {"qjsupervisor": {"monitor": f"127.0.0.1:{port}"}}
        conf = odoo_conf(
            postgres, odoo.port, channels="root:4,root.invoices:2,root.mail:1:throttle=2", sections=sections
        )
        running = Supervisor(conf, Path(folder))
        running.start()
        try:
            running.wait_ready(*_NAMES)
            for number, database in enumerate(databases):
                database.insert_jobs(3, kwargs={"fail": True}) if number == 1 else None
                database.insert_jobs(40, channel="root.invoices", kwargs={"sleep": 1.5})
                database.insert_jobs(15, channel="root.mail", kwargs={"sleep": 0.5})
                database.insert_jobs(25, kwargs={"sleep": 1})
            wait_until(lambda: odoo.stats()["running"].get("root") == 4, "all permits are in use")
            _shoot(f"http://127.0.0.1:{port}/", target)
        finally:
            running.stop()
            for database in databases:
                database.connection.close()
    return 0


def _shoot(url: str, target: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _SIZE["width"], "height": _SIZE["height"]})
        page.goto(url)
        page.wait_for_timeout(8000)  # a minute's sparklines need a few updates
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
