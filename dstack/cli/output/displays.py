"""Displays of a follow stream: what all have in common, JSON lines, and a JSON array of logs."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from dstack.cli.output import show
from dstack.model.api import wire
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event, RunView


class Display:
    """Shows frames. A method that a display leaves out shows nothing."""

    def job(self, job: JobView) -> None:
        """Show a job that changed."""

    def log(self, event: Event, data: bytes) -> None:
        """Show bytes of a log."""

    def finish(self, job: str, workflow: str) -> None:
        """Show what is left of the log of a job that ended."""

    def run(self, run: RunView) -> None:
        """Show the run, which has ended."""

    def close(self) -> None:
        """End what is shown, or interrupt it to ask the user."""


class JsonEvents(Display):
    """Prints frames. A character that is split between two frames is printed with the second."""

    def __init__(self) -> None:
        self._cut: dict[str, bytes] = {}

    def job(self, job: JobView) -> None:
        _write({"event": "job", **msgspec.to_builtins(job)})

    def run(self, run: RunView) -> None:
        """Print the run: when it is submitted, and as the last line."""
        _write({"event": "run", **msgspec.to_builtins(run)})

    def log(self, event: Event, data: bytes) -> None:
        job = event.id or ""
        held = self._cut.pop(job, b"")
        whole, cut = whole_characters(held + data)
        if cut:
            self._cut[job] = cut
        if whole:
            _write(_log(event, whole, (event.offset or 0) - len(held)))

    def finish(self, job: str, workflow: str) -> None:
        """Print what is left of the job's log, if it ends within a character."""
        if cut := self._cut.pop(job, b""):
            _write({"event": "log", "id": job, "workflow": workflow, **_data(cut)})


class JsonArray(Display):
    """Prints only log events, as one JSON array. Bytes are printed as they were stored."""

    def __init__(self) -> None:
        self._any = False

    def log(self, event: Event, data: bytes) -> None:
        show.out().write(b",\n" if self._any else b"[\n")
        show.out().write(msgspec.json.encode(_log(event, data, event.offset or 0)))
        self._any = True

    def close(self) -> None:
        show.write_json(b"\n]" if self._any else b"[]")


def whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """Split off a UTF-8 character that is incomplete at the end of the data."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return (data[:-back], data[-back:]) if back < length else (data, b"")
        if byte < 0x80:
            break
    return data, b""


def _log(event: Event, data: bytes, offset: int) -> dict[str, Any]:
    """A log event as it is printed, with `data`, or `data_base64` if it is not UTF-8."""
    head = {"event": "log", "id": event.id, "workflow": event.workflow, "offset": offset, "time": event.time}
    return {**head, **_data(data)}


def _data(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def _write(value: dict[str, Any]) -> None:
    show.write_json(wire.encode(value))
