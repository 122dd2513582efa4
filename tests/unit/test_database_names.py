"""Names of databases: of a URI, and chosen by globs."""

from __future__ import annotations

import pytest

from qjsupervisor.config import odoo_file as odooconf

from .configured import Loader


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odooconf, "DEFAULT_PLACES", ("~/.odoorc", "~/.openerp_serverrc"))


@pytest.mark.parametrize(("uri", "name"), [("postgres://u@h", "u"), ("postgresql://h", "h"), ("postgresql:///d", "d")])
def test_name_of_a_uri_without_a_database(conf: Loader, uri: str, name: str) -> None:
    assert conf(f"[options]\ndb_name = {uri}\n").dsn(name)["dbname"] == name


def test_include_and_exclude(conf: Loader) -> None:
    config = conf("[qjsupervisor]\ndatabases_include = prod_*,staging\ndatabases_exclude = *_old\n")
    assert [name for name in ("prod_a", "staging", "prod_old", "dev") if config.selects(name)] == ["prod_a", "staging"]
    assert conf().selects("anything")
