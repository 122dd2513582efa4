"""What an operator can have of a running supervisor: reloads and status."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from qjsupervisor.config.load import load
from qjsupervisor.config.settings import Config
from qjsupervisor.errors import ConfigError
from tests.unit.supervised import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def changed(**options: str) -> Config:
    return load(
        {name: text for name, text in options.items() if name != "channels"},
        {"ODOO_QUEUE_JOB_CHANNELS": options.get("channels", "root:4"), "ODOO_RC": "/dev/null"},
    )


def test_channels_are_changed_in_place_when_the_lock_is_free(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.next_config = changed(channels="root:9,root.sub:1")
    rig.table.busy = 2
    assert rig.reload()["channels_changed"]
    assert {"do": "channels"} not in rig.child("a").pipe.told
    for _ in range(2):
        rig.step(0.05)
    assert rig.table.calls[-1] == ("configure", "root", "root.sub")
    assert rig.child("a").pipe.told[-1] == {"do": "channels"}


def test_channels_that_the_table_has_no_room_for_change_nothing_each_time(rig: Rig) -> None:
    rig.scan(a="ready")
    rig.table.room = 1
    rig.next_config = changed(channels="root:9,root.sub:1", targets="a:http://b:1")
    before = rig.operations.config
    for _ in range(2):
        assert "no room" in rig.reload()["error"]
        assert rig.operations.config is before
        assert rig.child("a").pipe.told == []
        assert [call for call in rig.table.calls if call[0] == "configure"] == []


def test_a_wrong_configuration_changes_nothing(rig: Rig) -> None:
    rig.next_config = ConfigError("channels", "odoo.conf: [queue_job] channels: wrong")
    before = rig.operations.config
    with capture_logs() as lines:
        rig.operations.reload_logged(rig.now_s)
        rig.end_read()
    reason = "odoo.conf: [queue_job] channels: wrong"
    assert [(each["option"], each["reason"]) for each in lines if each["event"] == "configuration_rejected"] == [
        ("channels", f"{reason}; the old one stays")
    ]
    assert rig.reload() == {"ok": False, "error": reason, "option": "channels"}
    assert rig.operations.config is before
    assert rig.operations.reloads["refused"] == 2


def test_only_workers_whose_settings_changed_are_restarted(rig: Rig) -> None:
    rig.scan(a="ready", prod="ready")
    rig.next_config = changed(targets="prod*:http://b:1")
    assert rig.reload()["restarted"] == ["prod"]
    assert {"do": "stop", "restart": True} in rig.child("prod").pipe.told
    assert {"do": "stop"} not in rig.child("a").pipe.told
    assert {"do": "resync"} in rig.child("a").pipe.told
    first = rig.child("prod")
    rig.reap("prod", 0)
    rig.step()
    assert rig.child("prod") is not first
    assert rig.fleet.workers["prod"].settings.targets[0].url == "http://b:1"


def test_status_of_everything(rig: Rig) -> None:
    rig.scan(a="ready", ill="blocked")
    rig.hear("a", {"is": "read"}, {"is": "standby", "reason": "somebody else leads"})
    status = rig.order("status")["status"]
    states = {each["name"]: (each["state"], each["last_error"]) for each in status["databases"]}
    assert states == {"a": ("standby", "somebody else leads"), "ill": ("failed", "is blocked; looked at again in 60 s")}
