"""`status` for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qjsupervisor.commands import client
from qjsupervisor.commands import status as status_command
from qjsupervisor.commands.status_view import Choice
from tests.monitor_status import status

CONFIG: Any = object()


@pytest.mark.parametrize("form", [{"as_json": True}, {"only_names": True}])
def test_programs_get_the_same_choice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: dict[str, bool]
) -> None:
    view = status(200)
    monkeypatch.setattr(client, "status", lambda _config: view)
    assert status_command.run(CONFIG, Choice(patterns=("customer-01?", "nobody"), only_problems=True), **form) == 1
    out, err = capsys.readouterr()
    found = [each["name"] for each in json.loads(out)["databases"]] if "as_json" in form else out.split()
    assert found == ["customer-012", "customer-013", "customer-015"]
    assert err == "no database matches 'nobody'; there are 200\n"
