"""The files in conf/ are what they say: read by the programs that are to read them."""

from __future__ import annotations

import configparser
import io
import itertools
import re
from pathlib import Path

import pytest
import trustme
from supervisor.options import ServerOptions

from qjsupervisor.config.load import load
from qjsupervisor.config.options import ODOO_OPTIONS, OPTIONS, QUEUE_JOB_OPTIONS
from qjsupervisor.config.settings import Config
from qjsupervisor.states import EX_CANTCREAT, EX_CONFIG, EX_OK

CONF = Path(__file__).resolve().parents[2] / "conf"
EXAMPLE = CONF / "odoo.conf.example"
_EXAMPLE_KEY = re.compile(r"; (\w+ = .*)")


def written_out(tmp_path: Path) -> Path:
    """The example with every key in force, and a file with certificates that is there."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    lines = [_EXAMPLE_KEY.sub(r"\1", line) for line in EXAMPLE.read_text().splitlines()]
    text = re.sub(r"(?m)^ca_file = .*", f"ca_file = {tmp_path}/ca.pem", "\n".join(lines))
    file = tmp_path / "odoo.conf"
    file.write_text(text)
    return file


@pytest.fixture
def example(tmp_path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(written_out(tmp_path))
    return parser


def test_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.conf"
    empty.touch()
    example, nothing = load({"config": str(EXAMPLE)}, {}), load({"config": str(empty)}, {})
    assert {**as_dict(example), "config_file": None} == {**as_dict(nothing), "config_file": None}


def as_dict(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in Config.__slots__}


def test_every_key_of_the_example_is_valid(tmp_path: Path) -> None:
    config = load({"config": str(written_out(tmp_path))}, {})
    # Both forms of capacity stand there; only one can hold.
    assert len(config.warnings) == 2
    for warning, key in zip(config.warnings, ("max_capacity", "db_max_capacity"), strict=True):
        assert f"[queue_job] {key} has no effect" in warning


def test_example_has_every_option_and_no_other(example: configparser.RawConfigParser) -> None:
    fallbacks = {name for option in QUEUE_JOB_OPTIONS for name in option.fallbacks if "xmlrpc" not in name}
    assert list(example["qjsupervisor"]) == [option.name for option in OPTIONS]
    assert list(example["queue_job"]) == [option.name for option in QUEUE_JOB_OPTIONS]
    assert set(example["options"]) == {option.name for option in ODOO_OPTIONS} | fallbacks


@pytest.mark.parametrize("option", [*OPTIONS, *QUEUE_JOB_OPTIONS, *ODOO_OPTIONS], ids=lambda option: str(option.name))
def test_defaults_of_the_table(option: object, example: configparser.RawConfigParser) -> None:
    name, section, text = (getattr(option, key) for key in ("name", "section", "default_text"))
    if not text:
        return  # there is none, or it depends; the example shows something else
    assert example[section][name] == text
    default, parsed = getattr(option, "default"), getattr(option, "parse")(text)  # noqa: B009
    assert parsed == default or name == "channels"  # None there: queue_job tells apart whether it is set


def test_a_comment_stands_before_every_own_key() -> None:
    own = EXAMPLE.read_text().partition("[qjsupervisor]")[2].splitlines()
    for before, line in itertools.pairwise(own):
        if _EXAMPLE_KEY.match(line):
            assert before.startswith("# "), line


@pytest.mark.parametrize("option", [*OPTIONS, *QUEUE_JOB_OPTIONS], ids=lambda option: str(option.name))
def test_help_is_one_line(option: object) -> None:
    text = getattr(option, "help")  # noqa: B009
    assert 10 < len(text) < 110
    assert text.isprintable()
    assert not text.endswith(".")


@pytest.fixture
def program() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(CONF / "supervisord.conf")
    return parser


def test_supervisord_reads_its_file(tmp_path: Path) -> None:
    text = (CONF / "supervisord.conf").read_text().replace("/run/", f"{tmp_path}/").replace("/var/log", str(tmp_path))
    file = tmp_path / "supervisord.conf"
    file.write_text(text)
    options = ServerOptions()
    options.stdout = options.stderr = io.StringIO()
    options.realize(["--configuration", str(file)])
    groups = {group.name: group for group in options.process_group_configs}
    assert {event.__name__ for event in groups["qjsupervisor-watch"].pool_events} == {"Tick5Event", "ProcessStateEvent"}
    (process,) = groups["qjsupervisor"].process_configs
    assert process.name == "qjsupervisor"
    assert process.command.split()[:2] == ["qjsupervisor", "start"]
    assert process.stopsignal.name == "SIGTERM"
    assert process.exitcodes == [EX_OK, EX_CANTCREAT, EX_CONFIG]
    assert (process.stopasgroup, process.killasgroup) == (False, False)
    assert process.redirect_stderr is True
    assert process.stdout_logfile_backups == 10


def test_supervisord_waits_longer_than_we_need(program: configparser.RawConfigParser) -> None:
    config = load({"config": str(EXAMPLE)}, {})
    assert float(program["program:qjsupervisor"]["stopwaitsecs"]) > config.graceful_timeout_s
