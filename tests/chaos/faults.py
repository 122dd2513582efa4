"""All faults, by name, each with its weight."""

from __future__ import annotations

from qjsupervisor.testing.odoo_http import OdooMode

from . import of_databases, of_odoo, of_postgres, of_processes
from .fault import Fault

FAULTS: dict[str, tuple[int, Fault]] = {
    "worker killed": (10, of_processes.kill_child),
    "worker stopped": (4, of_processes.stop_child),
    "some processes killed": (3, of_processes.kill_some),
    "master killed": (3, of_processes.kill_master),
    "master stopped": (2, of_processes.stop_master),
    "capacities changed": (6, of_processes.change_capacities),
    "paused": (3, of_processes.pause),
    "PostgreSQL killed": (2, of_postgres.kill_postgres),
    "PostgreSQL restarted": (2, of_postgres.restart_postgres),
    "PostgreSQL crashed": (2, of_postgres.crash_postgres),
    "PostgreSQL failed over": (2, of_postgres.fail_over),
    "ledger's last seconds lost": (2, of_postgres.lose_ledger),
    "PostgreSQL hangs": (4, of_postgres.hang_postgres),
    "session ended": (8, of_postgres.end_session),
    "all sessions ended twice": (3, of_postgres.end_sessions),
    "all sessions ended each second": (1, of_postgres.end_sessions_each_second),
    "Odoo's sessions ended": (2, of_postgres.end_sessions_of_odoo),
    "killed behind stopped sessions": (4, of_postgres.kill_behind_stopped_sessions),
    "unreachable at start": (3, of_postgres.unreachable_at_start),
    "packets swallowed": (3, of_postgres.swallow_packets),
    "connections forgotten": (2, of_postgres.forget_connections),
    "Odoo restarted": (4, of_odoo.restart_odoo),
    "Odoo worker killed": (6, of_odoo.kill_odoo_worker),
    "Odoo: 404": (3, of_odoo.ill(OdooMode.NOT_FOUND)),
    "Odoo: 303": (3, of_odoo.ill(OdooMode.REDIRECT)),
    "Odoo: 500": (3, of_odoo.ill(OdooMode.ERROR)),
    "Odoo: 200, not run": (3, of_odoo.ill(OdooMode.NOT_RUN)),
    "Odoo: 502": (2, of_odoo.ill(OdooMode.BAD_GATEWAY)),
    "Odoo: 504, runs on": (3, of_odoo.ill(OdooMode.GATEWAY_TIMEOUT, lets_go=True)),
    "Odoo: commits, never answers": (3, of_odoo.ill(OdooMode.UNANSWERED)),
    "Odoo: refuses": (2, of_odoo.ill(OdooMode.REFUSE)),
    "Odoo: slow": (4, of_odoo.ill(OdooMode.SLOW)),
    "Odoo: all workers die": (1, of_odoo.ill(OdooMode.DIE, interrupts=True)),
    "hostile payloads": (6, of_databases.hostile_payloads),
    "odd rows": (4, of_databases.odd_rows),
    "notifications missed": (5, of_databases.missed_notification),
    "database dropped": (3, of_databases.drop_database),
    "dropped under open requests": (3, of_databases.drop_busy_database),
}
