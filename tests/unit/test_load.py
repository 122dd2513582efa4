"""From file, environment and command line to one Config."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.config import odoo_file as odooconf
from qjsupervisor.config.load import load
from qjsupervisor.errors import ConfigError
from qjsupervisor.states import Fairness, Mode

from .configured import Loader, urls


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odooconf, "DEFAULT_PLACES", ("~/.odoorc", "~/.openerp_serverrc"))


# Which file


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


# How a file is read


@pytest.mark.parametrize("text", ["False", "", "None", "false"])
def test_unset_leaves_it_to_libpq(conf: Loader, text: str) -> None:
    keys = ("db_host", "db_port", "db_user", "db_password", "db_sslmode", "db_name", "db_template")
    config = conf("[options]\n" + "".join(f"{key} = {text}\n" for key in keys))
    for key in ("host", "port", "user", "password", "sslmode"):
        assert getattr(config.connection, key) is None
        assert key not in config.dsn("db")
    assert config.db_names == ()
    assert config.template == "template0"


# Who is stronger


# Odoo 19 and its environment


def test_several_hosts_as_libpq_takes_them(conf: Loader) -> None:
    dsn = conf("[options]\ndb_host = a,b\ndb_port = 5432,5433\n").dsn("x")
    assert (dsn["host"], dsn["port"]) == ("a,b", "5432,5433")
    assert conf("[options]\ndb_host = a,b\ndb_port = 6432\n").dsn("x")["port"] == 6432
    with pytest.raises(ConfigError, match=r"\[options\] db_port: 3 ports for 2 hosts"):
        conf("[options]\ndb_host = a,b\ndb_port = 1,2,3\n")
    with pytest.raises(ConfigError, match="out of range"):
        conf("[options]\ndb_host = a,b\ndb_port = 1,70000\n")


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


# Databases


def test_socket_directory_is_a_host(conf: Loader) -> None:
    assert conf("[options]\ndb_host = /var/run/postgresql\n").dsn("db")["host"] == "/var/run/postgresql"


# Targets


# The objects


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
