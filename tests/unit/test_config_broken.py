"""What is wrong in a configuration ends in one line: where, which key, what is wrong, what is allowed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from qjsupervisor.channelspec import MAX_CHANNELS
from qjsupervisor.config.load import load
from qjsupervisor.errors import ConfigError
from qjsupervisor.states import EX_CONFIG

BROKEN = [
    # section, line, what the message holds besides file, section and key
    ("qjsupervisor", "rescan_intervall = 60", ["no such option", "did you mean rescan_interval?"]),
    ("qjsupervisor", "nonsense = 1", ["no such option", "allowed: databases_include", "monitor"]),
    ("qjsupervisor", "channels = root:4", ["belongs to section [queue_job]"]),
    ("qjsupervisor", "rescan_interval = -5", ["-5 s", "out of range", "allowed: 0.1 to 86400 seconds"]),
    ("qjsupervisor", "rescan_interval = soon", ["'soon'", "not a duration", "allowed: seconds"]),
    ("qjsupervisor", "rescan_interval = 60 ; a minute", ["not a duration", "line of its own"]),
    ("qjsupervisor", "fairness = random", ["'random'", "allowed: round-robin, priority"]),
    ("qjsupervisor", "fairness_weights = a:0", ["'a:0'", "allowed: 1 to 100"]),
    ("qjsupervisor", "fairness_weights = a", ["'a'", "not a whole number"]),
    ("qjsupervisor", "read_timeout = 0.5", ["allowed: 0 (no limit), 1 to"]),
    ("qjsupervisor", "graceful_timeout = 0", ["allowed: 0.1 to 3600"]),
    ("qjsupervisor", "hang_timeout = 1", ["allowed: 2 to 3600"]),
    ("qjsupervisor", "window = 1", ["allowed: 10 to 1000000"]),
    ("qjsupervisor", "max_databases = many", ["'many'", "not a whole number"]),
    ("qjsupervisor", "log_level = loud", ["allowed: debug, info, warning, error"]),
    ("qjsupervisor", "log_format = xml", ["allowed: auto, json, console"]),
    ("qjsupervisor", "monitor = 9100", ["no port", "HOST:PORT"]),
    ("qjsupervisor", "monitor = localhost:99999", ["1 to 65535"]),
    ("qjsupervisor", "targets = prod_*:odoo1", ["'prod_*:odoo1'", "no URL", "PATTERN:http://HOST"]),
    ("qjsupervisor", "ca_file = /nowhere/ca.pem", ["cannot be read", "No such file"]),
    ("qjsupervisor", "control_socket = /" + "s" * 120, ["too long", "107 bytes"]),
    ("queue_job", "channels = root:four", ["entry 'root:four'", "capacity"]),
    ("queue_job", "channels = root:4,seq:2:sequential", ["entry 'seq:2:sequential'", "needs capacity 1"]),
    ("queue_job", "channels = root:4\n  sub:1:sequentail", ["entry 'sub:1:sequentail'", "did you mean sequential?"]),
    ("queue_job", "max_capacity = -1", ["-1", "allowed: 0 to"]),
    ("queue_job", "db_max_capacity = a:b", ["'a:b'", "'b' is not a whole number"]),
    ("queue_job", "scheme = ftp", ["allowed: http, https"]),
    ("queue_job", "host = http://odoo", ["'http://odoo' is not a host"]),
    ("queue_job", "port = 0", ["allowed: 1 to 65535"]),
    ("queue_job", "port = 65536", ["allowed: 1 to 65535"]),
    ("queue_job", "http_auth_user = a:b", ["colon"]),
    ("queue_job", "jobrunner_db_port = pg", ["'pg' is not a whole number"]),
    ("options", "db_port = 5432 ; the usual one", ["not a whole number", "line of its own"]),
    ("options", "http_port = http", ["'http' is not a whole number"]),
    ("options", "xmlrpc_port = 70000", ["allowed: 1 to 65535"]),
    ("options", "db_sslmode = on", ["allowed: disable, allow, prefer, require, verify-ca, verify-full"]),
    ("options", "db_name = a, postgresql://u:geheim@h:x%/b", ["entry 2", "postgresql://[USER"]),
    ("options", "db_name = postgresql://u:geheim/x@h/b", ["entry 1", "%XX"]),
    ("options", "db_name = postgresql://u:12/geheim@h/b", ["entry 1", "%XX"]),
    ("options", "db_name = postgresql://u:x@geheim@h/b", ["entry 1", "%XX"]),
    ("options", "db_name = postgresql://u:x@y:geheim@h/b", ["entry 1", "%XX"]),
    ("options", "db_name = postgresql://u:12,geheim@h/b", ["entry 2", "%XX"]),
    ("options", "db_host = postgresql://u:geheim@h/b", ["is a URL"]),
    ("qjsupervisor", "maintenance_db = postgresql://u:geheim@h/b", ["is a URL"]),
]  # fmt: skip


def broken(argv: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """The message of a configuration that cannot be loaded: one printable line, without a secret."""
    with pytest.raises(ConfigError) as raised:
        load(argv, environ)
    message = str(raised.value)
    assert raised.value.exit_status == EX_CONFIG
    assert message.isprintable()
    assert len(message) < 1500
    assert "geheim" not in message
    return message


@pytest.mark.parametrize(("section", "line", "parts"), BROKEN, ids=[line.split("\n")[0][:40] for _, line, _ in BROKEN])
def test_file(tmp_path: Path, section: str, line: str, parts: list[str]) -> None:
    file = tmp_path / "odoo.conf"
    file.write_text(f"[{section}]\n{line}\n")
    message = broken({"config": str(file)}, {})
    for part in (str(file), f"[{section}]", line.partition(" =")[0], *parts):
        assert part in message


@pytest.mark.parametrize(
    ("variable", "text", "parts"),
    [
        ("QJSUPERVISOR_RESCAN_INTERVAL", "x", ["'x'", "not a duration"]),
        ("QJSUPERVISOR_SCAN", "60", ["no such option", "allowed: QJSUPERVISOR_DATABASES_INCLUDE"]),
        ("QJSUPERVISOR_LOG_LEVL", "info", ["no such option", "did you mean QJSUPERVISOR_LOG_LEVEL?"]),
        ("ODOO_QUEUE_JOB_CHANNELS", "root:-1", ["'root:-1'", "out of range"]),
        ("ODOO_QUEUE_JOB_PORT", "eighty", ["'eighty'"]),
        ("ODOO_QUEUE_JOB_JOBRUNNER_DB_PORT", "0", ["1 to 65535"]),
        ("QJSUPERVISOR_TARGETS", "*:http://u:geheim@h/x", ["entry 1"]),
    ],
)
def test_environment(tmp_path: Path, variable: str, text: str, parts: list[str]) -> None:
    message = broken({}, {"HOME": str(tmp_path), variable: text})
    for part in ("environment variable", variable, *parts):
        assert part in message


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("log_level", "loud", ["--log-level", "'loud'", "allowed: debug"]),
        ("log_levl", "info", ["--log-levl", "no such option", "did you mean log_level?"]),
        ("monitor", "\x1b[31m", ["--monitor", "not a host"]),
    ],
)
def test_command_line(tmp_path: Path, name: str, text: str, parts: list[str]) -> None:
    message = broken({name: text}, {"HOME": str(tmp_path)})
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"[options]\ndb_password = \xe4geheim\n", ["line 2", "UTF-8"]),
        (b"db_password = geheim\n", ["line 1", "before any section", "[options]"]),
        (b"[options]\ndb_password geheim\n", ["line 2", "key = value"]),
        (b"[options]\ndb_password = geheim\ndb_password = geheim\n", ["line 3", "[options] db_password", "twice"]),
        (b"[queue_job]\n[options]\n[queue_job]\n", ["line 3", "[queue_job]", "twice"]),
        (b"[options\ndb_user = a\n", ["line 1"]),
    ],
)
def test_what_is_no_file_of_odoo_s(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    file = tmp_path / "odoo.conf"
    file.write_bytes(content)
    message = broken({"config": str(file)}, {})
    for part in (str(file), *parts):
        assert part in message


@pytest.mark.parametrize("by", ["--config", "$ODOO_RC"])
def test_named_file_must_be_there(tmp_path: Path, by: str) -> None:
    file = str(tmp_path / "nothing.conf")
    message = broken(*(({"config": file}, {}) if by == "--config" else ({}, {"ODOO_RC": file})))
    for part in (file, by, "No such file or directory", "readable"):
        assert part in message


def test_directory_is_no_file(tmp_path: Path) -> None:
    assert "Is a directory" in broken({"config": str(tmp_path)}, {})


def test_default_socket_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 7)
    message = broken({}, {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/" + "r" * 120})
    assert "set control_socket" in message


def test_every_error_names_its_option(tmp_path: Path) -> None:
    file = tmp_path / "odoo.conf"
    file.write_text("[queue_job]\nport = x\n")
    with pytest.raises(ConfigError) as raised:
        load({"config": str(file)}, {})
    assert raised.value.option == "port"


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "odoo.conf"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="is not a regular file"):
        load({"config": str(fifo)}, {})


def test_a_file_too_large_to_be_a_configuration_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "odoo.conf"
    file.write_bytes(b"[options]\n" + b"key = value\n" * 100_000)
    with pytest.raises(ConfigError, match="larger than 1,048,576 bytes"):
        load({"config": str(file)}, {})


def test_too_many_channels(tmp_path: Path) -> None:
    """Of more than that the shared table has no number, or the machine no room."""
    conf = tmp_path / "odoo.conf"
    for number, fits in ((MAX_CHANNELS - 1, True), (MAX_CHANNELS, False)):
        conf.write_text("[queue_job]\nchannels = " + ",".join(f"c{each}:1" for each in range(number)))
        with nullcontext() if fits else pytest.raises(ConfigError, match="allowed: at most 10000"):
            load({"config": str(conf)}, {})
