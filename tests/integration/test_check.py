"""`check` against a real PostgreSQL and small HTTP servers that answer as Odoo and its proxies do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor import cli
from qjsupervisor.commands import check_databases
from qjsupervisor.postgres.queries import LEADER_LOCK
from qjsupervisor.testing import schema as demo_schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.schema import Schema

from ..conftest import DatabaseFactory
from ..helpers import odoo_conf

Check = Callable[..., tuple[int, dict[str, Any]]]


class FakeOdoo:
    """Answers every request with one status; remembers what was asked."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                self.send_response(outer.status)
                if 300 <= outer.status < 400:
                    self.send_header("Location", "/web/database/selector")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def odoo() -> Iterator[FakeOdoo]:
    server = FakeOdoo(200)
    yield server
    server.close()


@pytest.fixture
def check(postgres: ThrowawayPostgres, odoo: FakeOdoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """check(db_name=..., sections=...) -> (exit status, its JSON)."""

    def run(
        port: int | None = None, sections: Mapping[str, Any] | None = None, **conf: Any
    ) -> tuple[int, dict[str, Any]]:
        own = {"qjsupervisor": {"control_socket": str(tmp_path / "s"), "connect_timeout": 2}}
        path = tmp_path / "odoo.conf"
        path.write_text(odoo_conf(postgres, port or odoo.port, **conf, sections={**own, **(sections or {})}))
        status = cli.main(["check", "--json", "-c", str(path)])
        return status, json.loads(capsys.readouterr().out)

    return run


def entry(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (each for each in found["databases"] if each["name"] == name)
    assert isinstance(one, dict)
    return one


def test_all_is_well(check: Check, database: DatabaseFactory, odoo: FakeOdoo) -> None:
    one = database()
    status, found = check(db_name=one.name)
    assert status == 0, found
    assert found["ok"] is True
    assert entry(found, one.name)["outcome"] == "would run"
    assert [target["state"] for target in found["targets"]] == ["ok"]
    ((path, headers),) = odoo.asked
    assert path.startswith("/queue_job/runjob?db=")
    assert "Authorization" not in headers


def test_reasons_of_databases(check: Check, database: DatabaseFactory) -> None:
    good, upgrade = database(), database()
    demo_schema.set_module_state(upgrade.connection, "to upgrade", "sale")
    without, no_trigger = database(schema=None), database(schema=Schema(trigger=False))
    names = f"{good.name},{upgrade.name},{without.name},{no_trigger.name},no_such_database"
    status, found = check(db_name=names)
    assert status == 1
    assert entry(found, good.name)["outcome"] == "would run"
    assert "module sale is 'to upgrade'" in entry(found, upgrade.name)["reason"]
    assert entry(found, without.name)["problem"] is False
    assert "trigger" in entry(found, no_trigger.name)["reason"]
    missing = entry(found, "no_such_database")
    assert "does not exist" in missing["reason"]
    assert missing["problem"] is True


def test_copies_and_modules_that_matter(check: Check, database: DatabaseFactory) -> None:
    """Two databases of one uuid, one with server_environment: warned of; where values come from is shown."""
    one, two = database(), database()
    for each in (one, two):
        each.execute("CREATE TABLE IF NOT EXISTS ir_config_parameter (key varchar, value text)")
        each.execute("INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', 'u')")
    two.execute("INSERT INTO ir_module_module (name, state) VALUES ('server_environment', 'installed')")
    status, found = check(db_name=f"{one.name},{two.name}")
    texts = [each["text"] for each in found["findings"]]
    assert any("have one database.uuid" in text and one.name in text and two.name in text for text in texts)
    assert not any("server_environment" in text for text in entry(found, one.name)["warnings"])
    assert any("server_environment" in text for text in entry(found, two.name)["warnings"])
    assert status == 0
    origins = {origin["name"]: origin for origin in found["configuration"]["origins"]}
    assert origins["jobrunner_db_user"]["place"].endswith("[options] db_user")
    assert origins["jobrunner_db_password"]["text"] is None
    assert origins["window"]["place"] == "default"


def test_each_database_is_asked_for_by_name(check: Check, database: DatabaseFactory, odoo: FakeOdoo) -> None:
    """In the query and in the header, with a job that is none; where dbfilter is in the way, what to set."""
    one, two = database(), database()
    status, found = check(db_name=f"{one.name},{two.name}")
    assert status == 0
    asked = {headers["X-Odoo-Database"]: path for path, headers in odoo.asked}
    job = "00000000-0000-0000-0000-000000000000"
    assert asked == {each.name: f"/queue_job/runjob?db={each.name}&job_uuid={job}" for each in (one, two)}
    (target,) = found["targets"]
    assert sorted(target["databases"]) == sorted([one.name, two.name])
    odoo.status = 500
    status, found = check(db_name=one.name, sections={"options": {"dbfilter": "^%d$"}})
    (target,) = found["targets"]
    assert (status, target["state"]) == (1, "problem")
    assert "dbfilter = ^%d$" in target["text"]
    assert "https://{database}.example.com" in target["text"]


def test_older_queue_job_is_a_warning(check: Check, database: DatabaseFactory) -> None:
    one = database(schema=Schema(lock_table=False, channel_settings=False, dependencies=False))
    status, found = check(db_name=one.name)
    assert status == 0
    assert "queue_job_lock" in entry(found, one.name)["warnings"][0]


@pytest.mark.parametrize(
    ("application", "outcome", "status"),
    [("jobrunner", "standby", 1), ("qjsupervisor", "would run", 0)],
)
def test_leader_lock(
    check: Check, database: DatabaseFactory, postgres: ThrowawayPostgres, application: str, outcome: str, status: int
) -> None:
    one = database()
    with closing(postgres.connect(one.name)) as other, other.cursor() as cursor:
        cursor.execute("SET application_name = %s", (application,))
        cursor.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK,))
        exit_status, found = check(db_name=one.name)
    assert exit_status == status
    assert entry(found, one.name)["outcome"] == outcome
    assert application in entry(found, one.name)["reason"]


