"""The monitor's page in a real Chromium: what is seen, what is done, and what stays as it is while it is updated."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.stand_in import StandIn

from ..conftest import DatabaseFactory, SupervisorFactory
from ..helpers import odoo_conf, wait_until
from ..integration.monitored import Monitor, StartMonitor, monitor
from ..monitor_status import status
from ..scripted import unused_port

__all__ = ["monitor"]

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, "there is no chromium: apt-get install chromium"
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Open]:
    """Opens pages; what the browser complains of fails the test."""
    complaints: list[str] = []
    contexts = []

    def go(one: Monitor | int, path: str = "/", *, width: int = 1280, scheme: Any = "light") -> Page:
        port = one if isinstance(one, int) else one.port
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"http://127.0.0.1:{port}{path}")
        return page

    yield go
    for context in contexts:
        context.close()
    assert not complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(monitor: StartMonitor, visit: Open, width: int, scheme: str) -> None:
    one = monitor(status(24), monitor_token="secret")
    for path in ("/", "/login", "/database/customer-001"):
        page = visit(one, path, width=width, scheme=scheme)
        found = Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in serious]
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{path} is wider than a screen of {width}"


def test_updated_in_place(monitor: StartMonitor, visit: Open) -> None:
    """Rows are the same elements, the search and the scroll stay; title and icon have the number of problems."""
    one = monitor(status(200, troubled=False))
    page = visit(one)
    expect(page).to_have_title("qjsupervisor")
    page.get_by_label("Search").first.fill("customer-1")
    expect(page.locator('[data-shown="databases"]')).to_have_text("100 of 200 shown")
    page.evaluate("scrollTo(0, 1500)")
    top = "document.querySelector('#databases tr[data-key=customer-148]').getBoundingClientRect().top"
    page.evaluate("document.querySelector('#databases tr[data-key=customer-150]').mine = true")
    where = page.evaluate(top)
    answer = status(200, troubled=False)
    answer["databases"][150].update(pending=4321, state="blocked", last_error="no such role")
    one.master.answer = answer
    row = page.locator("#databases tr[data-key=customer-150]")
    expect(row).to_contain_text("4,321")
    expect(row.locator(".tag")).to_have_text("blocked")
    assert page.evaluate("document.querySelector('#databases tr[data-key=customer-150]').mine")
    assert page.evaluate(top) == pytest.approx(where, abs=1), "what is looked at stays where it is"
    expect(page.locator('[data-shown="databases"]')).to_have_text("100 of 200 shown")
    expect(page).to_have_title("(1) qjsupervisor")
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", "/icon.svg?1")
    assert ">1</text>" in one.get("/icon.svg?1").text


def test_a_large_page_is_quick(monitor: StartMonitor, visit: Open) -> None:
    one = monitor(status(200, 45))
    page = visit(one)
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    paint_ms = wait_until(lambda: page.evaluate(paint), "something is painted")
    updates: set[float] = set()

    def measured() -> bool:
        value = page.evaluate("document.body.dataset.updateMs")
        updates.update([float(value)] if value else [])
        return len(updates) >= 3

    wait_until(measured, "three updates", 15)
    assert paint_ms < 1000
    assert min(updates) < 50, updates


def test_sort_and_filter(monitor: StartMonitor, visit: Open) -> None:
    page = visit(monitor(status(30)))
    rows = page.locator("#databases tbody tr:not([hidden])")
    expect(rows.first).to_contain_text("customer-012")  # what has a problem comes first
    page.get_by_role("button", name="waiting").first.click()
    expect(rows.first).to_contain_text("customer-024")
    page.get_by_label("State").first.select_option("blocked")
    expect(rows).to_have_count(2)
    page.reload()  # what was chosen is in the address
    expect(rows).to_have_count(2)


def test_it_says_that_the_supervisor_stopped(monitor: StartMonitor, visit: Open) -> None:
    one = monitor(status(3))
    page = visit(one)
    one.process.kill()
    one.process.wait()
    expect(page.get_by_role("alert")).to_contain_text("No answer since")
    expect(page.locator("#databases")).to_contain_text("customer-002")


def test_it_is_readable_without_script(monitor: StartMonitor, chromium: Browser) -> None:
    one = monitor(status(3))
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{one.port}/")
    expect(page.locator("#databases")).to_contain_text("customer-002")
    expect(page.locator(".tools").first).to_be_hidden()
    assert '<noscript><meta http-equiv="refresh"' in one.get("/").text
    context.close()


def test_orders_need_the_token(monitor: StartMonitor, visit: Open) -> None:
    one = monitor(status(3), monitor_token="the right one")
    page = visit(one)
    assert page.get_by_role("button", name="Pause").count() == 0
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("Token").fill("a wrong one")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("body")).to_contain_text("wrong")
    page.goto(f"http://127.0.0.1:{one.port}/login")
    page.get_by_label("Token").fill("the right one")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Pause all databases").click()
    expect(page.locator(".note")).to_have_text("Paused.")
    (order,) = one.master.orders
    assert order == {
        "do": "pause", "database": None, "channel": "root", "for_s": 900, "by": "token from 127.0.0.1"
    }  # fmt: skip
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_jobs_are_seen_and_requeued(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory, visit: Open
) -> None:
    """The whole: a database's page with its jobs and why they wait, and an order that is carried out and logged."""
    one, port = database(), unused_port()
    failed = one.insert_jobs(3, state="failed")
    (waiting,) = one.insert_jobs(1, channel="root.later", eta_s=3600)
    own = {"monitor": f"127.0.0.1:{port}", "monitor_user": "ada", "monitor_password": "pass"}
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": own}))
    running.wait_ready(one.name)
    running.wait_for("monitor_started")
    page = visit(port, f"/database/{one.name}")
    expect(page.locator("#waiting")).to_contain_text(waiting)
    expect(page.locator("#waiting .why").first).to_contain_text("due in")
    expect(page.locator("#failed tbody tr")).to_have_count(3)
    page.goto(f"http://127.0.0.1:{port}/login")
    page.get_by_label("User").fill("ada")
    page.get_by_label("Password").fill("pass")
    page.get_by_role("button", name="Log in").click()
    page.goto(f"http://127.0.0.1:{port}/database/{one.name}")
    page.locator(f"input[value='{failed[0]}']").check()
    page.get_by_role("button", name="Requeue the chosen jobs").click()
    expect(page.locator(".note")).to_have_text("1 job put back to pending.")
    one.wait_for_states(done=1, failed=2, pending=1)
    page.get_by_role("button", name="Requeue all failed jobs").click()
    one.wait_for_states(done=3, pending=1)
    order = running.wait_for("order_given", order="requeue", jobs="all")
    assert (order["user"], order["client"], order["database"]) == ("ada", "127.0.0.1", one.name)
    done = re.compile(r'^qjsupervisor_jobs_total\{outcome="done"\} 3\.0$', re.MULTILINE)
    wait_until(lambda: done.search(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text), "3 are counted")


