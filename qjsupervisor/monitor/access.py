"""Decides who may give orders on the page: whoever knows monitor_token, or monitor_user and monitor_password.

A browser logs in once and gets a signed cookie (SameSite=Strict, HttpOnly, valid for SESSION_S); a program sends the
token as `Authorization: Bearer`, or user and password as Basic. Secrets are compared in constant time. An order
authorised by a cookie must also carry its form's CSRF token; an order from another origin is always refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config.settings import Config
from .http import BadRequest, ClientRequest

SESSION_S = 12 * 3600
COOKIE = "qjsupervisor"
#: Wrong secrets per minute, from all clients together, after which logins are refused for a while.
MOST_FAILURES = 20
_FAILURES_OF_S = 60.0


class User(NamedTuple):
    """A user who has authenticated."""

    name: str
    #: CSRF token that each form must carry; '' if the request itself carried the secret.
    csrf: str


class Access:
    """Checks against the secrets of one configuration; sessions end with the process."""

    def __init__(self, config: Config) -> None:
        self._token = config.monitor_token
        self._user, self._password = config.monitor_user, config.monitor_password
        self._key = secrets.token_bytes(32)
        self._failures: list[float] = []

    @property
    def is_possible(self) -> bool:
        """Whether a secret is configured; without one the page is read-only."""
        return self._token is not None or self.with_user

    @property
    def with_user(self) -> bool:
        """Whether login asks for user and password."""
        return self._user is not None and self._password is not None

    def user_of(self, request: ClientRequest) -> User | None:
        """The user who sent a request, or None if not authenticated."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._allowed():
            return User("token", "") if self._is_token(secret.strip()) else None
        if scheme.lower() == "basic" and self._allowed():
            name, _, password = _basic(secret).partition(":")
            return User(name, "") if self._is_user(name, password) else None
        return self._of_cookie(request.cookies.get(COOKIE, ""))

    def check_order(self, request: ClientRequest, form: Mapping[str, list[str]]) -> User:
        """The user who gives an order. Raises BadRequest unless authenticated and sent from our own page."""
        check_origin(request)
        user = self.user_of(request)
        if user is None:
            raise BadRequest(HTTPStatus.FORBIDDEN, "log in first, or send the token")
        if user.csrf and not _same("".join(form.get("csrf", [])), user.csrf):
            raise BadRequest(HTTPStatus.FORBIDDEN, "this form is too old: load the page again")
        return user

    def log_in(self, form: Mapping[str, list[str]]) -> tuple[str, str] | None:
        """(user, cookie) for the right secret; None for a wrong one."""
        if not self._allowed():
            raise BadRequest(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong secrets: try again in a minute")
        token, name, password = ("".join(form.get(key, [])) for key in ("token", "user", "password"))
        if self.with_user and self._is_user(name, password):
            return name, self._cookie(name)
        if self._token is not None and self._is_token(token):
            return "token", self._cookie("token")
        return None

    def _allowed(self) -> bool:
        now_s = time.monotonic()
        self._failures = [moment for moment in self._failures if moment > now_s - _FAILURES_OF_S]
        return len(self._failures) < MOST_FAILURES

    def _note(self, right: bool) -> bool:
        if not right:
            self._failures.append(time.monotonic())
        return right

    def _is_token(self, token: str) -> bool:
        return self._note(self._token is not None and _same(token, self._token))

    def _is_user(self, name: str, password: str) -> bool:
        if self._user is None or self._password is None:
            return self._note(False)
        right_name, right_password = _same(name, self._user), _same(password, self._password)
        return self._note(right_name and right_password)

    def _cookie(self, name: str) -> str:
        session = ".".join((_encoded(name), str(int(time.time()) + SESSION_S), secrets.token_urlsafe(9)))
        return f"{session}.{self._signed('session', session)}"

    def _of_cookie(self, cookie: str) -> User | None:
        session, _, signature = cookie.rpartition(".")
        if not session or not _same(signature, self._signed("session", session)):
            return None
        name, until_s, _ = session.split(".")
        return User(_decoded(name), self._signed("csrf", session)) if time.time() < int(until_s) else None

    def _signed(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def check_origin(request: ClientRequest) -> None:
    """Raise BadRequest if another site's page made the browser send this."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    ):
        raise BadRequest(HTTPStatus.FORBIDDEN, "orders from another origin are not taken")


def cookie_header(value: str, *, secure: bool) -> tuple[str, str]:
    """The Set-Cookie header; an empty value deletes the cookie."""
    age_s = SESSION_S if value else 0
    flags = f"Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
    return "Set-Cookie", f"{COOKIE}={value}; {flags}"


def _same(given: str, right: str) -> bool:
    """Compare in constant time, revealing not even the length of the secret."""
    return hmac.compare_digest(
        *(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, right))
    )


def _basic(secret: str) -> str:
    try:
        return base64.b64decode(secret.strip(), validate=True).decode("utf-8", "replace")
    except ValueError:
        return ""


def _encoded(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass")).decode("ascii")


def _decoded(text: str) -> str:
    return base64.urlsafe_b64decode(text).decode("utf-8", "surrogatepass")