def test_pooler_in_transaction_mode(check: Check, database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    one = database()
    monkeypatch.setattr(check_databases, "changes_backend", lambda *_: True)
    status, found = check(db_name=one.name)
    assert status == 1
    assert entry(found, one.name)["outcome"] == "blocked"
    assert "transaction mode" in entry(found, one.name)["reason"]


def test_per_database_trees(check: Check, database: DatabaseFactory) -> None:
    good, bad = database(), database()
    demo_schema.set_channel(good.connection, "root.slow", capacity=2)
    demo_schema.set_channel(bad.connection, "root.slow", capacity=2, sequential=True)
    per_database = {"queue_job": {"max_capacity": 5, "db_max_capacity": "*:3"}}
    status, found = check(db_name=f"{good.name},{bad.name}", channels=None, sections=per_database)
    assert status == 1
    channels = {spec["name"]: spec["capacity"] for spec in entry(found, good.name)["channels"]}
    assert channels == {"root": 3, "root.slow": 2}
    assert "sequential" in entry(found, bad.name)["reason"]


def test_which_channels_hold_and_why(check: Check, database: DatabaseFactory) -> None:
    """Neither key is set: a database with channel settings has its own tree; with `channels` they are passed over."""
    new, old = database(), database(schema=Schema(channel_settings=False))
    demo_schema.set_channel(new.connection, "root.mail", capacity=2, paused=True)
    names = f"{new.name},{old.name}"
    _, found = check(db_name=names, channels=None)
    channels = {spec["name"]: (spec["capacity"], spec["paused"]) for spec in entry(found, new.name)["channels"]}
    assert channels == {"root": (1, False), "root.mail": (2, True)}
    assert entry(found, old.name)["channels"] == []
    assert found["configuration"]["mode"] == "default"
    (why,) = [each["text"] for each in found["findings"] if each["text"].startswith("mode ")]
    assert "one job runs at once over all" in why
    assert "1 of 2 have channels of their own" in why
    _, found = check(db_name=names, channels="root:4")
    (warning,) = entry(found, new.name)["warnings"]
    assert "root.mail (capacity 2, paused)" in warning
    assert "`channels` is set" in warning
    assert not any("channel settings" in each for each in entry(found, old.name)["warnings"])
    demo_schema.set_channel(new.connection, "root.mail", capacity=2, sequential=True)
    _, found = check(db_name=names, channels="root:4")
    assert entry(found, new.name)["outcome"] == "would run", "a tree that is passed over may be invalid"


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
def test_targets(check: Check, database: DatabaseFactory, odoo: FakeOdoo, answer: int, state: str, said: str) -> None:
    odoo.status = answer
    status, found = check(db_name=database().name)
    (target,) = found["targets"]
    assert target["state"] == state
    assert said in target["text"]
    assert status == (1 if state == "problem" else 0)
    assert len(odoo.asked) == 1, "a redirect was followed"


def test_credentials_are_sent_and_not_shown(check: Check, database: DatabaseFactory, odoo: FakeOdoo) -> None:
    secret = "geheim-ü"
    auth = {"queue_job": {"http_auth_user": "u", "http_auth_password": secret}}
    _, found = check(db_name=database().name, sections=auth)
    ((_, headers),) = odoo.asked
    assert headers["Authorization"] == "Basic dTpnZWhlaW0tw7w="
    assert secret not in json.dumps(found, ensure_ascii=False)


def test_refused_connection(check: Check, database: DatabaseFactory, odoo: FakeOdoo) -> None:
    port = odoo.port
    odoo.close()
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
    odoo: FakeOdoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = database("evil\x1b[2J[bold]")
    path = tmp_path / "odoo.conf"
    path.write_text(odoo_conf(postgres, odoo.port, sections={"qjsupervisor": {"control_socket": str(tmp_path / "s")}}))
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
