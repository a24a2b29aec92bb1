"""Renders the templates of the web page. Every value is text: it is escaped, and what could change how it reads is
made visible. Only this module knows Jinja's environment for HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from dstack.model.text.units import memory_words, size_words, span_words, took_words
from dstack.model.text.untrusted import clean
from dstack.server.web import words

FOLDERS = (Path(__file__).parents[2] / "templates" / "web", Path(__file__).parents[3] / "templates" / "web")
"""The templates' folders: in the wheel, and in a checkout."""
ASSETS = {
    "app.js": ("static/app.js", "text/javascript"),
    "app.css": ("static/app.css", "text/css"),
    "icon.svg": ("static/icon.svg", "image/svg+xml"),
    "uplot.js": ("vendor/uPlot.iife.min.js", "text/javascript"),
    "uplot.css": ("vendor/uPlot.min.css", "text/css"),
}
LIVE = "live_"
"""How the names of blocks begin that are sent again while the page is open."""
LONGEST = 20_000
"""Characters of one value on a page."""


@dataclass(frozen=True)
class Asset:
    """A file that pages refer to by a name with its hash, so that browsers keep it for as long as it is the same."""

    body: bytes
    media_type: str
    hash: str


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """Return the static files by name."""
    found = {}
    for name, (path, media_type) in ASSETS.items():
        body = next(folder / path for folder in FOLDERS if (folder / path).exists()).read_bytes()
        found[name] = Asset(body, media_type, sha256(body).hexdigest()[:12])
    return found


def page(template: str, values: Mapping[str, Any]) -> str:
    """Render `templates/web/<template>.html`."""
    return environment().get_template(f"{template}.html").render(values)


def live_parts(template: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Render the blocks of a page that are sent again while it is open, by name."""
    found: Template = environment().get_template(f"{template}.html")
    context = found.new_context(dict(values))
    return {name: "".join(block(context)).strip() for name, block in found.blocks.items() if name.startswith(LIVE)}


def visible(value: Any) -> Any:
    """Return a value fit for a page: a text without control characters and what changes the direction of text."""
    return clean(value, LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value


def query(**values: Any) -> str:
    """Return the query of a URL with the values that are set, with its question mark; "" for none."""
    given = [(name, value) for name, value in values.items() if value not in (None, "", False)]
    return f"?{urlencode(given, doseq=True, errors='surrogateescape')}" if given else ""


def part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="", errors="surrogateescape")


@lru_cache(maxsize=1)
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDERS),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"asset": lambda name: f"/static/{assets()[name].hash}/{name}", "query": query, "words": words}
    made.filters |= {
        "size": size_words,
        "memory": memory_words,
        "took": took_words,
        "span": span_words,
        "part": part,
        "moment": words.moment,
        "told": words.told,
    }
    macros = made.get_template("parts/macros.html").module
    made.globals |= {name: macro for name, macro in vars(macros).items() if not name.startswith("_")}
    return made


def as_json(value: Any) -> str:
    """Return a value as JSON in ASCII, whatever its texts contain."""
    return json.dumps(value)
