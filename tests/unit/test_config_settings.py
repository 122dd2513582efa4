"""What each worker and database gets of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from qjsupervisor.config import odoo_file as odooconf
from qjsupervisor.config.load import load
from qjsupervisor.config.settings import connect_limit_s
from qjsupervisor.errors import ConfigError

from .configured import Loader, urls


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odooconf, "DEFAULT_PLACES", ("~/.odoorc", "~/.openerp_serverrc"))


def test_connect_timeout_holds_to_the_fraction_unless_a_uri_says_another(tmp_path: Path) -> None:
    """libpq knows whole seconds only, two at least, and keeps no limit for a connection that does not block."""
    conf = tmp_path / "odoo.conf"
    conf.write_text("[options]\ndb_name = postgresql://h/slow?connect_timeout=9,postgresql://h/plain\n")
    config = load({"config": str(conf), "connect_timeout": "0.5"}, {})
    limits = {name: connect_limit_s(config.dsn(name), config.connect_timeout_s) for name in ("slow", "plain", "any")}
    assert limits == {"slow": 9.0, "plain": 0.5, "any": 0.5}


@pytest.mark.parametrize(
    ("rules", "database", "capacity"),
    [
        ("", "a", 10),
        ("3", "a", 3),
        ("prod_*:20,staging:2,*:5", "prod_x", 20),
        ("prod_*:20,staging:2,*:5", "staging", 2),
        ("prod_*:20,staging:2", "dev", 10),
        ("x:0", "x", 0),
    ],
)
def test_capacity_of_one_database(conf: Loader, rules: str, database: str, capacity: int) -> None:
    config = conf(f"[queue_job]\nmax_capacity = 10\ndb_max_capacity = {rules}\n")
    assert config.db_capacity(database) == capacity
    assert config.worker_settings(database).root_capacity == capacity


def test_server_wide_mode_has_none(conf: Loader) -> None:
    assert conf("[queue_job]\nchannels = root:4\n").db_capacity("a") is None


def test_a_target_for_each_database_by_its_name(conf: Loader) -> None:
    config = conf("[qjsupervisor]\ntargets = prod_*:https://{database}.example.com,*:http://u:p@odoo-{database}:81\n")
    assert urls(config, "prod_a") == ["https://prod_a.example.com:443"]
    assert urls(config, "b c") == ["http://odoo-b%20c:81"]
    assert config.worker_settings("prod_a").targets[0].url == "https://prod_a.example.com:443"
    with pytest.raises(ConfigError, match="is not a host"):
        conf("[qjsupervisor]\ntargets = *:https://{db}.example.com\n")


def test_names_and_uris(conf: Loader) -> None:
    config = conf(
        "[options]\ndb_host = pg\ndb_user = odoo\ndb_sslmode = require\n"
        "db_name = a, ü b, postgresql://u%40x:p%2Cw@other:5433/c%20d?gssencmode=prefer, a,\n"
    )
    assert [entry.name for entry in config.db_names] == ["a", "ü b", "c d"]
    own = config.dsn("a")
    assert (own["host"], own["user"], own["sslmode"], own["dbname"]) == ("pg", "odoo", "require", "a")
    other = config.dsn("c d")
    assert other.items() >= {
        "host": "other", "port": "5433", "user": "u@x", "password": "p,w", "dbname": "c d", "gssencmode": "prefer"
    }.items()  # fmt: skip
    assert "sslmode" not in other
    assert "p,w" not in repr(config)


def test_jobrunner_s_own_connection_goes_before_a_uri(conf: Loader) -> None:
    config = conf(
        "[options]\ndb_user = odoo\ndb_name = postgresql://u@behind-pgbouncer:6432/c\n"
        "[queue_job]\njobrunner_db_host = pg\njobrunner_db_port = 5432\n"
    )
    dsn = config.dsn("c")
    assert (dsn["host"], dsn["port"], dsn["user"]) == ("pg", 5432, "u")


def test_a_dead_server_is_noticed_in_time(conf: Loader) -> None:
    dsn = conf().dsn("db")
    assert dsn["application_name"] == "qjsupervisor"
    assert dsn["gssencmode"] == "disable"
    assert int(dsn["keepalives_idle"]) + int(dsn["keepalives_interval"]) * int(dsn["keepalives_count"]) <= 30
    assert int(dsn["tcp_user_timeout"]) <= 30_000
    assert dsn["connect_timeout"] == 5


@pytest.mark.parametrize(("timeout", "of_libpq"), [("0.5", 2), ("2.1", 3), ("30", 30)])
def test_connect_timeout_is_whole_seconds_to_libpq(conf: Loader, timeout: str, of_libpq: int) -> None:
    assert conf(connect_timeout=timeout).dsn("db")["connect_timeout"] == of_libpq


def test_weights(conf: Loader) -> None:
    config = conf("[qjsupervisor]\nfairness_weights = prod_*:3,*_slow:1,st*:2\n")
    assert [config.weight(name) for name in ("prod_slow", "st", "x")] == [3, 2, 1]


def test_several_hosts_share_the_jobs(conf: Loader) -> None:
    config = conf("[queue_job]\nscheme = https\nhost = a, b:8070, ::1\nport = 443\nhttp_auth_user = u\n")
    assert urls(config) == ["https://a:443", "https://b:8070", "https://[::1]:443"]
    assert [target.user for target in config.targets_for("db")] == ["u"] * 3


def test_target_of_a_database(conf: Loader) -> None:
    config = conf(
        "[options]\nhttp_port = 8070\n[qjsupervisor]\ntargets = prod_*:https://a, prod_*:https://b\n"
        "[queue_job]\nhttp_auth_user = u\nhttp_auth_password = p\n"
    )
    assert urls(config, "prod_x") == ["https://a:443", "https://b:443"]
    assert urls(config, "x") == ["http://localhost:8070"]
    assert config.targets[-1][0] == "*"
    assert [(target.user, target.password) for target in config.targets_for("prod_x")] == [("u", "p")] * 2


def test_worker_is_restarted_only_for_what_is_its_own(conf: Loader) -> None:
    text = "[queue_job]\nchannels = root:4\n[qjsupervisor]\ntargets = a:http://a\n"
    before = conf(text).worker_settings("a")
    assert before == conf(text.replace("root:4", "root:9,sub:1")).worker_settings("a")
    assert before == conf(text + "log_level = debug\nfairness = priority\n").worker_settings("a")
    assert before != conf(text.replace("http://a", "http://b")).worker_settings("a")
    assert before != conf(text + "[options]\ndb_password = other\n").worker_settings("a")
    assert conf(text).worker_settings("b") == conf(text.replace("http://a", "http://b")).worker_settings("b")
    assert hash(before) == hash(conf(text).worker_settings("a"))
    assert before.connect_kwargs["dbname"] == "a"


def test_no_password_in_any_repr(conf: Loader) -> None:
    config = conf(
        "[options]\ndb_password = geheim1\ndb_name = a,postgresql://u:geheim2@h/b\n"
        "[queue_job]\nhttp_auth_user = u\nhttp_auth_password = geheim3\njobrunner_db_password = geheim4\n"
        "[qjsupervisor]\ntargets = a:http://u:geheim5@h\n"
    )
    for thing in (config, config.worker_settings("a"), config.worker_settings("b"), config.connection):
        assert "geheim" not in repr(thing)
    assert config.dsn("a")["password"] == "geheim4"
    assert config.dsn("b")["password"] == "geheim4"
