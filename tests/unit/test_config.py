"""From file, environment and command line to one Config."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trustme

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config import odoo_file as odooconf
from qjsupervisor.config.load import Config, load
from qjsupervisor.config.options import OPTIONS, QUEUE_JOB_OPTIONS
from qjsupervisor.config.settings import connect_limit_s
from qjsupervisor.errors import ConfigError
from qjsupervisor.states import Fairness, Mode

Loader = Callable[..., Config]
#: Before the fixture hides the last one from the tests.
PLACES = odooconf.DEFAULT_PLACES


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odooconf, "DEFAULT_PLACES", ("~/.odoorc", "~/.openerp_serverrc"))


@pytest.fixture
def conf(tmp_path: Path) -> Loader:
    """conf("[options]\\n...", environ={...}, **argv) -> Config."""

    def read(text: str = "", environ: Mapping[str, str] | None = None, **argv: str) -> Config:
        file = tmp_path / "odoo.conf"
        file.write_text(text, encoding="utf-8")
        return load({"config": str(file), **argv}, {"HOME": str(tmp_path), **(environ or {})})

    return read


def capacities(config: Config) -> dict[str, int | None]:
    return {channel.name: channel.capacity for channel in config.channels}


def urls(config: Config, database: str = "db") -> list[str]:
    return [target.url for target in config.targets_for(database)]


# Which file


def test_connect_timeout_holds_to_the_fraction_unless_a_uri_says_another(tmp_path: Path) -> None:
    """libpq knows whole seconds only, two at least, and keeps no limit for a connection that does not block."""
    conf = tmp_path / "odoo.conf"
    conf.write_text("[options]\ndb_name = postgresql://h/slow?connect_timeout=9,postgresql://h/plain\n")
    config = load({"config": str(conf), "connect_timeout": "0.5"}, {})
    limits = {name: connect_limit_s(config.dsn(name), config.connect_timeout_s) for name in ("slow", "plain", "any")}
    assert limits == {"slow": 9.0, "plain": 0.5, "any": 0.5}


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    config = load({}, {"HOME": str(tmp_path)})
    assert config.config_file is None
    assert config.channels == (ChannelSpec(name="root", capacity=1),)
    assert config.mode is Mode.DEFAULT
    assert config.db_capacity("a") == 1
    assert urls(config) == ["http://localhost:8069"]
    assert config.db_names == ()
    assert (config.maintenance_db, config.template) == ("postgres", "template0")
    assert (config.fairness, config.weight("x")) == (Fairness.ROUND_ROBIN, 1)
    assert (config.rescan_interval_s, config.graceful_timeout_s, config.connect_timeout_s) == (60, 8, 5)
    assert (config.read_timeout_s, config.boot_timeout_s, config.hang_timeout_s) == (None, 60, 30)
    assert (config.log_file, config.log_level, config.log_format) == (None, "info", "auto")
    assert (config.pidfile, config.monitor, config.warnings) == (None, None, ())


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([".odoorc", ".openerp_serverrc", "rc", "named"], "named"),
        ([".odoorc", ".openerp_serverrc", "rc"], "rc"),
        ([".odoorc", ".openerp_serverrc"], ".odoorc"),
        ([".openerp_serverrc"], ".openerp_serverrc"),
    ],
)
def test_file_is_found_where_odoo_finds_it(tmp_path: Path, there: list[str], found: str) -> None:
    for name in there:
        (tmp_path / name).touch()
    argv = {"config": str(tmp_path / "named")} if "named" in there else {}
    rc = {"ODOO_RC": str(tmp_path / "rc")} if "rc" in there else {}
    assert load(argv, {"HOME": str(tmp_path), **rc}).config_file == str(tmp_path / found)


def test_debian_package_s_place_comes_last() -> None:
    assert PLACES == ("~/.odoorc", "~/.openerp_serverrc", "/etc/odoo/odoo.conf")


def test_relative_path_stays_right_when_the_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odoo.conf").touch()
    monkeypatch.chdir(tmp_path)
    assert load({"config": "odoo.conf"}, {}).config_file == str(tmp_path / "odoo.conf")


# How a file is read


def test_percent_and_other_characters_are_what_they_are(conf: Loader) -> None:
    config = conf("[options]\ndb_password = 100%s ü;#€ ; no comment # either\ndb_user: odoo\n")
    assert config.connection.password == "100%s ü;#€ ; no comment # either"
    assert config.connection.user == "odoo"


def test_comment_lines_blank_lines_and_keys_in_any_case(conf: Loader) -> None:
    config = conf("; c\n# c\n[options]\n\nDB_User = odoo\n[queue_job]\nchannels = root:4\n  ; c\n\n  sub:2\n")
    assert config.connection.user == "odoo"
    assert capacities(config) == {"root": 4, "root.sub": 2}


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "odoo.conf"
    file.write_bytes(b"\xef\xbb\xbf[options]\r\ndb_user = odoo\r\n")
    assert load({"config": str(file)}, {}).connection.user == "odoo"


@pytest.mark.parametrize("text", ["False", "", "None", "false"])
def test_unset_leaves_it_to_libpq(conf: Loader, text: str) -> None:
    keys = ("db_host", "db_port", "db_user", "db_password", "db_sslmode", "db_name", "db_template")
    config = conf("[options]\n" + "".join(f"{key} = {text}\n" for key in keys))
    for key in ("host", "port", "user", "password", "sslmode"):
        assert getattr(config.connection, key) is None
        assert key not in config.dsn("db")
    assert config.db_names == ()
    assert config.template == "template0"


def test_default_section_reaches_the_others_and_is_no_slip(conf: Loader) -> None:
    config = conf("[DEFAULT]\ndb_host = pg\nanything = 1\n[options]\n[qjsupervisor]\n[queue_job]\n")
    assert config.connection.host == "pg"
    assert config.warnings == ()


# Who is stronger


def test_command_line_environment_file_default(conf: Loader) -> None:
    text, environ = "[qjsupervisor]\nlog_level = error\n", {"QJSUPERVISOR_LOG_LEVEL": "warning"}
    assert conf(text, environ, log_level="debug").log_level == "debug"
    assert conf(text, environ).log_level == "warning"
    assert conf(text).log_level == "error"
    assert conf().log_level == "info"


@pytest.mark.parametrize("nothing", ["", "False"])
def test_nothing_said_is_not_stronger(conf: Loader, nothing: str) -> None:
    text = "[qjsupervisor]\nlog_level = error\n[queue_job]\nchannels = root:3\n"
    environ = {"QJSUPERVISOR_LOG_LEVEL": nothing, "ODOO_QUEUE_JOB_CHANNELS": nothing}
    config = conf(text, environ, log_level=nothing)
    assert config.log_level == "error"
    assert capacities(config) == {"root": 3}


EVERYWHERE = """
[options]
http_interface = from_options
xmlrpc_interface = from_old_options
http_port = 1
xmlrpc_port = 2
db_host = from_options
[queue_job]
host = from_section
port = 3
jobrunner_db_host = from_section
"""


@pytest.mark.parametrize(
    ("environ", "without", "url", "db_host"),
    [
        (
            {
                "ODOO_QUEUE_JOB_HOST": "from_env",
                "ODOO_QUEUE_JOB_PORT": "4",
                "ODOO_QUEUE_JOB_JOBRUNNER_DB_HOST": "from_env",
                "ODOO_QUEUE_JOB_SCHEME": "https",
            },
            (),
            "https://from_env:4",
            "from_env",
        ),
        ({}, (), "http://from_section:3", "from_section"),
        ({}, ("host", "port", "jobrunner_db_host"), "http://from_options:1", "from_options"),
        (
            {},
            ("host", "port", "jobrunner_db_host", "http_interface", "http_port", "db_host"),
            "http://from_old_options:2",
            None,
        ),
    ],
)
def test_places_of_queue_job(
    conf: Loader, environ: dict[str, str], without: tuple[str, ...], url: str, db_host: str | None
) -> None:
    lines = [line for line in EVERYWHERE.splitlines() if line.partition(" =")[0] not in without]
    config = conf("\n".join(lines), environ)
    assert urls(config) == [url]
    assert config.connection.host == db_host


def test_every_option_can_be_set_in_every_place(conf: Loader, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca"))
    texts = {
        "databases_include": "a*", "databases_exclude": "b*", "maintenance_db": "m", "max_databases": "7",
        "odoo_version": "17.0",
        "rescan_interval": "7", "reconcile_interval": "7", "fairness": "priority", "fairness_weights": "7",
        "window": "77", "targets": "http://h:7", "ca_file": str(tmp_path / "ca"), "connect_timeout": "7",
        "read_timeout": "7", "graceful_timeout": "7", "boot_timeout": "7", "hang_timeout": "7",
        "control_socket": "/r/s", "state_dir": "/r/d", "pidfile": "/r/p", "log_file": "/r/l", "log_level": "error",
        "log_format": "json", "monitor": "h:7", "upgrade_timeout": "7", "serve_neutralized": "yes", "log_jobs": "no",
        "channel_options": "slow:max_runtime=2h", "max_runtime_action": "terminate", "ageing": "60s",
        "db_capacity": "*:max=1",
        "dead_after_restart": "7", "leader_timeout": "7", "cluster": "c",
        "cluster_database": "d",
        "new_databases": "hold", "schedule": "root: 1 daily 01:00-02:00",
            "timezone": "Europe/Berlin", "monitor_token": "t", "monitor_user": "u", "monitor_password": "p",
    }  # fmt: skip
    assert set(texts) == {option.name for option in OPTIONS}
    default = conf()
    for option in OPTIONS:
        text = texts[option.name]
        by_file = conf(f"[qjsupervisor]\n{option.name} = {text}\n")
        assert by_file != default, option.name
        assert by_file == conf(environ={str(option.variable): text})
        assert by_file == conf(**{option.name: text})
        assert option.flag == (None if option.secret else "--" + option.name.replace("_", "-"))


@pytest.mark.parametrize("option", QUEUE_JOB_OPTIONS, ids=lambda option: str(option.name))
def test_variables_of_queue_job(option: object) -> None:
    assert getattr(option, "variable") == "ODOO_QUEUE_JOB_" + getattr(option, "name").upper()  # noqa: B009


@pytest.mark.parametrize("service", ["QJSUPERVISOR", "QJSUPERVISOR_METRICS", "ODOO_QUEUE_JOB", "ODOO_HTTP"])
def test_kubernetes_may_put_its_variables_beside_ours(conf: Loader, service: str) -> None:
    """A service of any name, 'odoo-http' and 'odoo-queue-job' too, whose ..._PORT looks like an option."""
    url = "tcp://10.0.0.1:9100"
    made = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "9100", "SERVICE_PORT_HTTP": "9100", "PORT": url,
            "PORT_9100_TCP": url, "PORT_9100_TCP_PROTO": "tcp", "PORT_9100_TCP_PORT": "9100",
            "PORT_9100_TCP_ADDR": "10.0.0.1"}  # fmt: skip
    config = conf("[options]\nhttp_port = 8070\n", {f"{service}_{name}": text for name, text in made.items()})
    assert urls(config) == ["http://localhost:8070"]
    assert config.warnings == ()


# Odoo 19 and its environment


PG = {"PGHOST": "pg", "PGPORT": "5433", "PGUSER": "o19", "PGPASSWORD": "s3cret", "PGDATABASE": "one, two"}
OPTIONS_18 = "[options]\ndb_host = file\ndb_port = 5432\ndb_user = file\ndb_name = file\nhttp_port = 1\n"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", {"ODOO_VERSION": "19.0"}),
        ("", {"ODOO_VERSION": "20.0-20261001"}),
        ("", {"ODOO_HTTP_PORT": "8079"}),
        ("db_app_name = odoo-{pid}\n", {}),
        ("with_demo = False\n", {}),
        ("[qjsupervisor]\nodoo_version = 19.0\n", {"ODOO_VERSION": "16.0"}),
    ],
)
def test_odoo_19_reads_its_environment_before_the_file(conf: Loader, text: str, environ: dict[str, str]) -> None:
    config = conf(OPTIONS_18 + text, {**PG, **environ})
    assert [entry.name for entry in config.db_names] == ["one", "two"]
    connection = config.connection
    assert (connection.host, connection.port, connection.user, connection.password) == ("pg", 5433, "o19", "s3cret")
    assert urls(config) == [f"http://localhost:{environ.get('ODOO_HTTP_PORT', 1)}"]
    places = {origin.name: origin.place for origin in config.origins}
    assert places["db_name"] == "environment variable PGDATABASE"
    assert places["jobrunner_db_host"] == "environment variable PGHOST"
    assert "s3cret" not in repr(config)


def test_sections_of_queue_job_go_before_odoo_s_environment(conf: Loader) -> None:
    text = "[queue_job]\nhost = h\njobrunner_db_host = own\n"
    config = conf(text, {**PG, "ODOO_VERSION": "19.0", "ODOO_HTTP_INTERFACE": "x"})
    assert (config.connection.host, urls(config)) == ("own", ["http://h:8069"])


def test_an_empty_variable_of_odoo_19_unsets_what_the_file_says(conf: Loader) -> None:
    config = conf(OPTIONS_18, {"PGHOST": "", "PGDATABASE": "", "ODOO_VERSION": "19"})
    assert (config.connection.host, config.db_names, config.connection.user) == (None, (), "file")


@pytest.mark.parametrize("environ", [{"ODOO_VERSION": "18.0"}, {"QJSUPERVISOR_ODOO_VERSION": "saas-18.2"}, {}])
def test_an_older_odoo_leaves_the_environment_to_libpq(conf: Loader, environ: dict[str, str]) -> None:
    """The file goes first; PGDATABASE names nothing; where nobody knows which Odoo it is, that is said."""
    config = conf(OPTIONS_18, {**PG, **environ})
    assert ([entry.name for entry in config.db_names], config.connection.host) == (["file"], "file")
    assert config.warnings == ()
    config = conf("", {**PG, **environ})
    assert (config.db_names, config.connection.host, config.connection.password) == ((), None, None)
    places = {origin.name: origin.place for origin in config.origins}
    assert places["jobrunner_db_host"] == "environment variable PGHOST, by libpq"
    assert places["db_name"] == "default"
    assert [warning for warning in config.warnings if "PGDATABASE" in warning] == list(config.warnings)
    assert len(config.warnings) == (0 if environ else 1)


def test_where_values_come_from(conf: Loader) -> None:
    config = conf("[queue_job]\nchannels = root:3\nhttp_auth_user = u\nhttp_auth_password = s3cret\n", window="77")
    found = {origin.name: (origin.place, origin.text) for origin in config.origins}
    assert found["channels"] == (f"{config.config_file}: [queue_job] channels", "root:3")
    assert found["window"] == ("--window", "77")
    assert found["http_auth_password"] == (f"{config.config_file}: [queue_job] http_auth_password", None)
    assert found["port"] == ("default", None)


def test_openerp_server_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "old.conf"
    file.write_text("[options]\ndb_user = old\n")
    assert load({}, {"OPENERP_SERVER": str(file)}).connection.user == "old"
    environ = {"HOME": str(tmp_path), "OPENERP_SERVER": str(file)}
    for variable in ("ODOO_VERSION", "QJSUPERVISOR_ODOO_VERSION"):
        assert load({}, {**environ, variable: "19.0"}).config_file is None, "Odoo 19 does not read it"
    assert load({"odoo_version": "19.0"}, environ).config_file is None
    assert load({"odoo_version": "18.0"}, environ).connection.user == "old"
    for variable in ("OPENERP_SERVER", "ODOO_RC"):
        with pytest.raises(ConfigError, match=f"from \\${variable}, cannot be read"):
            load({}, {variable: str(tmp_path / "missing.conf")})


def test_several_hosts_as_libpq_takes_them(conf: Loader) -> None:
    dsn = conf("[options]\ndb_host = a,b\ndb_port = 5432,5433\n").dsn("x")
    assert (dsn["host"], dsn["port"]) == ("a,b", "5432,5433")
    assert conf("[options]\ndb_host = a,b\ndb_port = 6432\n").dsn("x")["port"] == 6432
    with pytest.raises(ConfigError, match=r"\[options\] db_port: 3 ports for 2 hosts"):
        conf("[options]\ndb_host = a,b\ndb_port = 1,2,3\n")
    with pytest.raises(ConfigError, match="out of range"):
        conf("[options]\ndb_host = a,b\ndb_port = 1,70000\n")


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("[queue-job]\nchannels = root:4\n", {}, "section [queue-job] is not read; did you mean [queue_job]?"),
        ("[QJSupervisor]\nwindow = 7\n", {}, "did you mean [qjsupervisor]?"),
        (
            "[queue_job]\nchanels = root:4\n",
            {},
            "'chanels' is not known here and has no effect; did you mean channels?",
        ),
        ("", {"ODOO_QUEUE_JOB_CHANELS": "root:4"}, "did you mean ODOO_QUEUE_JOB_CHANNELS?"),
        ("", {"ODOO_QUEUEJOB_CHANNELS": "root:4"}, "did you mean ODOO_QUEUE_JOB_CHANNELS?"),
        ("", {"QJ_SUPERVISOR_MONITOR": "x:1"}, "did you mean QJSUPERVISOR_MONITOR?"),
    ],
)
def test_what_is_nearly_ours_is_pointed_out(conf: Loader, text: str, environ: dict[str, str], said: str) -> None:
    (warning,) = conf(text, environ).warnings
    assert said in warning


# Channels and capacities


@pytest.mark.parametrize(
    ("lines", "mode", "root"),
    [
        ("", Mode.DEFAULT, 1),
        ("channels = root:4", Mode.SERVER_WIDE, 4),
        ("channels = root:4\nmax_capacity = 9", Mode.SERVER_WIDE, 4),
        ("max_capacity = 9", Mode.PER_DATABASE, 9),
        ("channels =\nmax_capacity = 9", Mode.PER_DATABASE, 9),
        ("max_capacity = 0", Mode.PER_DATABASE, 0),
        ("db_max_capacity = 9", Mode.DEFAULT, 1),
        ("channels = root:0", Mode.SERVER_WIDE, 0),
        ("channels = sub:2", Mode.SERVER_WIDE, 1),
    ],
)
def test_mode(conf: Loader, lines: str, mode: Mode, root: int) -> None:
    config = conf(f"[queue_job]\n{lines}\n")
    assert (config.mode, config.channels[0].name, config.channels[0].capacity) == (mode, "root", root)


def test_channels_of_the_file_go_before_max_capacity_of_the_environment(conf: Loader) -> None:
    config = conf("[queue_job]\nchannels = root:4\n", {"ODOO_QUEUE_JOB_MAX_CAPACITY": "9"})
    assert config.mode is Mode.SERVER_WIDE
    (warning,) = config.warnings
    assert warning.startswith("environment variable ODOO_QUEUE_JOB_MAX_CAPACITY has no effect")


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


# Databases


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


@pytest.mark.parametrize(("uri", "name"), [("postgres://u@h", "u"), ("postgresql://h", "h"), ("postgresql:///d", "d")])
def test_name_of_a_uri_without_a_database(conf: Loader, uri: str, name: str) -> None:
    assert conf(f"[options]\ndb_name = {uri}\n").dsn(name)["dbname"] == name


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


def test_socket_directory_is_a_host(conf: Loader) -> None:
    assert conf("[options]\ndb_host = /var/run/postgresql\n").dsn("db")["host"] == "/var/run/postgresql"


def test_include_and_exclude(conf: Loader) -> None:
    config = conf("[qjsupervisor]\ndatabases_include = prod_*,staging\ndatabases_exclude = *_old\n")
    assert [name for name in ("prod_a", "staging", "prod_old", "dev") if config.selects(name)] == ["prod_a", "staging"]
    assert conf().selects("anything")


def test_weights(conf: Loader) -> None:
    config = conf("[qjsupervisor]\nfairness_weights = prod_*:3,*_slow:1,st*:2\n")
    assert [config.weight(name) for name in ("prod_slow", "st", "x")] == [3, 2, 1]


# Targets


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


# The objects


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


def test_unknown_keys_of_queue_job_are_only_told(conf: Loader, tmp_path: Path) -> None:
    config = conf("[queue_job]\nchannels = root:2\nfuture = 1\nhttp_auth_password = geheim\n[other]\nx = 1\n")
    assert config.warnings == (
        f"{tmp_path}/odoo.conf: [queue_job] 'future' is not known here and has no effect",
        f"{tmp_path}/odoo.conf: [queue_job] http_auth_password has no effect without http_auth_user",
    )


@pytest.mark.parametrize(
    ("uid", "environ", "socket"),
    [
        (0, {"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a/control.sock"),
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/qjsupervisor/control.sock"),
        (0, {}, "/run/qjsupervisor/control.sock"),
        (7, {"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/qjsupervisor/control.sock"),
        (7, {"RUNTIME_DIRECTORY": "/run/a", "XDG_RUNTIME_DIR": "/run/user/7"}, "/run/a/control.sock"),
        (7, {}, "/tmp/qjsupervisor-7/control.sock"),
    ],
)
def test_control_socket_s_place(
    conf: Loader, monkeypatch: pytest.MonkeyPatch, uid: int, environ: dict[str, str], socket: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert conf(environ=environ).control_socket == socket
    assert conf(environ=environ, control_socket="/x/y").control_socket == "/x/y"
