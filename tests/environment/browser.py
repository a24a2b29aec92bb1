"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.environment import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
    window.violations.push(event.violatedDirective + " " + event.blockedURI);
});
"""
"""Collects what the pages' policy forbids, from their first moment on."""


@dataclass
class Visitor:
    """One person's browser. `requests` are the origins that it asked, `errors` what its console said."""

    page: Page
    requests: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(VIOLATIONS)
        self.page.on("request", lambda request: self.requests.add(origin(request.url)))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def violations(self) -> list[str]:
        """Return what the page's policy forbade on the page that is shown."""
        found: list[str] = self.page.evaluate("window.violations")
        return found


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else parts.scheme


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser without any state."""
    program = shutil.which("chromium")
    if program is None:
        needs.missing("chromium is not installed; install it: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        needs.missing("playwright is not installed; install it: pip install -e '.[dev]'")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visitor]:
    """Open a tab of a new visitor. `options` are Playwright's for a context."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(30_000)
    try:
        yield Visitor(context.new_page())
    finally:
        context.close()
