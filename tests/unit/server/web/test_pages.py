"""The pages and forms over HTTP: who gets them, what they change, and that what they show is text."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dstack.model.api.tokens import Role
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState
from dstack.model.runner.runner import Address, Runner
from dstack.model.text.units import rfc3339
from dstack.server import roles
from dstack.server.web import html
from tests.unit.server.web import demo
from tests.unit.server.world import JOB, TOKEN, World
from tests.unit.store.test_store import job, run

PAGES = (
    "/",
    "/runs",
    "/runs?sort=duration",
    "/runs?status=queued&q=kno",
    "/runs/known",
    "/runs/known/log",
    "/runs/known/log?q=a",
    "/runs/known/artifacts",
    "/runs/known/code",
    "/runs/known/events",
    "/compare?runs=known",
    "/confirm?act=stop&run=known",
    "/runners",
    "/runners/lab1",
    "/usage",
    "/sweeps",
    "/events",
)
BROWSER = {"accept": "text/html", "host": "127.0.0.1"}
FORM = {**BROWSER, "content-type": "application/x-www-form-urlencoded"}


class Browser:
    """Keeps the cookie of one server, as a browser does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cookie = ""
        self.headers: dict[str, str] = {}

    def ask(self, path: str, form: dict[str, object] | None = None, **headers: str) -> tuple[int, str]:
        """Return the status and the page; of an answer that leads elsewhere, where to."""
        where, _, query = path.partition("?")
        sent = {**(BROWSER if form is None else FORM), **({"cookie": self.cookie} if self.cookie else {}), **headers}
        body = b"" if form is None else urlencode(form, doseq=True).encode()
        status, self.headers, page = asyncio.run(
            self.world.answer("GET" if form is None else "POST", where, query, sent, body)
        )
        if "set-cookie" in self.headers:
            self.cookie = self.headers["set-cookie"].partition(";")[0]
        return status, self.headers.get("location", page.decode())

    def sign_in(self, token: str = TOKEN) -> Browser:
        assert self.ask("/login", {"token": token}) == (303, "/")
        return self

    @property
    def key(self) -> str:
        """The key of this session's forms."""
        found = re.search(r'name="form_key" value="([0-9a-f]+)"', self.ask("/runs")[1])
        assert found
        return found[1]

    def send(self, path: str, **fields: object) -> tuple[int, str]:
        return self.ask(path, {**fields, "form_key": self.key})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.store.runners.add(Runner(name="lab1", address=Address(host="lab1")))
    yield made
    made.store.close()


@pytest.fixture
def browser(world: World) -> Browser:
    return Browser(world)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_for_those_who_signed_in(browser: Browser, page: str) -> None:
    status, where = browser.ask(page)
    assert status == 303
    assert where.startswith("/login")
    assert browser.ask(page, accept="application/json")[0] == 401

    assert browser.sign_in().ask(page)[0] == 200


def test_every_page_and_form_says_who_may_use_it(world: World) -> None:
    named = {f"{next(iter(route.methods - {'HEAD'}))} {route.path}" for route in world.web.routes() if route.methods}

    assert named == roles.PAGES.keys()
    assert {route for route, need in roles.PAGES.items() if need.role is None} == {
        "GET /static/{hash}/{name}",
        "GET /login",
        "POST /login",
    }


@pytest.mark.parametrize("path", ["/nothing", "/runs/known/nothing", "/v1", "/login/x"])
def test_what_is_no_page_tells_strangers_nothing(browser: Browser, path: str) -> None:
    assert browser.ask(path, accept="*/*")[0] == 401
    assert browser.sign_in().ask(path)[0] in (401, 404)


def test_signing_in_leads_to_the_page_that_was_asked_for(browser: Browser) -> None:
    _, where = browser.ask("/runs?status=done")
    assert where == "/login?next=%2Fruns%3Fstatus%3Ddone"
    assert 'value="/runs?status=done"' in browser.ask(where)[1]

    assert browser.ask("/login", {"token": TOKEN, "next": "/runs?status=done"}) == (303, "/runs?status=done")


