"""Every page in Chromium, over a team's day that is always the same: what people see, use and never see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from dstack.model.api.tokens import Role
from dstack.model.job.status import Status
from tests.environment.browser import Visitor, chromium, visiting
from tests.unit.server.web import demo
from tests.unit.server.web.served import Served, served
from tests.unit.server.web.test_pages import HOSTILE
from tests.unit.server.world import TOKEN, World
from tests.unit.store.test_store import job, run

RUNNING = "kind-otter-8"
PAGES = {
    "now": "/",
    "runs": "/runs",
    "run": f"/runs/{RUNNING}",
    "log": f"/runs/{RUNNING}/log",
    "search": f"/runs/{RUNNING}/log?q=epoch",
    "artifacts": f"/runs/{RUNNING}/artifacts",
    "code": f"/runs/{RUNNING}/code",
    "run-events": f"/runs/{RUNNING}/events",
    "compare": f"/compare?runs={RUNNING},jolly-tapir-7,happy-heron-6",
    "confirm": f"/confirm?act=stop&run={RUNNING}",
    "runners": "/runners",
    "runner": "/runners/old-v100",
    "sweeps": "/sweeps",
    "sweep": "/sweeps/lr",
    "usage": "/usage?by=workflow",
    "events": "/events",
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("web")) as made:
        made.do(demo.fill)
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as started:
        yield started


@pytest.fixture
def visitor(browser: object, web: Served) -> Iterator[Visitor]:
    with visiting(browser) as found:  # type: ignore[arg-type]
        sign_in(found, web)
        yield found


def sign_in(visitor: Visitor, web: Served, token: str = TOKEN) -> None:
    visitor.page.goto(f"{web.url}/login")
    visitor.page.get_by_label("Token").fill(token)
    visitor.page.get_by_role("button", name="Sign in").click()
    visitor.page.wait_for_url(f"{web.url}/")


def test_no_page_asks_another_server_breaks_its_policy_or_leaves_the_screen(browser: object, web: Served) -> None:
    for width, theme in ((390, "light"), (1280, "dark"), (2560, "light")):
        with visiting(browser, viewport={"width": width, "height": 900}, color_scheme=theme) as visitor:  # type: ignore[arg-type]
            sign_in(visitor, web)
            for name, path in PAGES.items():
                visitor.page.goto(web.url + path)
                wide = visitor.page.evaluate("document.documentElement.scrollWidth > innerWidth")
                assert not wide, f"{name} is wider than {width} pixels"
                assert visitor.violations() == [], name
            assert visitor.requests == {web.url}
            assert visitor.errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: object, web: Served, theme: str) -> None:
    with visiting(browser, color_scheme=theme, bypass_csp=True) as visitor:  # type: ignore[arg-type]
        visitor.page.goto(f"{web.url}/login")
        found = {"login": serious(visitor)}
        sign_in(visitor, web)
        for name, path in PAGES.items():
            visitor.page.goto(web.url + path)
            found[name] = serious(visitor)
        assert {name: each for name, each in found.items() if each} == {}


def serious(visitor: Visitor) -> list[str]:
    """Return what axe-core finds on the page that keeps people from using it."""
    visitor.page.add_script_tag(path=axe())
    found = visitor.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def axe() -> Path:
    """Return axe-core's script (https://github.com/dequelabs/axe-core), which a Python package brings along."""
    return Path(str(metadata.distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))


def test_an_open_page_shows_what_happens(visitor: Visitor, web: Served) -> None:
    visitor.page.goto(f"{web.url}/runs/{RUNNING}/log")
    log = visitor.page.locator("[data-log]")
    job_id = demo.id_of(RUNNING, 1)

    web.do(lambda world: append(world, job_id, b"\x1b[32mcheckpoint saved\x1b[0m\n  1%"))
    log.get_by_text("checkpoint saved").wait_for()
    assert log.get_by_text("checkpoint saved").get_attribute("class") == "f2"
    web.do(lambda world: append(world, job_id, b"\r 99%"))
    log.get_by_text(" 99%").wait_for()
    assert log.get_by_text("1%", exact=True).count() == 0

    ended = {"status": Status.UPLOADING}
    web.do(lambda world: world.store.jobs.change(job_id, **ended))
    visitor.page.locator("h1").get_by_text("uploading").wait_for()
    web.do(
        lambda world: world.store.jobs.change(
            job_id, status=Status.DONE, exit_code=0, finished_at="2026-12-01T00:00:00Z"
        )
    )
    visitor.page.locator("h1").get_by_text("done").wait_for()


def append(world: World, job_id: str, data: bytes) -> None:
    world.store.logs.append(job_id, data)
    world.engine.context.events.publish([RUNNING])


