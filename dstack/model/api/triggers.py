"""Triggers, in the API and in `--json`."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.code.snapshot import Snapshot
from dstack.model.project.workflow import Trigger, Variables, Workflow


class ApplyTriggers(Struct, kw_only=True):
    """The body of `POST /triggers`: this as one line of JSON, then a git pack if there is a `snapshot`.

    The triggers replace all that came from `source`, the file that they are in; without a source, they are added by
    hand. `url` is that of the remote, `key` a file on the server's machine, `token` the name of a secret. For triggers
    with `code: snapshot`, `workflows` has the named ones and all that they depend on, and `variables` theirs, both by
    trigger. With `dry_run`, only the difference is returned.
    """

    triggers: tuple[Trigger, ...]
    user: str
    repo: str
    source: str | None = None
    project: str = ""
    object_format: str = "sha1"
    url: str | None = None
    key: str | None = None
    token: str | None = None
    snapshot: Snapshot | None = None
    workflows: dict[str, tuple[Workflow, ...]] = {}
    variables: dict[str, dict[str, Variables]] = {}
    dry_run: bool = False


class TriggerChange(Struct, kw_only=True):
    """What applying does with a trigger: `do` is add, change, keep or remove. `differences` are for people."""

    name: str
    do: str
    differences: list[str] = []


class TickView(Struct, kw_only=True):
    """What happened at one time. `result` is due, waiting, skipped or failed, or else the status of the run."""

    at: str
    result: str
    run: str | None
    commit: str | None
    why: str | None
    why_code: str | None


class TriggerView(Struct, kw_only=True):
    """A trigger as users see it. `state` is active or paused; `reason` says why it is paused, or why its remote can't
    be asked. `next` is the next scheduled time. `failures` counts those in a row."""

    name: str
    workflow: str
    state: str
    reason: str | None
    reason_code: str | None
    owner: str
    cron: str | None
    timezone: str | None
    next: str | None
    push: str | None
    code: str
    overlap: str
    missed: str
    deadline: str | None
    max_failures: int | None
    failures: int
    variables: dict[str, str]
    source: str | None
    url: str | None
    applied_at: str
    last: TickView | None
    ticks: list[TickView] = []


class HookAnswer(Struct, kw_only=True):
    """The response of `POST /hooks/NAME`: whether a run follows, and why not."""

    accepted: bool
    why: str | None = None