@pytest.mark.parametrize("foreign", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", ""])
def test_signing_in_leads_to_no_other_server(browser: Browser, foreign: str) -> None:
    assert browser.ask("/login", {"token": TOKEN, "next": foreign}) == (303, "/")


def test_the_cookie_is_for_this_server_alone(browser: Browser) -> None:
    browser.sign_in()

    cookie = browser.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert browser.cookie.partition("=")[2] not in (browser.world.folder / "server" / "state.db").read_bytes().decode(
        "latin-1"
    )


def test_a_wrong_token_is_refused_and_after_many_nobody_is_heard(browser: Browser) -> None:
    browser.world.call("GET", "/runs")
    status, page = browser.ask("/login", {"token": "wrong"})
    assert (status, "does not accept this token" in page, browser.cookie) == (401, True, "")

    statuses = {browser.ask("/login", {"token": f"wrong {number}"})[0] for number in range(25)}

    assert statuses == {401, 429}
    assert browser.ask("/login", {"token": TOKEN})[0] == 429
    assert browser.world.call("GET", "/runs")[0] == 200


def test_a_session_ends_with_its_token(browser: Browser, world: World) -> None:
    token = world.store.tokens.create("ann", Role.MEMBER).token
    browser.sign_in(token)
    world.store.tokens.revoke("ann")
    assert browser.ask("/")[0] == 303

    world.store.tokens.create("ann", Role.ADMIN)

    assert browser.ask("/")[0] == 303


def test_signing_out_ends_the_session(browser: Browser, world: World) -> None:
    kept = browser.sign_in().cookie

    assert browser.send("/logout") == (303, "/login")

    browser.cookie = kept
    assert browser.ask("/")[0] == 303
    assert [event.kind for event in world.store.events.newest(2)] == ["session.closed", "session.opened"]


def test_a_link_signs_in_once(browser: Browser, world: World) -> None:
    status, link = world.call("POST", "/ui")
    assert (status, link["url"]) == (200, None)

    assert browser.ask(link["path"]) == (303, "/")
    assert browser.ask("/")[0] == 200
    status, page = Browser(world).ask(link["path"])
    assert (status, "used already" in page, "dstack ui" in page) == (401, True, True)


def test_a_link_of_a_revoked_token_opens_nothing(browser: Browser, world: World) -> None:
    token = world.store.tokens.create("ann", Role.MEMBER).token
    _, link = world.call("POST", "/ui", token=token)
    world.store.tokens.revoke("ann")

    assert browser.ask(link["path"])[0] == 401


def test_the_api_takes_no_cookie(browser: Browser) -> None:
    browser.sign_in()

    assert browser.ask("/v1/runs")[0] == 401
    assert browser.ask("/v1/stop", {})[0] == 401


def test_a_link_on_another_site_opens_the_page_from_a_page_of_ours(browser: Browser) -> None:
    status, page = browser.ask("/runs/known?job=x", **{"sec-fetch-site": "cross-site"})
    assert (status, 'content="0;url=/runs/known?job=x"' in page) == (200, True)

    assert browser.ask("/runs/known", **{"sec-fetch-site": "same-origin"})[1].startswith("/login")


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"host": "evil.example"}])
def test_a_foreign_site_gets_nothing(browser: Browser, headers: dict[str, str]) -> None:
    browser.sign_in()

    assert browser.ask("/runs/act", {"act": "stop", "run": "known", "sure": 1, "form_key": browser.key}, **headers)[
        0
    ] in (403, 421)


@pytest.mark.parametrize("key", ["", "0" * 32, "é"])
def test_a_form_without_the_sessions_key_does_nothing(browser: Browser, world: World, key: str) -> None:
    browser.sign_in()

    status, page = browser.ask("/runs/act", {"act": "stop", "run": "known", "sure": 1, "form_key": key})

    assert (status, "does not belong to this session" in page) == (403, True)
    assert world.store.jobs.require(JOB).stop is None


def test_a_stop_is_asked_about_first(browser: Browser, world: World) -> None:
    browser.sign_in()

    status, where = browser.send("/runs/act", act="stop", run="known", back="known")
    assert (status, where) == (303, "/confirm?act=stop&run=known&back=known")
    assert world.store.jobs.require(JOB).stop is None
    assert "Stop 1 run?" in browser.ask(where)[1]

    assert browser.send("/runs/act", act="stop", run="known", back="known", sure=1) == (303, "/runs/known")
    assert world.store.jobs.require(JOB).stop == "stop"
    assert world.store.events.newest(1)[0].actor == "shared"


def test_a_held_run_is_held_by_who_signed_in(browser: Browser, world: World) -> None:
    browser.sign_in(world.store.tokens.create("boss", Role.ADMIN).token)

    assert browser.send("/runs/act", act="hold", run="known", back="known") == (303, "/runs/known")

    assert world.store.jobs.require(JOB).held == "boss"
    assert "held by boss" in browser.ask("/")[1]


def test_several_runs_are_compared(browser: Browser, world: World) -> None:
    world.store.runs.add(run("other"))

    assert browser.sign_in().send("/runs/act", act="compare", run=["known", "other"]) == (
        303,
        "/compare?runs=known,other",
    )


