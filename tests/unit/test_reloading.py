"""What a new configuration changes in a running supervisor, and what needs a restart."""

from __future__ import annotations

from dataclasses import replace

from qjsupervisor.config.load import load
from qjsupervisor.master.reloading import compare
from qjsupervisor.states import Mode
from tests.unit.supervised import CONFIG


def test_what_needs_a_restart_is_kept() -> None:
    new = replace(CONFIG, max_databases=3, window=10, control_socket="/elsewhere", log_level="debug")
    change = compare(CONFIG, new)
    assert set(change.needs_restart) == {"max_databases", "control_socket"}
    assert change.config == replace(CONFIG, window=10, log_level="debug")
    assert change.logging
    assert not change.channels


def test_another_mode_takes_its_channels_along() -> None:
    new = load({}, {"ODOO_QUEUE_JOB_MAX_CAPACITY": "7", "ODOO_RC": "/dev/null"})
    assert new.mode is Mode.PER_DATABASE
    change = compare(CONFIG, new)
    assert set(change.needs_restart) == {"mode", "channels", "max_capacity"}
    assert change.config.channels == CONFIG.channels
