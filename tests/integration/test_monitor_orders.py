"""Orders over HTTP: who may give them, and who may not, whatever he sends."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from ..monitor_status import status
from .monitored import Monitor, StartMonitor

TOKEN = "a token"
PAUSE = {"database": "customer-001", "channel": "root.mail", "for_s": "60"}


def post(one: Monitor, path: str, data: dict[str, Any], **headers: str) -> requests.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(
        f"http://127.0.0.1:{one.port}{path}", data=data, headers=headers, timeout=5, allow_redirects=False
    )


def logged_in(one: Monitor, **secret: str) -> tuple[str, str]:
    """The cookie, and the token that its forms carry."""
    answer = post(one, "/login", secret)
    assert answer.status_code == 303
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    cookie = cookie.partition(";")[0]
    csrf = re.search(r'name="csrf" value="(\w+)"', one.get("/", Cookie=cookie).text)
    assert csrf is not None
    return cookie, csrf[1]


def test_without_a_secret_the_page_only_reads(monitor: StartMonitor) -> None:
    one = monitor(status(3))
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic Og=="}):
        assert post(one, "/pause", PAUSE, **headers).status_code == 403
    assert one.get("/login").status_code == 405
    assert one.master.orders == []


def test_a_program_sends_the_token(monitor: StartMonitor) -> None:
    one = monitor(status(3), monitor_token=TOKEN)
    answer = post(one, "/pause", PAUSE, Authorization=f"Bearer {TOKEN}")
    assert (answer.status_code, answer.text) == (200, "Paused.\n")
    assert one.master.orders == [
        {"do": "pause", "database": "customer-001", "channel": "root.mail", "for_s": 60, "by": "token from 127.0.0.1"}
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Basic \\xff"},
        {"Cookie": "qjsupervisor=dG9rZW4=.99999999999.x.00"},
        {"Cookie": "qjsupervisor=..."},
    ],
)
def test_wrong_secrets_give_no_order(monitor: StartMonitor, headers: dict[str, str]) -> None:
    one = monitor(status(3), monitor_token=TOKEN, monitor_user="ada", monitor_password="right")
    assert post(one, "/pause", PAUSE, **headers).status_code == 403
    assert one.master.orders == []


def test_an_order_of_a_cookie_needs_its_form_and_its_origin(monitor: StartMonitor) -> None:
    one = monitor(status(3), monitor_user="ada", monitor_password="right")
    cookie, csrf = logged_in(one, user="ada", password="right")
    own = f"http://127.0.0.1:{one.port}"
    assert post(one, "/pause", PAUSE, Cookie=cookie).status_code == 403
    assert post(one, "/pause", {**PAUSE, "csrf": "0" * 64}, Cookie=cookie).status_code == 403
    with_form = {**PAUSE, "csrf": csrf}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        assert post(one, "/pause", with_form, Cookie=cookie, **headers).status_code == 403
    assert one.master.orders == []
    answer = post(one, "/pause", {**with_form, "back": "//evil.example/"}, Cookie=cookie, Origin=own)
    assert answer.status_code == 303
    assert re.fullmatch(r"/\?note=\S+", answer.headers["Location"]), "it leads to nobody else's page"
    assert one.master.orders[0]["by"] == "ada from 127.0.0.1"


def test_another_origin_cannot_log_anybody_in(monitor: StartMonitor) -> None:
    one = monitor(status(3), monitor_token=TOKEN)
    assert post(one, "/login", {"token": TOKEN}, Origin="http://evil.example").status_code == 403


def test_guessing_is_slow(monitor: StartMonitor) -> None:
    one = monitor(status(3), monitor_token=TOKEN)
    codes = [post(one, "/login", {"token": f"guess {number}"}).status_code for number in range(25)]
    assert codes == [403] * 20 + [429] * 5
    assert post(one, "/login", {"token": TOKEN}).status_code == 429


def test_what_the_master_refuses_is_told(monitor: StartMonitor) -> None:
    one = monitor(status(3), monitor_token=TOKEN)
    one.master.refusal = "database 'x' is not served"
    answer = post(one, "/resume", {"database": "x"}, Authorization=f"Bearer {TOKEN}")
    assert (answer.status_code, answer.text) == (409, "not done: database 'x' is not served\n")


@pytest.mark.parametrize("form", [{"for_s": "soon"}, {"for_s": "-1"}, {"channel": "c" * 600}, {"database": ["a", "b"]}])
def test_what_is_no_order_is_refused(monitor: StartMonitor, form: dict[str, Any]) -> None:
    one = monitor(status(3), monitor_token=TOKEN)
    assert post(one, "/pause", form, Authorization=f"Bearer {TOKEN}").status_code == 400
    assert one.master.orders == []
