"""Takes the pictures in docs/web.md: python scripts/lib/pictures.py FOLDER [all]. With `all`, it takes every page at
each width, light and dark."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.browser.test_pages import PAGES, RUNNING, sign_in
from tests.environment.browser import Visitor, chromium, visiting
from tests.unit.server.web import demo
from tests.unit.server.web.served import Served, served

DOCS = {"now": "/", "run": f"/runs/{RUNNING}"}
SIZE = {"width": 1100, "height": 540}
WIDTHS = (390, 1280, 2560)


def take(visitor: Visitor, web: Served, path: str, file: Path, *, whole: bool) -> None:
    """Save a picture of a page once its times and charts are shown."""
    visitor.page.goto(web.url + path)
    if visitor.page.locator("[data-usage]").count():
        visitor.page.locator("canvas").last.wait_for()
    visitor.page.screenshot(path=file, full_page=whole, animations="disabled")


def main(folder: Path, *, everything: bool) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, served(Path(home)) as web, chromium() as browser:
        web.do(demo.fill)
        shapes = [(width, theme) for width in WIDTHS for theme in ("light", "dark")] if everything else [(0, "light")]
        for width, theme in shapes:
            size = {"width": width, "height": 900} if width else SIZE
            with visiting(browser, viewport=size, color_scheme=theme) as visitor:
                sign_in(visitor, web)
                for name, path in (PAGES if everything else DOCS).items():
                    file = folder / (f"{name}-{width}-{theme}.png" if everything else f"{name}.png")
                    take(visitor, web, path, file, whole=everything)


if __name__ == "__main__":
    main(Path(sys.argv[1]), everything=sys.argv[2:] == ["all"])
