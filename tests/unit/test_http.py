"""HTTP as far as the monitor speaks it: requests in any pieces, what is none, and responses."""

from __future__ import annotations

import gzip
from http import HTTPStatus

import pytest

from qjsupervisor.monitor.http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    PLAIN,
    BadRequest,
    ClientRequest,
    Parser,
    Response,
    plain,
)

POST = (
    b"POST /pause?x=1 HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nCookie: b=2;c\r\nX-Two: 1\r\nX-Two: 2\r\n"
    b"Content-Length: 5\r\n\r\nhello"
)


def parsed(text: bytes) -> ClientRequest | None:
    return Parser("::1").feed(text)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n\n"])
def test_a_request_in_pieces(step: int, before: bytes) -> None:
    parser, found = Parser("::1"), None
    text = before + POST
    for at in range(0, len(text), step):
        assert found is None
        found = parser.feed(text[at : at + step])
    assert found is not None
    assert (found.method, found.path, found.query, found.body, found.client) == (
        "POST", "/pause", "x=1", b"hello", "::1",
    )  # fmt: skip
    assert found.headers["x-two"] == "1, 2"
    assert found.cookies == {"a": "1", "b": "2", "c": ""}


def test_a_path_is_unquoted_and_bare_newlines_are_taken() -> None:
    found = parsed(b"GET /database/a%20b%2Fc HTTP/1.0\nhost: h\n\n")
    assert found is not None
    assert (found.path, found.headers) == ("/database/a b/c", {"host": "h"})


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"\x16\x03\x01", HTTPStatus.BAD_REQUEST),
        (b"x" * 21, HTTPStatus.BAD_REQUEST),
        (b"GET /\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/2.0\r\n", HTTPStatus.BAD_REQUEST),
        (b"PUT / HTTP/1.1\r\n\r\n", HTTPStatus.NOT_IMPLEMENTED),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\n folded: 1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        ("POST / HTTP/1.1\r\nContent-Length: ²\r\n\r\n".encode("latin-1"), HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", HTTPStatus.LENGTH_REQUIRED),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"GET /" + b"x" * MAX_HEAD_BYTES, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_what_is_no_request_is_refused(text: bytes, status: HTTPStatus) -> None:
    with pytest.raises(BadRequest) as refused:
        parsed(text)
    assert refused.value.status is status


def form(body: bytes, kind: str = "application/x-www-form-urlencoded; charset=utf-8") -> dict[str, list[str]]:
    return ClientRequest("POST", "/", "", {"content-type": kind}, body).form()


def test_a_form() -> None:
    assert form(b"a=1&b=%C3%A4+x&a=2&c=") == {"a": ["1", "2"], "b": ["ä x"], "c": [""]}
    for body, kind, status in (
        (b"a=1", "application/json", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
        (b"\xff", "application/x-www-form-urlencoded", HTTPStatus.BAD_REQUEST),
        (b"a=1&" * 2000, "application/x-www-form-urlencoded", HTTPStatus.BAD_REQUEST),
    ):
        with pytest.raises(BadRequest) as refused:
            form(body, kind)
        assert refused.value.status is status


def asked(method: str = "GET", **headers: str) -> ClientRequest:
    return ClientRequest(method, "/", "", {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("accepts", "compressed"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("", False), ("gzip;q=0", False), ("gzip; q=0", False)],
)
def test_a_large_body_is_compressed_once_for_who_takes_that(accepts: str, compressed: bool) -> None:
    response = Response(HTTPStatus.OK, PLAIN, b"word " * 1000)
    head, body = response.encoded(asked(accept_encoding=accepts), ())
    assert (b"Content-Encoding: gzip" in head) is compressed
    assert (gzip.decompress(body) if compressed else body) == response.body
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert len(response.compressed) == compressed


def test_a_head_without_a_body_and_headers_of_ours() -> None:
    response = plain(HTTPStatus.NOT_FOUND, "not here \udcff")
    head, body = response.encoded(asked("HEAD"), [("X-Frame-Options", "DENY")])
    first, *lines = head.decode().split("\r\n")
    assert first == "HTTP/1.1 404 Not Found"
    assert body == b""
    assert {"Connection: close", "X-Frame-Options: DENY", "Cache-Control: no-store"} <= set(lines)
    assert response.body == b"not here \\udcff\n"
    kept = Response(HTTPStatus.OK, PLAIN, b"", [("Cache-Control", "max-age=9")]).encoded(None, ())[0]
    assert b"no-store" not in kept