def test_a_run_that_has_a_tag_is_not_deleted(browser: Browser, world: World) -> None:
    world.store.jobs.change(JOB, status=Status.DONE, exit_code=0, finished_at="2026-01-01T00:01:00.000Z")
    browser.sign_in()
    assert browser.send("/tags", run="known", name="best") == (303, "/runs/known")
    assert ":best" in browser.ask("/runs")[1]

    assert "has the tag" in browser.ask("/confirm?act=delete&run=known")[1]
    assert browser.send("/runs/act", act="delete", run="known", sure=1)[0] == 409
    assert browser.send("/tags/delete", run="known", name="best") == (303, "/runs/known")
    assert browser.send("/runs/act", act="delete", run="known", sure=1) == (303, "/runs")

    assert world.store.runs.get("known") is None


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/runs/act", {"act": "dance", "run": "known"}),
        ("/runs/act", {"act": "stop"}),
        ("/runs/act", {}),
        ("/runs/act", {"act": "stop", "run": "unknown"}),
        ("/tags", {"run": "known", "name": "not a tag!"}),
        ("/runners/drain", {"runner": "unknown"}),
    ],
)
def test_a_form_that_makes_no_sense_gets_an_error(browser: Browser, path: str, fields: dict[str, str]) -> None:
    status, page = browser.sign_in().send(path, **fields)

    if status == 303:  # leads to the question, which is refused
        status, page = browser.ask(page)
    assert status in (400, 404)
    assert "<h1>" in page


@pytest.mark.parametrize(
    "page",
    [
        "/runs?before=x",
        "/usage?by=moon",
        "/usage?since=yesterday",
        "/runs?before=99999999999999999999999",
        "/runs/known/log?at=-1",
        "/runs/known/log?at=x",
        "/runs/known/log?job=none",
        "/compare?runs=none",
        "/confirm?act=dance&run=known",
        "/runs/%00",
        "/events?run=%FF",
        "/compare?runs=" + ",".join(f"r{number}" for number in range(21)),
    ],
)
def test_a_url_that_makes_no_sense_gets_an_error_page(browser: Browser, page: str) -> None:
    status, text = browser.sign_in().ask(page)

    assert status in (400, 404)
    assert "Traceback" not in text


def test_a_member_sees_and_may_do_what_is_theirs(browser: Browser, world: World) -> None:
    world.store.runs.add(run("anns", user="ann"))
    world.store.jobs.add(job("a" * 12, "anns"))
    world.store.runs.add(run("bobs", user="bob"))
    world.store.jobs.add(job("b" * 12, "bobs"))
    browser.sign_in(world.store.tokens.create("bob", Role.MEMBER).token)

    assert ">Stop</button>" in browser.ask("/runs/bobs")[1]
    assert ">Stop</button>" not in browser.ask("/runs/anns")[1]
    assert "Drain</button>" not in browser.ask("/runners/lab1")[1]
    assert browser.send("/runs/act", act="stop", run="anns", sure=1)[0] == 403
    assert browser.ask("/confirm?act=stop&run=anns")[0] == 403
    assert browser.send("/runners/drain", runner="lab1")[0] == 403
    assert browser.send("/runs/act", act="stop", run="bobs", sure=1)[0] == 303


def test_an_admin_drains_and_resumes(browser: Browser, world: World) -> None:
    browser.sign_in()

    assert browser.send("/runners/drain", runner="lab1", reason="new fans") == (303, "/runners/lab1")
    assert "new fans" in browser.ask("/runners/lab1")[1]
    assert browser.send("/runners/resume", runner="lab1") == (303, "/runners/lab1")

    assert world.store.runners.require("lab1").drained is None


HOSTILE = "<img src=x onerror=alert(1)>\u202eevil\x1b[31m'\"</script>&"


def test_what_others_wrote_is_shown_as_text(browser: Browser, world: World) -> None:
    hostile = run("hostile", user=HOSTILE)
    world.store.runs.add(hostile)
    definition = job("c" * 12, "hostile").definition
    world.store.jobs.add(
        job(
            "c" * 12,
            "hostile",
            image=HOSTILE,
            why=HOSTILE,
            reason=Reason(ReasonCode.RUNNER_BUSY, HOSTILE),
            definition=definition,
        )
    )
    world.store.logs.append("c" * 12, HOSTILE.encode() + b"\n\xff\xfe\x00\n" + b"x" * 200_000 + b"\n")
    world.store.runners.add(Runner(name="evil", address=Address(host="h"), labels=(HOSTILE,), drained=HOSTILE))
    browser.sign_in()

    for page in ("/", "/runs", "/runs/hostile", "/runs/hostile/log", "/runners", "/runners/evil", "/events"):
        status, text = browser.ask(page)
        assert status == 200
        assert "<img src=x" not in text, page
        assert "\u202e" not in text, page
        assert "\x1b" not in text, page
    assert "&lt;img src=x onerror=alert(1)&gt;" in browser.ask("/runs/hostile")[1]


