"""Where a value comes from: command line, environment, file, default; and what is nearly ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from qjsupervisor.config import odoo_file as odooconf
from qjsupervisor.config.load import Config
from qjsupervisor.config.options import OPTIONS, QUEUE_JOB_OPTIONS
from qjsupervisor.errors import ConfigError

from .configured import Loader, urls


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odooconf, "DEFAULT_PLACES", ("~/.odoorc", "~/.openerp_serverrc"))


def capacities(config: Config) -> dict[str, int | None]:
    return {channel.name: channel.capacity for channel in config.channels}


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
        "dead_after_restart": "7", "leader_timeout": "7", "idle_timeout": "7", "sleep_timeout": "7", "cluster": "c",
        "cluster_database": "d", "coordination_floor": "root:1",
        "new_databases": "hold", "schedule": "root: 1 daily 01:00-02:00",
            "timezone": "Europe/Berlin", "monitor_token": "t", "monitor_user": "u", "monitor_password": "p",
    }  # fmt: skip
    assert set(texts) == {option.name for option in OPTIONS}
    for option in OPTIONS:
        text = texts[option.name]
        # It is refused without a cluster.
        others = {"QJSUPERVISOR_CLUSTER": "c"} if option.name == "coordination_floor" else {}
        by_file = conf(f"[qjsupervisor]\n{option.name} = {text}\n", others)
        assert by_file != conf(environ=others), option.name
        assert by_file == conf(environ={**others, str(option.variable): text})
        assert by_file == conf(environ=others, **{option.name: text})
        assert option.flag == (None if option.secret else "--" + option.name.replace("_", "-"))


@pytest.mark.parametrize("name", ["state_dir", "control_socket", "pidfile", "log_file", "ca_file"])
def test_a_path_that_is_stored_is_not_relative(conf: Loader, name: str) -> None:
    """Another command may be called in another directory; what is typed is meant where it is typed."""
    for text in ("run/x", "./x", "../x"):
        for given in ((f"[qjsupervisor]\n{name} = {text}\n", {}), ("", {f"QJSUPERVISOR_{name.upper()}": text})):
            with pytest.raises(ConfigError, match=f"{text!r} is relative; allowed: a path that begins with / or ~"):
                conf(*given)
    if name != "ca_file":
        assert getattr(conf(**{name: "x"}), name) == os.path.abspath("x")
        assert getattr(conf(f"[qjsupervisor]\n{name} = ~/x\n"), name) == os.path.expanduser("~/x")


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


def test_unknown_keys_of_queue_job_are_only_told(conf: Loader, tmp_path: Path) -> None:
    config = conf("[queue_job]\nchannels = root:2\nfuture = 1\nhttp_auth_password = geheim\n[other]\nx = 1\n")
    assert config.warnings == (
        f"{tmp_path}/odoo.conf: [queue_job] 'future' is not known here and has no effect",
        f"{tmp_path}/odoo.conf: [queue_job] http_auth_password has no effect without http_auth_user",
    )
