"""The subset of HTTP/1.1 the monitor needs: one request and one response per connection.  Pure.

`Parser` takes bytes as they arrive and never keeps more than MAX_HEAD_BYTES and MAX_BODY_BYTES. Anything malformed
is a `BadRequest`, answered with a proper status line and our own plain text; the request is never echoed.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

MAX_HEAD_BYTES = 16_384
MAX_BODY_BYTES = 65_536
MAX_FIELDS = 1_000
#: Supported methods; all others are answered with 501.
METHODS = ("GET", "HEAD", "POST")
_GZIP_FROM_BYTES = 1_000

PLAIN = "text/plain; charset=utf-8"


class BadRequest(Exception):
    """A request that is answered only with this status and text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request. Header names are lower case; `path` is unquoted and excludes the query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    #: The client's address.
    client: str = ""

    def form(self) -> dict[str, list[str]]:
        """The fields of the form in the body. Raises BadRequest if it is not a form."""
        if self.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a form: application/x-www-form-urlencoded")
        try:
            pairs = parse_qsl(self.body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "this is no form") from None
        fields: dict[str, list[str]] = {}
        for name, value in pairs:
            fields.setdefault(name, []).append(value)
        return fields

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the request."""
        pairs = (each.strip().partition("=") for each in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs if name}


@dataclass(frozen=True, slots=True)
class Response:
    """One response; `headers` are added to those that every response has."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    #: The gzipped body, compressed once for all clients of this response.
    compressed: list[bytes] = field(default_factory=list)

    def encoded(self, request: ClientRequest | None, security: Sequence[tuple[str, str]]) -> tuple[bytes, bytes]:
        """(head, body) to send; `security`: headers added to every response."""
        body, headers = self.body, [("Content-Type", self.content_type), *self.headers]
        if len(body) >= _GZIP_FROM_BYTES and request is not None and _accepts_gzip(request):
            if not self.compressed:
                self.compressed.append(gzip.compress(body, 3, mtime=0))
            body = self.compressed[0]
            headers.append(("Content-Encoding", "gzip"))
        headers += [("Vary", "Accept, Accept-Encoding"), ("Content-Length", str(len(body))), *security]
        if not any(name == "Cache-Control" for name, _ in self.headers):
            headers.append(("Cache-Control", "no-store"))
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        return head, b"" if request is not None and request.method == "HEAD" else body


def plain(status: HTTPStatus, text: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """A plain-text response."""
    return Response(status, PLAIN, (text + "\n").encode("utf-8", "backslashreplace"), headers)


class Parser:
    """Parses one request incrementally."""

    def __init__(self, client: str = "") -> None:
        self._client = client
        self._incoming = bytearray()
        self._request: ClientRequest | None = None
        self._body_bytes = 0

    def feed(self, chunk: bytes) -> ClientRequest | None:
        """The request once complete, else None. Raises BadRequest as soon as it cannot become valid."""
        self._incoming += chunk
        if self._request is None and not self._take_head():
            return None
        request = self._request
        if request is None or len(self._incoming) < self._body_bytes:
            return None
        body = bytes(self._incoming[: self._body_bytes])
        return ClientRequest(request.method, request.path, request.query, request.headers, body, self._client)

    def _take_head(self) -> bool:
        while self._incoming.startswith((b"\r", b"\n")):  # RFC 9112: skip an empty line before a request
            del self._incoming[:1]
        head, end, rest = self._incoming.partition(b"\r\n\r\n")
        if not end:
            head, end, rest = self._incoming.partition(b"\n\n")
        if len(head) > MAX_HEAD_BYTES:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of a request is too long")
        first, newline, _ = self._incoming.partition(b"\n")
        if newline:
            _check_first_line(first)
        elif not _can_begin_a_request(bytes(first)):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
        if not end:
            return False
        self._request, self._body_bytes = _parse_head(head.decode("latin-1"))
        self._incoming = bytearray(rest)
        return True


def _can_begin_a_request(start: bytes) -> bool:
    """Whether this can still become a request line; a TLS handshake, say, is refused at its first byte."""
    method = start.partition(b" ")[0]
    return len(method) <= 20 and all(chr(byte).isascii() and chr(byte).isalpha() for byte in method)


def _check_first_line(line: bytes | bytearray) -> tuple[str, str]:
    words = line.decode("latin-1").strip().split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha():
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
    return words[0], words[1]


def _parse_head(head: str) -> tuple[ClientRequest, int]:
    first, *lines = head.replace("\r\n", "\n").split("\n")
    method, target = _check_first_line(first.encode("latin-1"))
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(HTTPStatus.BAD_REQUEST, "a header has no name or no colon")
        name = name.lower()
        if name in headers and name in ("content-length", "host"):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "a header is given twice")
        former = headers[name] + ("; " if name == "cookie" else ", ") if name in headers else ""
        headers[name] = former + value.strip()
    if method not in METHODS:
        raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, f"this server knows {', '.join(METHODS)}")
    path, _, query = target.partition("?")
    return ClientRequest(method, unquote(path, errors="replace"), query, headers), _body_bytes(headers)


def _body_bytes(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    if int(length) > MAX_BODY_BYTES:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body of a request is too long")
    return int(length)


def _accepts_gzip(request: ClientRequest) -> bool:
    accepted = [each.strip() for each in request.headers.get("accept-encoding", "").lower().split(",")]
    return any(each.partition(";")[0] == "gzip" and not each.replace(" ", "").endswith("q=0") for each in accepted)
