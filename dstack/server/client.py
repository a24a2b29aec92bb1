"""What a server can be asked, a method a route."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from dstack.errors import DstackError, TryAgainError
from dstack.model import wire
from dstack.model.api.artifacts import ArtifactView, LinksRequest, LinksView, LinkView, TagRequest, TagView
from dstack.model.api.retention import (
    CacheFolder,
    DeleteRequest,
    Leftover,
    PruneCachesRequest,
    PruneRequest,
    PruneRestRequest,
    Removed,
)
from dstack.model.api.runners import AddRunner, Drain, RunnerView, ServerKey
from dstack.model.api.runs import HoldAnswer, HoldRequest, JobView, Plan, Recipe, RunView, StopRequest, Submission
from dstack.model.api.server import DeletedSecret, SecretView, ServerConfig, ServerStatus, SetSecret
from dstack.model.metrics import JobMetrics
from dstack.model.registration import RegistrationToken, RegistrationView
from dstack.server.connection import ANSWER_SECONDS, WORK_SECONDS, BrokenAnswerError, Connection
from dstack.server.frames import Frame, read_frames

SILENCE_SECONDS = 60.0
"""A follow stream that is silent for so long is broken: a living server sends pings."""
PATIENCE_SECONDS = 600.0
"""How long a broken follow stream is taken up again."""
BLOCK = 1 << 16


class Client(Connection):
    """What a server can be asked."""

    def status(self) -> ServerStatus:
        """The server's own state."""
        return self._get("/status", ServerStatus)

    def submit(self, submission: Submission, pack: Path | None = None) -> RunView | Plan:
        """Send a run, or ask what it would do (`dry_run`). Raises MissingBaseError for a pack that is too thin. A run
        that repeats another needs no pack."""
        head = wire.encode(submission) + b"\n"
        size = len(head) + (pack.stat().st_size if pack else 0)
        response = self._send("POST", "/runs", WORK_SECONDS, lambda: _blocks(head, pack), size)
        return self._decode(response, Plan) if submission.dry_run else self._decode(response, RunView)

    def runs(
        self, *, workflow: str | None = None, status: str | None = None, user: str | None = None, limit: int = 20
    ) -> list[RunView]:
        """Runs, newest first."""
        asked = {"workflow": workflow, "status": status, "user": user, "limit": str(limit)}
        return self._get("/runs", list[RunView], asked)

    def run(self, ref: str) -> RunView:
        """One run by its name or a unique prefix."""
        return self._get(f"/runs/{_part(ref)}", RunView)

    def diff(self, ref: str) -> Iterator[bytes]:
        """The patch from a run's commit to the code that it ran."""
        response = self._send("GET", f"/runs/{_part(ref)}/diff", WORK_SECONDS)
        with response:
            try:
                yield from iter(lambda: response.read1(BLOCK), b"")
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error

    def recipe(self, ref: str) -> Recipe:
        """What a run was made of."""
        return self._get(f"/runs/{_part(ref)}/recipe", Recipe)

    def jobs(self, *, run: str | None = None, limit: int = 20) -> list[JobView]:
        """Jobs, newest first."""
        return self._get("/jobs", list[JobView], {"run": run, "limit": str(limit)})

    def job(self, ref: str) -> JobView:
        """One job by its id or a unique prefix."""
        return self._get(f"/jobs/{_part(ref)}", JobView)

    def metrics(self, ref: str) -> list[JobMetrics]:
        """What the jobs of a run used over time."""
        return self._get(f"/metrics/{_part(ref)}", list[JobMetrics])

    def stop(self, request: StopRequest) -> list[RunView]:
        """Ask for the end of runs or jobs; it returns before they ended."""
        return self._post("/stop", list[RunView], request)

    def hold(self, request: HoldRequest) -> HoldAnswer:
        """Keep queued jobs from starting, or let them go."""
        return self._post("/hold", HoldAnswer, request)

    def secrets(self) -> list[SecretView]:
        """The names of the secrets."""
        return self._get("/secrets", list[SecretView])

    def set_secret(self, secret: SetSecret) -> SecretView:
        """Record a secret."""
        return self._post("/secrets", SecretView, secret)

    def delete_secret(self, name: str) -> DeletedSecret:
        """Forget a secret."""
        return self._post(f"/secrets/{_part(name)}", DeletedSecret, method="DELETE")

    def artifacts(self, ref: str) -> list[ArtifactView]:
        """What a run or job left."""
        return self._get(f"/artifacts/{_part(ref)}", list[ArtifactView])

    def artifact(self, job: str, path: str, offset: int) -> Iterator[bytes]:
        """The bytes of one file from `offset` on. A connection that breaks raises BrokenAnswerError."""
        asked = urlencode({"path": path.encode("utf-8", "surrogateescape"), "offset": offset})
        response = self._send("GET", f"/artifacts/{_part(job)}/file?{asked}", ANSWER_SECONDS)
        with response:
            try:
                yield from iter(lambda: response.read1(BLOCK), b"")
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error

    def artifact_url(self, job: str, path: str) -> LinkView:
        """Where anybody can read one file for a while."""
        asked = urlencode({"path": path.encode("utf-8", "surrogateescape")})
        return self._get(f"/artifacts/{_part(job)}/url?{asked}", LinkView)

    def artifact_urls(self, job: str, paths: Sequence[str]) -> LinksView:
        """Where a job's files can be read for a while, in their order; no URLs where the storage gives none."""
        return self._post(f"/artifacts/{_part(job)}/urls", LinksView, LinksRequest(paths=tuple(paths)))

    def tags(self) -> list[TagView]:
        """All tags by name."""
        return self._get("/tags", list[TagView])

    def tag(self, ref: str, name: str, *, force: bool = False) -> TagView:
        """Name a run or job. Raises ConflictError if another has the name, unless it is to lose it."""
        return self._post("/tags", TagView, TagRequest(ref=ref, name=name, force=force))

    def delete_tag(self, name: str) -> None:
        """Take a name away."""
        self._send("DELETE", f"/tags/{_part(name)}", ANSWER_SECONDS).close()

    def delete(self, refs: tuple[str, ...]) -> list[Removed]:
        """Remove runs. Raises ConflictError, and removes none, where one has to stay."""
        return self._post("/runs/delete", list[Removed], DeleteRequest(refs=refs))

    def prune(self, wish: PruneRequest) -> list[Removed]:
        """Remove the runs that a rule lets go."""
        return self._post("/prune", list[Removed], wish)

    def prune_rest(self, wish: PruneRestRequest) -> list[Leftover]:
        """Remove what no run needs that the rule keeps."""
        return self._post("/prune/rest", list[Leftover], wish)

    def prune_caches(self, wish: PruneCachesRequest) -> list[CacheFolder]:
        """Remove folders that workflows keep on runners."""
        return self._post("/prune/caches", list[CacheFolder], wish)

    def runners(self, *, fresh: float | None = None) -> list[RunnerView]:
        """Every machine. `fresh`: a look at a machine that is so many seconds old will do."""
        query = "" if fresh is None else f"?fresh={fresh:g}"
        return self._get(f"/runners{query}", list[RunnerView], seconds=WORK_SECONDS)

    def add_runner(self, runner: AddRunner) -> RunnerView:
        """Add a machine. Raises UnknownHostKeyError until its key's fingerprint is confirmed."""
        return self._post("/runners", RunnerView, runner)

    def check_runner(self, name: str) -> RunnerView:
        """Look at a machine now."""
        return self._post(f"/runners/{_part(name)}/check", RunnerView)

    def key(self) -> ServerKey:
        """The server's own key, for machines to let in."""
        return self._get("/key", ServerKey)

    def change_runner(self, name: str, runner: AddRunner) -> RunnerView:
        """Give a machine another definition."""
        return self._post(f"/runners/{_part(name)}", RunnerView, runner, method="PUT")

    def registrations(self) -> list[RegistrationView]:
        """The machines that offered themselves."""
        return self._get("/registrations", list[RegistrationView])

    def approve(self, name: str) -> RegistrationView:
        """Let such a machine be added."""
        return self._post(f"/registrations/{_part(name)}/approve", RegistrationView)

    def registration_token(self) -> RegistrationToken:
        """A token that registers one machine without approval."""
        return self._post("/registration-tokens", RegistrationToken)

    def drain_runner(self, name: str, reason: str) -> RunnerView:
        """Give a machine no new jobs."""
        return self._post(f"/runners/{_part(name)}/drain", RunnerView, Drain(reason=reason))

    def resume_runner(self, name: str) -> RunnerView:
        """Give it jobs again."""
        return self._post(f"/runners/{_part(name)}/resume", RunnerView)

    def remove_runner(self, name: str, *, force: bool = False) -> None:
        """Take a machine out, and everything of ours off it; with `force` also one that can't be cleaned."""
        self._send("DELETE", f"/runners/{_part(name)}?force={int(force)}", WORK_SECONDS).close()

    def config(self) -> ServerConfig:
        """The server's settings."""
        return self._get("/config", ServerConfig)

    def configure(self, config: ServerConfig) -> ServerConfig:
        """Change the server's settings."""
        return self._post("/config", ServerConfig, config)

    def shutdown(self) -> None:
        """Ask the server to end; containers go on."""
        self._send("POST", "/shutdown", ANSWER_SECONDS).close()

    def follow(
        self, ref: str, offsets: Mapping[str, int], *, follow: bool = True, logs: bool = True
    ) -> Iterator[Frame]:
        """The frames of a run or job: with `follow` until it ended, else what there is now.

        `offsets` (bytes by job id) is the caller's count of what it has consumed: a broken stream is opened again
        from there, so no byte is lost or given twice. `logs=False` leaves the logs out. Pings are swallowed.
        """
        wanted = ("log", "job", "run") if logs else ("job", "run")
        last, pause = time.monotonic(), 0.05
        while True:
            try:
                for frame in self._frames(ref, offsets, follow, logs):
                    last, pause = time.monotonic(), 0.05
                    fresh = frame.after(offsets) if frame.event.event in wanted else None
                    if fresh is not None:
                        yield fresh
                return
            except (TryAgainError, BrokenAnswerError) as error:
                if time.monotonic() - last > PATIENCE_SECONDS:
                    hint = f"what was submitted goes on; look again with `dstack wait {ref}`"
                    raise DstackError(f"the server is out of reach: {error.message}", hint=hint) from error
                if pause > 1:
                    self.say(f"{error.message}; trying again")
                time.sleep(pause)
                pause = min(pause * 2, 10.0)

    def _frames(self, ref: str, offsets: Mapping[str, int], follow: bool, logs: bool) -> Iterator[Frame]:
        begin = ",".join(f"{job}:{offset}" for job, offset in offsets.items())
        asked = urlencode({"follow": int(follow), "from": begin, "logs": int(logs)}, safe=":,")
        response = self._send("GET", f"/follow/{_part(ref)}?{asked}", SILENCE_SECONDS)
        with response:
            try:
                yield from read_frames(response)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error


def _blocks(head: bytes, pack: Path | None) -> Iterator[bytes]:
    yield head
    if pack is None:
        return
    with pack.open("rb") as file:
        while block := file.read(BLOCK * 4):
            yield block


def _part(text: str) -> str:
    return quote(text, safe="")