def test_an_operator_lets_jobs_run_although_a_module_is_to_be_upgraded(
    postgres: ThrowawayPostgres, odoo: StandIn, database: DatabaseFactory, supervisor: SupervisorFactory, visit: Open
) -> None:
    """There is a button for that once the upgrade takes too long, for who is logged in; a click, and they run."""
    one, port = database(), unused_port()
    own = {
        "monitor": f"127.0.0.1:{port}",
        "monitor_token": "the right one",
        "upgrade_timeout": 1,
        "reconcile_interval": 1,
    }
    running = supervisor(odoo_conf(postgres, odoo.port, db_name=one.name, sections={"qjsupervisor": own}))
    running.wait_ready(one.name)
    schema.set_module_state(one.connection, "to upgrade", "sale")
    one.insert_jobs(2)
    wait_until(lambda: (running.database_status(one.name) or {})["upgrade_overdue"], "it takes too long")
    page = visit(port, f"/database/{one.name}")
    expect(page.locator("body")).to_contain_text("module sale is 'to upgrade'")
    button = page.get_by_role("button", name="Run its jobs although modules are in transition")
    expect(button).to_have_count(0)
    page.goto(f"http://127.0.0.1:{port}/login")
    page.get_by_label("Token").fill("the right one")
    page.get_by_role("button", name="Log in").click()
    page.goto(f"http://127.0.0.1:{port}/database/{one.name}")
    assert one.states() == {"pending": 2}
    button.click()
    expect(page.locator(".note")).to_have_text("Its jobs run until the modules' transition is over.")
    one.wait_for_states(done=2)
    assert running.wait_for("order_given", order="resume", anyway=True)["database"] == one.name
    wait_until(lambda: (running.database_status(one.name) or {})["modules"]["anyway"], "it is known")
    page.goto(f"http://127.0.0.1:{port}/database/{one.name}")
    expect(button).to_have_count(0)


@pytest.mark.timeout(120)
def test_a_page_that_is_left_open_does_not_grow(monitor: StartMonitor, visit: Open) -> None:
    """Rows change, come and go with each update; elements and listeners stay as many as there were."""
    one = monitor(status(60))
    page = visit(one)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.enable")

    def counts() -> tuple[float, float]:
        session.send("HeapProfiler.collectGarbage")
        found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return found["Nodes"], found["JSEventListeners"]

    def update(pending: int) -> None:
        """With 50 databases, then with all 60 again, each with another number."""
        for databases in (50, 60):
            answer = status(databases)
            for view in answer["databases"]:
                view["pending"] = pending + databases
            one.master.answer = answer
            last = page.locator(f"#databases tr[data-key=customer-{databases - 1:03}]")
            expect(last).to_contain_text(str(pending + databases))

    update(100)
    nodes, listeners = counts()
    for number in range(2, 5):
        update(number * 100)
    more_nodes, more_listeners = counts()
    assert more_nodes < nodes * 1.2, (nodes, more_nodes)
    assert more_listeners == listeners
