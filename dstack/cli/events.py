"""A follow stream as lines of JSON: each an object with `event`, the run's own last."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from dstack.cli import show
from dstack.model import wire
from dstack.model.api.runs import Event, JobView, RunView


class JsonEvents:
    """Prints frames. Characters that a frame cuts in two are held back for the next one."""

    def __init__(self) -> None:
        self._cut: dict[str, bytes] = {}

    def job(self, job: JobView) -> None:
        """A job changed."""
        _write({"event": "job", **msgspec.to_builtins(job)})

    def run(self, run: RunView) -> None:
        """The run: as it was submitted, and as the last line of all."""
        _write({"event": "run", **msgspec.to_builtins(run)})

    def log(self, event: Event, data: bytes) -> None:
        """Bytes of a log."""
        job = event.id or ""
        held = self._cut.pop(job, b"")
        whole, cut = whole_characters(held + data)
        if cut:
            self._cut[job] = cut
        if whole:
            _write(log_object(event, whole, (event.offset or 0) - len(held)))

    def finish(self, job: str, workflow: str) -> None:
        """The job's log ends here, perhaps within a character."""
        if cut := self._cut.pop(job, b""):
            _write({"event": "log", "id": job, "workflow": workflow, **_data(cut)})


def log_object(event: Event, data: bytes, offset: int) -> dict[str, Any]:
    """A log event as it is printed: `data`, or `data_base64` for what is not UTF-8."""
    head = {"event": "log", "id": event.id, "workflow": event.workflow, "offset": offset, "time": event.time}
    return {**head, **_data(data)}


def whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """The data without a UTF-8 character that has only begun at its end, and that beginning."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return (data[:-back], data[-back:]) if back < length else (data, b"")
        if byte < 0x80:
            break
    return data, b""


def _data(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def _write(value: dict[str, Any]) -> None:
    show.write_json(wire.encode(value))