def test_the_headers_keep_a_page_apart(browser: Browser) -> None:
    browser.sign_in().ask("/")

    policy = browser.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert browser.headers["cache-control"] == "no-store"
    assert browser.headers["x-content-type-options"] == "nosniff"


def test_a_static_file_is_kept_for_as_long_as_it_is_the_same(browser: Browser) -> None:
    asset = html.assets()["app.css"]

    assert browser.ask(f"/static/{asset.hash}/app.css")[0] == 200
    assert "immutable" in browser.headers["cache-control"]
    assert browser.ask(f"/static/{asset.hash}/other.css")[0] == 404
    assert browser.ask("/static/0/app.css")[0] == 404


def test_every_link_is_below_the_base_path(tmp_path: Path) -> None:
    world = World(tmp_path, "/lab")
    browser = Browser(world)
    assert browser.ask("/lab/") == (303, "/lab/login")
    assert browser.ask("/lab/login", {"token": TOKEN}) == (303, "/lab/")
    assert "Path=/lab" in browser.headers["set-cookie"]

    for page in PAGES[:12] + PAGES[-2:]:
        status, text = browser.ask(f"/lab{page}")
        assert status == 200
        targets = re.findall(r'(?:href|src|action)="(/[^"]*)"', text)
        assert targets
        assert [target for target in targets if not target.startswith("/lab/")] == []
    world.store.close()


def test_a_list_goes_on_where_the_page_before_ended(browser: Browser, world: World) -> None:
    for number in range(120):
        world.store.runs.add(run(f"run-{number:03}"))
        world.store.jobs.add(job(f"{number:012x}", f"run-{number:03}"))
    browser.sign_in()
    seen: list[str] = []
    path = "/runs?q=run-"
    while path:
        text = browser.ask(path)[1].replace("&amp;", "&")
        seen += re.findall(r'aria-label="Choose (run-\d+)"', text)
        found = re.search(r'rel="next" href="([^"]+)"', text)
        path = found[1] if found else ""

    assert seen == [f"run-{number:03}" for number in reversed(range(120))]
    assert "120 runs" in browser.ask("/runs?q=run-")[1]
    assert "No run fits" in browser.ask("/runs?status=lost")[1]


def test_runs_are_compared_by_metrics(browser: Browser, world: World) -> None:
    for number, losses in enumerate(([3.0, 1.5, 2.0], [3.0, 2.5, math.nan])):
        world.store.runs.add(run(f"run-{number}"))
        each = job(f"{number:012x}", f"run-{number}")
        world.store.jobs.add(each)
        made = Series()
        for loss in losses:
            made.add(None, 0.0, loss)
        world.store.metrics.save(each, ReaderState(position=0), {"loss": made})
    browser.sign_in()

    page = browser.ask("/compare?runs=run-0,run-1")[1]
    assert re.findall(r"<td>([^<]*)( <b[^>]*>best</b>)?</td>", page)[-2:] == [
        ("1.5", ' <b class="s-done">best</b>'),
        ("2.5", ""),
    ]
    (chart,) = json.loads(browser.ask("/compare/curves?runs=run-0,run-1")[1])
    assert [line["y"] for line in chart["lines"]] == [[3.0, 1.5, 2.0], [3.0, 2.5, None]]
    assert 'class="var">2</td>' in browser.ask("/runs")[1]


def test_hours_are_those_of_the_chosen_time(browser: Browser, world: World) -> None:
    now = time.time()
    ended = {"status": Status.DONE, "exit_code": 0, "runner": "lab1", "gpus": (0, 1)}
    times = {"started_at": rfc3339(now - 3 * 3600), "finished_at": rfc3339(now - 3600)}
    world.store.runs.add(run("done"))
    world.store.jobs.add(job("d" * 12, "done", **ended, **times))
    browser.sign_in()

    hours = {
        since: re.findall(r'class="num">([\d.,]+)</td>', browser.ask(f"/usage?by=user&since={since}")[1])[0]
        for since in ("7d", "2h", "30m")
    }

    assert hours == {"7d": "4.0", "2h": "2.0", "30m": "0.0"}


def test_a_sweep_is_shown_with_its_best_trial_first(browser: Browser, world: World) -> None:
    demo.sweep(world, time.time() - 3600)
    browser.sign_in()

    page = browser.ask("/sweeps/lr")[1]

    ranked = re.findall(r'class="name" href="/runs/(lr-\d)"', page)[1:]
    assert ranked == ["lr-3", "lr-4", "lr-2", "lr-5", "lr-1", "lr-6"]
    assert page.count('<circle class="best"') == 2
    assert page.count('<circle class="point"') == 10
    assert browser.ask("/sweeps/none")[0] == 404
    assert "lr</a>" in browser.ask("/sweeps")[1]
