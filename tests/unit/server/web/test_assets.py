"""What browsers get beside the pages: small, and what others wrote is exactly what they published."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from dstack.server.web import html

WEB = Path(__file__).parents[4] / "templates" / "web"
MOST = 150_000


def test_vendored_files_are_as_they_were_published() -> None:
    listed = dict(reversed(line.split("  ")) for line in (WEB / "vendor" / "SHA256SUMS").read_text().splitlines())
    there = {path.name for path in (WEB / "vendor").iterdir()} - {"SHA256SUMS"}

    assert listed.keys() == there
    for name, digest in listed.items():
        assert sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == digest, name
    assert "MIT License" in (WEB / "vendor" / "uPlot.LICENSE").read_text()


def test_all_of_it_is_small() -> None:
    assert sum(len(asset.body) for asset in html.assets().values()) < MOST
    served = {WEB / path for path, _ in html.ASSETS.values()}
    assert served >= set((WEB / "static").iterdir())


def test_no_template_has_a_style_or_a_script_that_the_policy_forbids() -> None:
    for path in WEB.rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:", text), path
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path
        assert "| safe" not in text, f"{path}: every value is escaped"
