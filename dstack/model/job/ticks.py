"""Triggers and their ticks, as recorded. What users see is in `model/api/`."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from dstack.model.code.snapshot import Snapshot
from dstack.model.project.workflow import Trigger, Variables, Workflow


class Remote(Struct, frozen=True, kw_only=True):
    """Where a trigger's code comes from. `key` is a file with a private SSH key on the server's machine, `token` the
    name of a secret for https. `trusted`: git may use everything that the server's user can log in with."""

    url: str
    key: str | None = None
    token: str | None = None
    trusted: bool = False


class Template(Struct, frozen=True, kw_only=True):
    """The code and the definitions that a trigger with `code: snapshot` submits."""

    snapshot: Snapshot
    workflows: tuple[Workflow, ...]
    variables: dict[str, Variables]


class Why(Struct, frozen=True):
    """Why something did not run: a code for programs and a text for people."""

    code: str
    text: str


class TriggerRecord(Struct, frozen=True, kw_only=True):
    """A trigger of `owner`, whose runs are theirs.

    `uid` keeps it apart from others that had its name. `source` is the file that it was applied from, None if it was
    added by hand. `repo` names the mirror; `project` is the folder in the repository that holds `.dstack`. `position`
    is the scheduled time (seconds since the epoch) up to which everything is decided. `seen` is the last commit of its
    branch that was decided about. `failures` counts those in a row. `paused` says why it starts nothing, `trouble` why
    the remote can't be asked.
    """

    name: str
    uid: str
    owner: str
    definition: Trigger
    timezone: str
    repo: str
    project: str = ""
    object_format: str = "sha1"
    remote: Remote | None = None
    template: Template | None = None
    source: str | None = None
    applied_at: str
    position: float
    seen: str | None = None
    failures: int = 0
    paused: Why | None = None
    trouble: Why | None = None


class TickState(str, Enum):
    """What has become of a tick. The first three are open."""

    DUE = "due"
    WAITING = "waiting"
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    FAILED = "failed"
    ENDED = "ended"


class Tick(Struct, frozen=True, kw_only=True):
    """One time at which a trigger did, or should have done, something. `key` is unique for the trigger: the scheduled
    time, the pushed commit, or a name made by hand. `made_up`: the server was down at its time. `before` is the commit
    before a push. `result` is the status of the run that ended."""

    trigger: str
    key: str
    at: str
    state: TickState = TickState.DUE
    made_up: bool = False
    commit: str | None = None
    before: str | None = None
    run: str | None = None
    result: str | None = None
    why: Why | None = None
