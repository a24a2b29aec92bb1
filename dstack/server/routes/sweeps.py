"""Sweeps: submit, show, follow, stop, go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.engine.engine import Engine
from dstack.engine.sweeps.sweeps import SweepDrives
from dstack.model.api.sweeps import ResumeRequest, SweepSubmission, SweepSummary, SweepView
from dstack.model.sweep.sweep import Sweep
from dstack.server.border.values import Limit
from dstack.server.roles import require_own
from dstack.server.submit import accountable, checked, read, require_space
from dstack.server.sweeps.follow import SweepFollower
from dstack.server.sweeps.views import SweepViews
from dstack.store.lookup import sweep_named


@dataclass
class SweepRoutes:
    engine: Engine
    drives: SweepDrives
    views: SweepViews = field(init=False)

    def __post_init__(self) -> None:
        self.views = SweepViews(self.engine.context)

    async def submit(self, request: Request) -> SweepView:
        folder = self.engine.context.layout.incoming
        require_space(folder, int(request.headers.get("content-length") or 0))
        with NamedTemporaryFile(dir=folder, suffix=".pack") as pack:
            wish = await read(request.stream(), pack, SweepSubmission, sound_sweep)
            submission = accountable(wish.submission, self.engine.store)
            given = None if submission.from_run else Path(pack.name)
            return self.views.sweep(await self.drives.submit(wish.settings, submission, given))

    def sweeps(self, limit: Limit = 20) -> list[SweepSummary]:
        return [self.views.summary(sweep) for sweep in self.engine.store.sweeps.newest(limit)]

    def sweep(self, ref: str) -> SweepView:
        return self.views.sweep(sweep_named(self.engine.store, ref))

    def follow(self, ref: str) -> Response:
        follower = SweepFollower(self.views, sweep_named(self.engine.store, ref).name)
        return StreamingResponse(follower.frames(), media_type="application/octet-stream")

    def stop(self, ref: str) -> SweepView:
        return self.views.sweep(self.drives.stop(self.own(ref)))

    async def resume(self, ref: str, wish: ResumeRequest) -> SweepView:
        return self.views.sweep(await self.drives.resume(self.own(ref), wish.max_runs))

    async def retry_failed(self, ref: str) -> SweepView:
        return self.views.sweep(await self.drives.retry_failed(self.own(ref)))

    def own(self, ref: str) -> Sweep:
        """Return a sweep that the caller may change. Raises ForbiddenError for any other."""
        sweep = sweep_named(self.engine.store, ref)
        require_own(sweep)
        return sweep


def sound_sweep(wish: SweepSubmission) -> SweepSubmission:
    """Return a sweep whose submission is sound. Raises ValueError for what no `dstack sweep` would send."""
    submission = replace(checked(wish.submission), dry_run=False, singleton=False, once=None, timeout=None)
    return replace(wish, submission=submission)
