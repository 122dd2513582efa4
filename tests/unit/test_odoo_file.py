"""Odoo's configuration file: where it is, and how it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from qjsupervisor.config import odoo_file as odooconf
from qjsupervisor.config.load import Config, load
from qjsupervisor.errors import ConfigError

from .configured import Loader

#: Before the fixture hides the last one from the tests.
PLACES = odooconf.DEFAULT_PLACES


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odooconf, "DEFAULT_PLACES", ("~/.odoorc", "~/.openerp_serverrc"))


def capacities(config: Config) -> dict[str, int | None]:
    return {channel.name: channel.capacity for channel in config.channels}


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


def test_default_section_reaches_the_others_and_is_no_slip(conf: Loader) -> None:
    config = conf("[DEFAULT]\ndb_host = pg\nanything = 1\n[options]\n[qjsupervisor]\n[queue_job]\n")
    assert config.connection.host == "pg"
    assert config.warnings == ()


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