def test_a_hidden_tab_keeps_no_stream(visitor: Visitor, web: Served) -> None:
    closed: list[str] = []
    opened: list[str] = []
    visitor.page.on("requestfinished", lambda request: closed.append(request.url))
    visitor.page.on("requestfailed", lambda request: closed.append(request.url))
    visitor.page.on("request", lambda request: opened.append(request.url))
    visitor.page.goto(f"{web.url}/")
    while not [url for url in opened if "seen=" in url]:
        visitor.page.wait_for_timeout(20)

    hide = """value => {
        Object.defineProperty(document, "hidden", {value, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    visitor.page.evaluate(hide, True)
    while not [url for url in closed if "seen=" in url]:
        visitor.page.wait_for_timeout(20)
    visitor.page.evaluate(hide, False)

    while len([url for url in opened if "seen=" in url]) < 2:
        visitor.page.wait_for_timeout(20)


def test_three_runs_are_ticked_and_compared(visitor: Visitor, web: Served) -> None:
    visitor.page.goto(f"{web.url}/runs")
    for name in (RUNNING, "jolly-tapir-7", "eager-yak-3"):
        visitor.page.get_by_label(f"Choose {name}").check()
    visitor.page.get_by_text("With 3 ticked runs:").wait_for()

    visitor.page.get_by_role("button", name="Compare").click()

    visitor.page.wait_for_url(re.compile("/compare"))
    assert visitor.page.locator("thead th a").all_inner_texts() == ["kind-otter-8", "jolly-tapir-7", "eager-yak-3"]
    row = visitor.page.get_by_role("row", name="learning_rate")
    assert row.get_by_role("cell").all_inner_texts() == ["0.02", "0.0001", "0.01"]
    assert visitor.page.get_by_text("model", exact=True).count() == 0


def test_the_log_is_searched_and_a_line_can_be_linked_to(visitor: Visitor, web: Served) -> None:
    visitor.page.goto(f"{web.url}/runs/lively-raven-9/log")
    visitor.page.keyboard.press("/")
    visitor.page.keyboard.type("Successfully")
    visitor.page.keyboard.press("Enter")
    visitor.page.get_by_role("heading", name="1 line with").wait_for()

    visitor.page.locator(".hits a").click()

    visitor.page.wait_for_url(re.compile(r"at=\d+#b\d+"))
    assert "Successfully installed torch" in visitor.page.locator(".ln:target").inner_text()


def test_without_scripts_it_works_the_same(browser: object, web: Served) -> None:
    with visiting(browser, java_script_enabled=False) as visitor:  # type: ignore[arg-type]
        sign_in(visitor, web)
        visitor.page.get_by_role("link", name="Runs", exact=True).click()
        visitor.page.get_by_label("Status").select_option("failed")
        visitor.page.get_by_role("button", name="Filter").click()
        visitor.page.get_by_role("link", name="eager-yak-3").click()
        assert "CUDA out of memory" in visitor.page.locator("main").inner_text()
        visitor.page.get_by_role("link", name="Runners", exact=True).click()
        visitor.page.get_by_role("link", name="cpu-1").click()
        visitor.page.get_by_label("Reason").fill("cleaning")
        visitor.page.get_by_role("button", name="Drain").click()
        visitor.page.get_by_text("Drained: it gets no new jobs. cleaning").wait_for()
        visitor.page.get_by_role("button", name="Resume").click()
        visitor.page.locator("h1").get_by_text("ready").wait_for()
        visitor.page.get_by_role("button", name="Sign out").click()
        visitor.page.wait_for_url(f"{web.url}/login")


def test_hostile_texts_run_nothing(visitor: Visitor, web: Served) -> None:
    def write(world: World) -> None:
        world.store.runs.add(run("hostile", user=HOSTILE))
        world.store.jobs.add(job("c" * 12, "hostile", image=HOSTILE, why=HOSTILE))
        world.store.logs.append(
            "c" * 12, (HOSTILE + "\n").encode() * 3 + b"<script>document.title = 'owned'</script>" * 30_000
        )

    web.do(write)
    for path in ("/", "/runs", "/runs/hostile", "/runs/hostile/log", "/events"):
        visitor.page.goto(web.url + path)
        assert visitor.violations() == []
        assert visitor.page.locator("main img, main script").count() == 0
    visitor.page.goto(f"{web.url}/runs/hostile/log?at=0")
    assert "<img src=x onerror=alert(1)>" in visitor.page.locator(".ln").first.inner_text()
    web.do(lambda world: append_hostile(world))
    visitor.page.goto(f"{web.url}/runs/hostile")
    assert visitor.page.title() == "hostile · dstack"


def append_hostile(world: World) -> None:
    world.store.logs.append("c" * 12, b"\n<img src=x onerror=\"document.title='owned'\">\n")
    world.engine.context.events.publish(["hostile"])


def test_a_member_is_shown_only_what_is_theirs_to_do(browser: object, web: Served) -> None:
    token = web.do(lambda world: world.store.tokens.create("bob", Role.MEMBER)).token
    with visiting(browser) as visitor:  # type: ignore[arg-type]
        sign_in(visitor, web, token)
        visitor.page.goto(f"{web.url}/runs/lively-raven-9")
        visitor.page.get_by_role("button", name="Stop").wait_for()
        visitor.page.goto(f"{web.url}/runs/merry-walrus-10")
        assert visitor.page.get_by_role("button", name="Stop").count() == 0
        visitor.page.goto(f"{web.url}/runners/cpu-1")
        assert visitor.page.get_by_role("button", name="Drain").count() == 0

        web.do(lambda world: world.store.tokens.revoke("bob"))

        visitor.page.wait_for_url(re.compile("/login"))


def test_charts_are_drawn_and_saved(visitor: Visitor, web: Served) -> None:
    visitor.page.goto(f"{web.url}/runs/lively-raven-9")
    visitor.page.locator(".charts canvas").nth(3).wait_for()

    with visitor.page.expect_download() as picture:
        visitor.page.get_by_role("button", name="Save as PNG").first.click()
    with visitor.page.expect_download() as table:
        visitor.page.get_by_role("link", name="Download as CSV").click()

    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    assert table.value.path().read_text().startswith("time,cpu,memory,gpu,gpu_memory\n")
    assert visitor.violations() == []
