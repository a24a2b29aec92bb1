"""Formats what pages show without a browser's help: in UTC, because the server does not know the reader's zone."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from dstack.model.api.runs import RunView
from dstack.model.job.status import Status
from dstack.model.text.units import memory_words, seconds, took_words
from dstack.model.text.untrusted import clean

MOMENT = re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z\b")
"""A time as the server writes it into a reason."""
SHAPES = {
    "queued": "M6 1.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9Zm0 1.4a3.1 3.1 0 1 1 0 6.2 3.1 3.1 0 0 1 0-6.2Z",
    "preparing": "M6 1.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9Zm0 1.4v6.2a3.1 3.1 0 0 1 0-6.2Z",
    "running": "M2.5 1.2 10.8 6l-8.3 4.8Z",
    "uploading": "M6 1 10.3 5.6H7.2V11H4.8V5.6H1.7Z",
    "done": "M4.6 10.1.9 6.4l1.4-1.4 2.3 2.3 5.1-5.2 1.4 1.4Z",
    "failed": "M2.6 1.2 6 4.6l3.4-3.4 1.4 1.4L7.4 6l3.4 3.4-1.4 1.4L6 7.4l-3.4 3.4-1.4-1.4L4.6 6 1.2 2.6Z",
    "stopped": "M2 2h8v8H2Z",
    "lost": "M6 .8 11.4 10.8H.6Zm-.7 3.6v3h1.4v-3Zm0 3.9v1.4h1.4V8.3Z",
    "ready": "M6 1.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9Z",
    "drained": "M2 1.8h3v8.4H2Zm5 0h3v8.4H7Z",
    "unreachable": "M1 5h10v2H1Z",
    "unusable": "M6 .8 11.4 10.8H.6Zm-.7 3.6v3h1.4v-3Zm0 3.9v1.4h1.4V8.3Z",
}
"""The shape of each state, in a square of 12 by 12: told apart without colour."""


MEASURES = {"cpu": "CPUs", "memory": "Memory", "gpu": "GPU", "gpu_memory": "GPU memory"}


def state(name: str | Status) -> Markup:
    """Return a state as its shape and its word."""
    word = name.value if isinstance(name, Status) else name
    return Markup('<span class="state s-{}">{}{}</span>').format(word, drawn(word), word)


def shape(status: Status) -> Markup:
    """Return a status as its shape, and its word for those who can't see it."""
    return Markup('<span class="state s-{}">{}<span class="vh">{}</span></span>').format(
        status.value, drawn(status.value), status.value
    )


def drawn(word: str) -> Markup:
    return Markup('<svg viewBox="0 0 12 12" aria-hidden="true"><path fill-rule="evenodd" d="{}"/></svg>').format(
        SHAPES[word]
    )


def measure(name: str, value: float) -> str:
    """Format a value of what a job used."""
    if name in ("memory", "gpu_memory"):
        return memory_words(value)
    return f"{value:.0f} %" if name == "gpu" else f"{value:.2f}"


def started(view: RunView) -> str | None:
    """Return when the first job of a run started."""
    return min((job.started_at for job in view.jobs if job.started_at and not job.cached), default=None)


def machines(view: RunView) -> list[str]:
    """Return the runners of a run's jobs, without repetition."""
    return list(dict.fromkeys(job.runner for job in view.jobs if job.runner and not job.cached))


def moment(text: str | None) -> Markup:
    """Return a time as an element that the page shows in the reader's zone, and as an age."""
    if not text:
        return Markup("")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(text, text[:19].replace("T", " "), brief(text))


def told(text: str | None) -> Markup:
    """Return a reason, with the moments in it as elements that the page shows in the reader's zone."""
    shown = clean(text or "")
    parts, at = [], 0
    for found in MOMENT.finditer(shown):
        parts += [escape(shown[at : found.start()]), exact(found[0])]
        at = found.end()
    return Markup("").join([*parts, escape(shown[at:])])


def exact(text: str) -> Markup:
    """Return a time as an element that is shown to the second."""
    return Markup('<time class="exact" datetime="{}">{} UTC</time>').format(text, text[:19].replace("T", " "))


def brief(text: str) -> str:
    """Return a time in UTC: with its date, and without seconds."""
    return f"{text[5:10]} {text[11:16]}"


def took(begin: str | None, end: str | None) -> Markup:
    """Return how long something took, or that it is still going on since `begin`, which the page counts."""
    if begin is None:
        return Markup("")
    if end is None:
        return Markup('<time class="since" datetime="{}">since {}</time>').format(begin, brief(begin))
    return escape(took_words(seconds(end) - seconds(begin)))


def elapsed(begin: str | None, end: str | None) -> float:
    """Return the seconds from one time to another, or to now; 0 for what has not begun."""
    if begin is None:
        return 0.0
    return max(0.0, (seconds(end) if end else time.time()) - seconds(begin))


def count(number: int, noun: str) -> str:
    """Format a number of things: `1 file`, `2,345 files`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def event(data: Mapping[str, Any]) -> str:
    """Say what an event's data adds to its kind."""
    shown = {name: value for name, value in data.items() if name not in ("workflow", "reason_code", "phase")}
    if shown.get("attempt") == 1:
        del shown["attempt"]
    reason = shown.pop("reason", None)
    parts = [f"{name.replace('_', ' ')} {plain(value)}" for name, value in shown.items() if value is not None]
    return "; ".join([*([str(reason)] if reason else []), *parts])


def plain(value: Any) -> str:
    """Format a value of an event."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {plain(each)}" for name, each in value.items() if each is not None)
    return str(value)
