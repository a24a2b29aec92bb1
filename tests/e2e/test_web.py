"""The web page of a real server in a real browser: a run from its first line to its artifact, and `dstack ui`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import single
from tests.environment.browser import Visitor, chromium, visiting
from tests.environment.product import Home

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

GATE = """
i=0
until [ -e go ]; do printf '\\r%s waiting' $i; i=$((i+1)); sleep 0.1; done
printf '\\r\\033[32mlet through\\033[0m\\n'
mkdir -p made/deep
echo '<b>result</b>' > made/deep/result.txt
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as started:
        yield started


@pytest.fixture
def visitor(browser: object, runner: str, cli: Cli) -> Iterator[Visitor]:
    """Somebody who typed `dstack ui`."""
    with visiting(browser) as found:  # type: ignore[arg-type]
        found.page.goto(cli("ui", "--print").stdout.strip())
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", found.page.url), "the link's code is in no URL afterwards"
        yield found


def submit(cli: Cli, project: Path, name: str) -> None:
    done = cli("run", "job", "-d", "--name", name, cwd=project)
    assert done.returncode == 0, done.stderr


def test_a_run_is_followed_to_its_end_and_its_artifact_downloaded(
    visitor: Visitor, cli: Cli, dstack_home: Home, tmp_path: Path, busybox: str
) -> None:
    submit(cli, single(tmp_path / "p", busybox, GATE, more="artifacts: [made]"), "gated")
    page = visitor.page
    page.get_by_role("link", name="gated").first.click()
    page.locator("[data-log]").get_by_text("waiting").wait_for()

    (job,) = json.loads(cli("runs", "gated", "--json").stdout)["jobs"]
    (folder,) = Path("/tmp").glob(f"ds-*/home/.dstack-host/*/*/jobs/{job['id']}/workflow")
    (folder / "go").touch()

    page.locator("[data-log]").get_by_text("let through").wait_for()
    page.locator("h1").get_by_text("done").wait_for(timeout=60_000)
    assert page.locator("[data-log]").get_by_text("waiting").count() == 0, "a progress line is overwritten"
    page.get_by_role("link", name="Artifacts").click()
    page.get_by_role("link", name="made/").click()
    page.get_by_role("link", name="deep/").click()
    page.get_by_role("link", name="result.txt", exact=True).click()
    assert page.locator("pre.text").inner_text() == "<b>result</b>\n"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download result.txt").click()
    assert download.value.suggested_filename == "result.txt"
    assert download.value.path().read_text() == "<b>result</b>\n"
    assert visitor.violations() == []
    assert visitor.errors == []


def test_a_run_is_stopped_and_its_machine_drained(visitor: Visitor, cli: Cli, tmp_path: Path, busybox: str) -> None:
    project = single(tmp_path / "p", busybox, "sleep 600", more="stop-grace: 0s")
    submit(cli, project, "endless")
    page = visitor.page
    page.get_by_role("link", name="endless").first.click()
    page.locator("h1").get_by_text("running").wait_for(timeout=60_000)

    page.get_by_role("button", name="Stop").click()
    page.get_by_role("heading", name="Stop 1 run?").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("h1").get_by_text("stopped").wait_for(timeout=60_000)

    page.get_by_role("link", name="Runners").click()
    page.get_by_role("link", name="box").click()
    page.get_by_label("Reason").fill("moves to the other room")
    page.get_by_role("button", name="Drain").click()
    page.get_by_text("Drained: it gets no new jobs. moves to the other room").wait_for()
    submit(cli, project, "waiting")
    page.get_by_role("link", name="Now").click()
    page.locator("#live_queue").get_by_text("moves to the other room").wait_for()
    events = cli("events", "--runner", "box").stdout
    assert "moves to the other room" in events
