"""Who may give orders on the page: secrets, cookies that nobody else can make, and forms of another origin."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import pytest

from qjsupervisor.config.load import load
from qjsupervisor.monitor.access import COOKIE, MOST_FAILURES, SESSION_S, Access, check_origin, cookie_header
from qjsupervisor.monitor.http import BadRequest, ClientRequest

MakeAccess = Callable[..., Access]


@pytest.fixture
def access() -> MakeAccess:
    def make(**options: str) -> Access:
        return Access(load({"config": "/dev/null", **options}, {"HOME": "/nowhere"}))

    return make


def request(**headers: str) -> ClientRequest:
    return ClientRequest("POST", "/pause", "", {name.replace("_", "-"): value for name, value in headers.items()})


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_without_a_secret_nobody_is_known(access: MakeAccess) -> None:
    nobody = access()
    assert not nobody.is_possible
    assert nobody.user_of(request(authorization="Bearer ")) is None
    assert nobody.user_of(request(authorization=basic(":"))) is None
    assert nobody.log_in({"token": [""], "user": [""], "password": [""]}) is None


def test_a_program_sends_the_token_or_the_user(access: MakeAccess) -> None:
    token = access(monitor_token="geheim")
    assert token.user_of(request(authorization="bearer geheim")) == ("token", "")
    assert token.user_of(request(authorization="Bearer geheimer")) is None
    assert token.user_of(request(authorization=basic("geheim:"))) is None
    user = access(monitor_user="ärzte", monitor_password="a:b")
    assert user.with_user
    assert user.user_of(request(authorization=basic("ärzte:a:b"))) == ("ärzte", "")
    assert user.user_of(request(authorization=basic("ärzte:a"))) is None
    assert user.user_of(request(authorization="Basic ?!")) is None


def test_a_browser_gets_a_cookie_and_each_form_a_token_of_its_own(access: MakeAccess) -> None:
    one = access(monitor_user="ann", monitor_password="geheim")
    assert one.log_in({"user": ["ann"], "password": ["geheimer"]}) is None
    name, cookie = one.log_in({"user": ["ann"], "password": ["geheim"]}) or ("", "")
    assert name == "ann"
    asked = request(cookie=f"other=1; {COOKIE}={cookie}")
    user = one.user_of(asked)
    assert user is not None
    assert user.name == "ann"
    assert one.check_order(asked, {"csrf": [user.csrf]}) == user
    for form in ({}, {"csrf": [""]}, {"csrf": [user.csrf + "x"]}):
        with pytest.raises(BadRequest, match="too old"):
            one.check_order(asked, form)
    with pytest.raises(BadRequest, match="log in first"):
        one.check_order(request(), {"csrf": [user.csrf]})


def test_a_cookie_is_of_this_process_unchanged_and_for_its_time(
    access: MakeAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = access(monitor_token="geheim"), access(monitor_token="geheim")
    _, cookie = one.log_in({"token": ["geheim"]}) or ("", "")
    asked = request(cookie=f"{COOKIE}={cookie}")
    assert one.user_of(asked) is not None
    assert other.user_of(asked) is None
    name, rest = cookie.split(".", 1)
    forged = base64.urlsafe_b64encode(b"root").decode() + "." + rest
    for changed in (forged, cookie[:-1], cookie.rpartition(".")[0], name, "", "..."):
        assert one.user_of(request(cookie=f"{COOKIE}={changed}")) is None
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + SESSION_S + 1)
    assert one.user_of(asked) is None


def test_guesses_are_few_a_minute(access: MakeAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    one = access(monitor_token="geheim")
    for _ in range(MOST_FAILURES):
        assert one.user_of(request(authorization="Bearer x")) is None
    assert one.user_of(request(authorization="Bearer geheim")) is None, "not even the right one"
    with pytest.raises(BadRequest, match="try again in a minute"):
        one.log_in({"token": ["geheim"]})
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 61)
    assert one.user_of(request(authorization="Bearer geheim")) is not None


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"origin": "http://here:1", "host": "here:1"}, True),
        ({"origin": "https://here:1", "host": "here:1", "sec_fetch_site": "same-origin"}, True),
        ({"origin": "http://elsewhere", "host": "here:1"}, False),
        ({"origin": "null", "host": "here:1"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "none"}, True),
    ],
)
def test_orders_of_another_origin_are_refused(headers: dict[str, str], taken: bool) -> None:
    if taken:
        check_origin(request(**headers))
    else:
        with pytest.raises(BadRequest, match="another origin"):
            check_origin(request(**headers))


def test_no_page_reads_the_cookie_and_it_can_be_taken_back() -> None:
    name, given = cookie_header("value", secure=True)
    assert name == "Set-Cookie"
    assert given.startswith(f"{COOKIE}=value; ")
    assert {"HttpOnly", "SameSite=Strict", "Secure", f"Max-Age={SESSION_S}"} <= set(given.split("; "))
    assert "Max-Age=0" in cookie_header("", secure=False)[1]
    assert "Secure" not in cookie_header("", secure=False)[1]
