"""What the forms of the web page change. Each does what the API's route does, with the same rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from starlette.requests import Request

from dstack.errors import UsageError
from dstack.model.api.artifacts import TagRequest
from dstack.model.api.jobs import HoldRequest, StopRequest
from dstack.model.api.retention import DeleteRequest
from dstack.model.api.runners import Drain
from dstack.server.roles import require_own
from dstack.server.routes.artifacts import ArtifactRoutes
from dstack.server.routes.jobs import JobRoutes
from dstack.server.routes.runs import RunRoutes
from dstack.server.runners.runner_service import RunnerService
from dstack.server.web import html
from dstack.store.lookup import run_named
from dstack.store.tables.events import current_actor

ASKED = ("stop", "abort", "delete")
"""What is done only when the reader has confirmed it."""


class ActForm(Struct, kw_only=True):
    """What to do with the chosen runs. `back` is the run whose page it was sent from; `sure`: it was asked about."""

    act: str
    run: tuple[str, ...] = ()
    back: str = ""
    sure: bool = False
    form_key: str = ""


class TagForm(Struct, kw_only=True):
    """A tag to set, or to delete; `force` takes it from the run that has it."""

    run: str
    name: str
    force: bool = False
    form_key: str = ""


class RunnerForm(Struct, kw_only=True):
    """A runner to check, drain or resume."""

    runner: str
    reason: str = "by hand"
    form_key: str = ""


@dataclass
class Actions:
    runs: RunRoutes
    jobs: JobRoutes
    artifacts: ArtifactRoutes
    runners: RunnerService

    async def act(self, form: ActForm) -> str:
        """Stop, abort, hold, release, delete or compare runs. What can't be undone is asked about first."""
        if not form.run:
            raise UsageError("no run was chosen, so nothing was done", hint="go back, and tick the runs first")
        if form.act == "compare":
            return f"/compare?runs={','.join(map(html.part, form.run))}"
        if form.act in ASKED and not form.sure:
            return f"/confirm{html.query(act=form.act, run=form.run, back=form.back)}"
        if form.act == "delete":
            await self.runs.delete(DeleteRequest(refs=form.run))
            return "/runs"
        if form.act in ("stop", "abort"):
            self.jobs.stop(StopRequest(refs=form.run, abort=form.act == "abort"))
        elif form.act in ("hold", "release"):
            holder = current_actor() if form.act == "hold" else None
            self.jobs.hold(HoldRequest(refs=form.run, user=holder))
        else:
            raise UsageError(f"'{form.act}' is nothing that can be done with runs")
        return f"/runs/{html.part(form.back)}" if form.back else "/runs"

    def confirm(self, request: Request, act: str, back: str = "") -> dict[str, Any]:
        """Return what would be stopped or deleted, and what of it is refused."""
        names = dict.fromkeys(request.query_params.getlist("run"))
        if act not in ASKED or not names:
            raise UsageError("there is nothing to confirm", hint="go back, and choose runs and what to do with them")
        found = [run_named(self.runs.engine.store, name) for name in names]
        for run in found:
            require_own(run)
        kept = [self.runs.retention.kept(run) if act == "delete" else None for run in found]
        removed = self.runs.retention.told(found) if act == "delete" else []
        return {
            "act": act,
            "back": back,
            "runs": list(zip(found, kept, strict=True)),
            "bytes": sum(each.bytes for each in removed),
            "refused": [why for why in kept if why],
        }

    def tag(self, form: TagForm) -> str:
        self.artifacts.tag(TagRequest(ref=form.run, name=form.name, force=form.force))
        return f"/runs/{html.part(form.run)}"

    def untag(self, form: TagForm) -> str:
        self.artifacts.delete_tag(form.name)
        return f"/runs/{html.part(form.run)}"

    async def check(self, form: RunnerForm) -> str:
        await self.runners.check(form.runner)
        return f"/runners/{html.part(form.runner)}"

    def drain(self, form: RunnerForm) -> str:
        self.runners.drain(form.runner, Drain(reason=form.reason))
        return f"/runners/{html.part(form.runner)}"

    def resume(self, form: RunnerForm) -> str:
        self.runners.resume(form.runner)
        return f"/runners/{html.part(form.runner)}"
