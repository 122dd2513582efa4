"""`check` as a person runs it, beside an HTTP server that answers as Odoo does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qjsupervisor import cli
from qjsupervisor.testing.postgres import ThrowawayPostgres

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
def fake_odoo() -> Iterator[FakeOdoo]:
    server = FakeOdoo(200)
    yield server
    server.close()


@pytest.fixture
def check(
    postgres: ThrowawayPostgres, fake_odoo: FakeOdoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Check:
    """check(db_name=..., sections=...) -> (exit status, its JSON)."""

    def run(
        port: int | None = None, sections: Mapping[str, Any] | None = None, **conf: Any
    ) -> tuple[int, dict[str, Any]]:
        own = {"qjsupervisor": {"control_socket": str(tmp_path / "s"), "connect_timeout": 2}}
        path = tmp_path / "odoo.conf"
        path.write_text(odoo_conf(postgres, port or fake_odoo.port, **conf, sections={**own, **(sections or {})}))
        status = cli.main(["check", "--json", "-c", str(path)])
        return status, json.loads(capsys.readouterr().out)

    return run


def entry(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (each for each in found["databases"] if each["name"] == name)
    assert isinstance(one, dict)
    return one
