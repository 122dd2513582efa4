"""A status as a master of many databases gives it, with some of everything that can be wrong; for tests of the page."""

from __future__ import annotations

from typing import Any

_STATES = ("ready",) * 12 + ("backing off", "blocked", "standby", "failed")


def status(databases: int, channels: int = 6, *, troubled: bool = True) -> dict[str, Any]:
    """So many databases; `troubled` False: all is well."""
    return {
        "version": "1.1.0", "pid": 1, "uptime_s": 93_784.0, "mode": "server-wide", "fairness": "round-robin",
        "databases": [_database(number, troubled) for number in range(databases)],
        "channels": [_channel(number, databases, troubled) for number in range(channels)],
        "targets": [_target("http://odoo-1:8069", "up"), _target("http://odoo-2:8069", "down" if troubled else "up")],
        "pauses": [
            {"database": "customer-001", "channel": "root.mail", "remaining_s": 754.0, "by": "admin from 10.0.0.7"},
            {"database": None, "channel": "root.imports", "remaining_s": None, "by": "odoo (command line)"},
        ],
        "problems": [], "gate_open": True, "stopping": False, "log_lines_lost": 0, "config_file": "/etc/odoo.conf",
        "slots": {"used": databases, "limit": 512}, "scan_age_s": 12.5,
        "reloads": {"success": 3, "refused": 1, "last_successful": False, "last_success_at": 1_780_000_000.0},
    }  # fmt: skip


def _database(number: int, troubled: bool) -> dict[str, Any]:
    state = _STATES[number % len(_STATES)] if troubled else "ready"
    ready = state == "ready"
    return {
        "name": f"customer-{number:03d}", "state": state, "pid": 1000 + number if ready else None,
        "restarts": number % 3, "pending": number * 37 % 900, "running": number % 4 if ready else 0,
        "failed": 7 if troubled and number % 9 == 4 else 0, "dispatched": number * 1000, "finished": number * 999,
        "not_due": number % 5, "oldest_pending_s": number * 13.0 if number % 2 else 0, "waiting_dependencies": 0,
        "outcomes": {"done": number * 990, "failed": number}, "heartbeat_age_s": 0.4 if ready else None,
        "last_error": None if ready else "password authentication failed for user “odoo” (see db_password)",
        "wait_s": 0.0, "weight": 1, "message": None, "paused": False, "target": _target("http://odoo-1:8069", "up"),
        "targets": [_target("http://odoo-1:8069", "up")],
    }  # fmt: skip


RATE = {"starts": 100, "period_s": 60.0, "used": 100, "next_in_s": 4.2, "unread": False}


def _channel(number: int, databases: int, troubled: bool) -> dict[str, Any]:
    names = ("root", "root.mail", "root.imports", "root.stock", "root.stock.sync", "root.reports")
    name = names[number] if number < len(names) else f"root.extra{number}"
    return {
        "name": name, "capacity": (24, 8, 4, 1, None, 6)[number % 6], "running": (17, 8, 0, 0, 2, 3)[number % 6],
        "pending": 1234 * (number + 1), "failed": 7 if number == 3 else 0, "sequential": number == 3,
        "stopped": troubled and number == 3, "stopped_by": ["customer-004"] * (troubled and number == 3),
        "throttle_s": 2 if number == 5 else 0, "paused": number == 2, "retired": False, "throttled_for_s": None,
        "rate": RATE if number == 1 else None,
        "holders": [
            {"database": f"customer-{each:03d}", "running": each % 3, "pending": each * 5}
            for each in range(min(4, databases))
        ],
    }  # fmt: skip


def _target(url: str, state: str) -> dict[str, Any]:
    down = state == "down"
    reason = "Connection refused" if down else None
    return {"url": url, "state": state, "failures": 4 * down, "retry_in_s": 7.5 if down else None, "reason": reason}
