"""`check` against a real PostgreSQL and small HTTP servers that answer as Odoo and its proxies do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qjsupervisor import cli
from qjsupervisor.testing.postgres import ThrowawayPostgres

from ..conftest import DatabaseFactory
from ..helpers import odoo_conf
from .checking import Check, FakeOdoo, entry


def test_all_is_well(check: Check, database: DatabaseFactory, fake_odoo: FakeOdoo) -> None:
    one = database()
    status, found = check(db_name=one.name)
    assert status == 0, found
    assert found["ok"] is True
    assert entry(found, one.name)["outcome"] == "would run"
    assert [target["state"] for target in found["targets"]] == ["ok"]
    ((path, headers),) = fake_odoo.asked
    assert path.startswith("/queue_job/runjob?db=")
    assert "Authorization" not in headers


def test_each_database_is_asked_for_by_name(check: Check, database: DatabaseFactory, fake_odoo: FakeOdoo) -> None:
    """In the query and in the header, with a job that is none; where dbfilter is in the way, what to set."""
    one, two = database(), database()
    status, found = check(db_name=f"{one.name},{two.name}")
    assert status == 0
    asked = {headers["X-Odoo-Database"]: path for path, headers in fake_odoo.asked}
    job = "00000000-0000-0000-0000-000000000000"
    assert asked == {each.name: f"/queue_job/runjob?db={each.name}&job_uuid={job}" for each in (one, two)}
    (target,) = found["targets"]
    assert sorted(target["databases"]) == sorted([one.name, two.name])
    fake_odoo.status = 500
    status, found = check(db_name=one.name, sections={"options": {"dbfilter": "^%d$"}})
    (target,) = found["targets"]
    assert (status, target["state"]) == (1, "problem")
    assert "dbfilter = ^%d$" in target["text"]
    assert "https://{database}.example.com" in target["text"]


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (400, "ok", "answers"),
        (200, "ok", "answers"),
        (500, "problem", "dbfilter"),
        (404, "problem", "server_wide_modules"),
        (303, "problem", "redirects"),
        (401, "problem", "http_auth_user"),
        (502, "problem", "proxy"),
    ],
)
def test_targets(
    check: Check, database: DatabaseFactory, fake_odoo: FakeOdoo, answer: int, state: str, said: str
) -> None:
    fake_odoo.status = answer
    status, found = check(db_name=database().name)
    (target,) = found["targets"]
    assert target["state"] == state
    assert said in target["text"]
    assert status == (1 if state == "problem" else 0)
    assert len(fake_odoo.asked) == 1, "a redirect was followed"


def test_credentials_are_sent_and_not_shown(check: Check, database: DatabaseFactory, fake_odoo: FakeOdoo) -> None:
    secret = "geheim-ü"
    auth = {"queue_job": {"http_auth_user": "u", "http_auth_password": secret}}
    _, found = check(db_name=database().name, sections=auth)
    ((_, headers),) = fake_odoo.asked
    assert headers["Authorization"] == "Basic dTpnZWhlaW0tw7w="
    assert secret not in json.dumps(found, ensure_ascii=False)


def test_refused_connection(check: Check, database: DatabaseFactory, fake_odoo: FakeOdoo) -> None:
    port = fake_odoo.port
    fake_odoo.close()
    status, found = check(port, db_name=database().name)
    assert status == 1
    assert "refuses" in found["targets"][0]["text"]


def test_postgresql_is_away(check: Check) -> None:
    status, found = check(sections={"options": {"db_port": 1}})
    assert status == 1
    assert any("cannot be listed" in each["text"] for each in found["findings"])


def test_nothing_to_serve(check: Check, database: DatabaseFactory) -> None:
    database()
    status, found = check(sections={"qjsupervisor": {"databases_include": "no_such_*"}})
    assert status == 1
    assert any("no database would be served" in each["text"] for each in found["findings"])


def test_table_for_people(
    database: DatabaseFactory,
    postgres: ThrowawayPostgres,
    fake_odoo: FakeOdoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = database("evil\x1b[2J[bold]")
    path = tmp_path / "odoo.conf"
    path.write_text(
        odoo_conf(postgres, fake_odoo.port, sections={"qjsupervisor": {"control_socket": str(tmp_path / "s")}})
    )
    assert cli.main(["check", "-c", str(path), "--databases-include", "evil*"]) == 0
    out = capsys.readouterr().out
    assert one.name.startswith("evil")
    assert "evil\\x1b[2J[bold]" in out
    assert "\x1b" not in out
    assert "all that should run would run" in out


@pytest.mark.parametrize(("version", "warned"), [("18.0", []), ("19.0", ["日本"]), (None, ["日本"])])
def test_a_name_that_no_header_can_carry_is_warned_of(
    database: DatabaseFactory, check: Check, version: str | None, warned: list[str]
) -> None:
    """Odoo 19 takes the database from a header; a name with accents or blanks inside can stand there."""
    for name in ("日本", "größe x"):
        database(name)
    own = {"qjsupervisor": {"odoo_version": version}} if version else {}
    _, found = check(db_name="日本,größe x", sections=own)
    said = [each["name"] for each in found["databases"] if "X-Odoo-Database" in " ".join(each["warnings"])]
    assert said == warned
