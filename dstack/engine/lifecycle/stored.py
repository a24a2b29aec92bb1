"""How a job ended of which only the stored artifacts or the log are left: the record that was restored is older."""

from __future__ import annotations

import time
from typing import Any

from dstack.model.job.job import ExitCode
from dstack.model.job.manifest import Manifest
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339

CODES = {
    Status.FAILED: ReasonCode.EXIT_CODE,
    Status.STOPPED: ReasonCode.STOPPED_BY_USER,
    Status.LOST: ReasonCode.LOST_REMOVED,
}


def ended_as(stored: Manifest) -> dict[str, Any]:
    """Return what to record for a job with these artifacts, which are complete."""
    end = Status(stored.status)
    code = 0 if end is Status.DONE else stored.exit_code if stored.exit_code is not None else ExitCode.DSTACK
    text = f"it had ended as {end.value} with exit code {code}; only its stored artifacts still say so"
    return {
        "status": end,
        "exit_code": code,
        "reason": None if end is Status.DONE else Reason(CODES[end], text),
        "finished_at": rfc3339(time.time()),
        "progress": None,
        "unreachable_since": None,
        "files": len(stored.files),
        "bytes": stored.bytes,
    }


NOBODY_KNOWS = Reason(
    ReasonCode.LOST_REMOVED,
    "it went on after the restored state was saved; no runner has anything of it, so nobody knows how it ended",
)


def ended_unknown() -> dict[str, Any]:
    """Return what to record for a job that went on unrecorded, and of which no runner has anything."""
    return {
        "status": Status.LOST,
        "exit_code": ExitCode.DSTACK,
        "reason": NOBODY_KNOWS,
        "finished_at": rfc3339(time.time()),
        "progress": None,
    }
