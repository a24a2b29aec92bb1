"""The HTTP client of a server, with one method per route."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from dstack.client.connection import ANSWER_SECONDS, WORK_SECONDS, BrokenAnswerError, Connection
from dstack.client.frames import Frame, read_frames
from dstack.errors import DstackError, NotFoundError, TryAgainError
from dstack.model.api import wire
from dstack.model.api.artifacts import ArtifactView, FolderView, LinksRequest, LinksView, LinkView, TagRequest, TagView
from dstack.model.api.events import EventQuery, EventView
from dstack.model.api.jobs import HoldAnswer, HoldRequest, JobView, StopRequest
from dstack.model.api.retention import (
    CacheFolder,
    DeleteRequest,
    Leftover,
    PruneCachesRequest,
    PruneRequest,
    PruneRestRequest,
    Removed,
)
from dstack.model.api.runners import AddRunner, Clean, Drain, RunnerRemoved, RunnerView, ServerKey
from dstack.model.api.runs import Plan, Recipe, RunView, Submission
from dstack.model.api.server import ChangeIdentity, DeletedSecret, SecretView, ServerConfig, ServerStatus, SetSecret
from dstack.model.api.tokens import CreatedToken, NewToken, TokenView
from dstack.model.runner.metrics import JobMetrics
from dstack.model.runner.registration import RegistrationToken, RegistrationView

SILENCE_SECONDS = 60.0
"""Seconds without a byte after which a follow stream counts as broken. A live server sends pings."""
PATIENCE_SECONDS = 600.0
"""How long to keep reconnecting a broken follow stream."""
BLOCK = 1 << 16


class Client(Connection):
    """A client of one server."""

    def status(self) -> ServerStatus:
        return self._get("/status", ServerStatus)

    def submit(self, submission: Submission, pack: Path | None = None) -> RunView | Plan:
        """Submit a run, or return its plan with `dry_run`. A run that repeats another needs no pack. Raises
        MissingBaseError if the server lacks a commit that the pack builds on."""
        head = wire.encode(submission) + b"\n"
        size = len(head) + (pack.stat().st_size if pack else 0)
        response = self._send("POST", "/runs", WORK_SECONDS, lambda: _blocks(head, pack), size)
        return self._decode(response, Plan) if submission.dry_run else self._decode(response, RunView)

    def runs(
        self,
        *,
        workflow: str | None = None,
        status: str | None = None,
        user: str | None = None,
        mine: bool = False,
        limit: int = 20,
    ) -> list[RunView]:
        """Return runs, newest first: all, those of `user`, or with `mine` those of the token, if that is personal."""
        own = "1" if mine else None
        query = {"workflow": workflow, "status": status, "user": user, "mine": own, "limit": str(limit)}
        return self._get("/runs", list[RunView], query)

    def run(self, ref: str) -> RunView:
        """Return a run by its name or a unique prefix."""
        return self._get(f"/runs/{_part(ref)}", RunView)

    def diff(self, ref: str) -> Iterator[bytes]:
        """Yield the patch from a run's commit to the code that it ran."""
        return self._bytes(f"/runs/{_part(ref)}/diff", WORK_SECONDS)

    def recipe(self, ref: str) -> Recipe:
        """Return what is needed to repeat a run."""
        return self._get(f"/runs/{_part(ref)}/recipe", Recipe)

    def jobs(self, *, run: str | None = None, limit: int = 20) -> list[JobView]:
        """Return jobs, newest first."""
        return self._get("/jobs", list[JobView], {"run": run, "limit": str(limit)})

    def job(self, ref: str) -> JobView:
        """Return a job by its id or a unique prefix."""
        return self._get(f"/jobs/{_part(ref)}", JobView)

    def metrics(self, ref: str) -> list[JobMetrics]:
        """Return the resources that the jobs of a run used over time."""
        return self._get(f"/metrics/{_part(ref)}", list[JobMetrics])

    def stop(self, request: StopRequest) -> list[RunView]:
        """Ask runs or jobs to stop. Returns before they have ended."""
        return self._post("/stop", list[RunView], request)

    def hold(self, request: HoldRequest) -> HoldAnswer:
        """Hold queued jobs, or release them."""
        return self._post("/hold", HoldAnswer, request)

    def secrets(self) -> list[SecretView]:
        return self._get("/secrets", list[SecretView])

    def set_secret(self, secret: SetSecret) -> SecretView:
        return self._post("/secrets", SecretView, secret)

    def delete_secret(self, name: str) -> DeletedSecret:
        return self._post(f"/secrets/{_part(name)}", DeletedSecret, method="DELETE")

    def artifacts(self, ref: str) -> list[ArtifactView]:
        """Return the artifacts of a run or job."""
        return self._get(f"/artifacts/{_part(ref)}", list[ArtifactView])

    def artifact_folders(self, ref: str) -> list[FolderView]:
        """Return the folders of a run's or job's artifacts; none from a server that does not know them."""
        try:
            return self._get(f"/artifacts/{_part(ref)}/folders", list[FolderView])
        except NotFoundError:  # an older server has no such route
            return []

    def artifact(self, job: str, path: str, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a file from `offset` on. Raises BrokenAnswerError if the connection breaks."""
        query = urlencode({"path": path, "offset": offset}, errors="surrogateescape")
        return self._bytes(f"/artifacts/{_part(job)}/file?{query}", ANSWER_SECONDS)

    def artifact_url(self, job: str, path: str) -> LinkView:
        """Return a temporary URL that lets anyone download a file."""
        return self._get(f"/artifacts/{_part(job)}/url", LinkView, {"path": path})

    def artifact_urls(self, job: str, paths: Sequence[str]) -> LinksView:
        """Return temporary URLs of a job's files, in the order of `paths`; none if the storage doesn't offer URLs."""
        return self._post(f"/artifacts/{_part(job)}/urls", LinksView, LinksRequest(paths=tuple(paths)))

    def tags(self) -> list[TagView]:
        """Return all tags by name."""
        return self._get("/tags", list[TagView])

    def tag(self, ref: str, name: str, *, force: bool = False) -> TagView:
        """Tag a run or job. Raises ConflictError if another has the tag, unless `force` is set."""
        return self._post("/tags", TagView, TagRequest(ref=ref, name=name, force=force))

    def delete_tag(self, name: str) -> None:
        self._send("DELETE", f"/tags/{_part(name)}", ANSWER_SECONDS).close()

    def delete(self, refs: tuple[str, ...]) -> list[Removed]:
        """Delete runs. Raises ConflictError, and deletes none, if one of them must be kept."""
        return self._post("/runs/delete", list[Removed], DeleteRequest(refs=refs))

    def prune(self, wish: PruneRequest) -> list[Removed]:
        """Remove the runs that match a rule."""
        return self._post("/prune", list[Removed], wish)

    def prune_rest(self, wish: PruneRestRequest) -> list[Leftover]:
        """Remove data that none of the runs kept by the rule needs."""
        return self._post("/prune/rest", list[Leftover], wish)

    def prune_caches(self, wish: PruneCachesRequest) -> list[CacheFolder]:
        """Remove `cache:` folders on runners."""
        return self._post("/prune/caches", list[CacheFolder], wish)

    def runners(self, *, fresh: float | None = None) -> list[RunnerView]:
        """Return all runners. `fresh`: accept results of a probe that is up to this many seconds old."""
        query = "" if fresh is None else f"?fresh={fresh:g}"
        return self._get(f"/runners{query}", list[RunnerView], seconds=WORK_SECONDS)

    def add_runner(self, runner: AddRunner) -> RunnerView:
        """Add a runner. Raises UnknownHostKeyError until the fingerprint of its host key is confirmed."""
        return self._post("/runners", RunnerView, runner)

    def check_runner(self, name: str) -> RunnerView:
        """Probe a runner now."""
        return self._post(f"/runners/{_part(name)}/check", RunnerView)

    def clean_runner(self, name: str, orphans: Sequence[str]) -> RunnerView:
        """Remove from a runner what belongs to no job. Raises NotFoundError for anything else."""
        return self._post(f"/runners/{_part(name)}/clean", RunnerView, Clean(names=tuple(orphans)))

    def key(self) -> ServerKey:
        """Return the server's public key, to install on machines."""
        return self._get("/key", ServerKey)

    def change_runner(self, name: str, runner: AddRunner) -> RunnerView:
        """Replace a runner's definition."""
        return self._post(f"/runners/{_part(name)}", RunnerView, runner, method="PUT")

    def registrations(self) -> list[RegistrationView]:
        """Return the machines that registered themselves."""
        return self._get("/registrations", list[RegistrationView])

    def approve(self, name: str) -> RegistrationView:
        """Approve a registered machine."""
        return self._post(f"/registrations/{_part(name)}/approve", RegistrationView)

    def registration_token(self) -> RegistrationToken:
        """Create a token that registers one machine without approval."""
        return self._post("/registration-tokens", RegistrationToken)

    def drain_runner(self, name: str, reason: str) -> RunnerView:
        """Stop giving new jobs to a runner."""
        return self._post(f"/runners/{_part(name)}/drain", RunnerView, Drain(reason=reason))

    def resume_runner(self, name: str) -> RunnerView:
        """Give a drained runner jobs again."""
        return self._post(f"/runners/{_part(name)}/resume", RunnerView)

    def remove_runner(self, name: str, *, force: bool = False) -> RunnerRemoved:
        """Remove a runner and everything of dstack's on it that no other runner uses. With `force`, remove it even if
        it can't be cleaned up."""
        response = self._send("DELETE", f"/runners/{_part(name)}?force={int(force)}", WORK_SECONDS)
        return self._decode(response, RunnerRemoved)

    def tokens(self) -> list[TokenView]:
        """Return the tokens of the server, without their values."""
        return self._get("/tokens", list[TokenView])

    def create_token(self, token: NewToken) -> CreatedToken:
        """Create a token. Only this response has its value."""
        return self._post("/tokens", CreatedToken, token)

    def revoke_token(self, name: str) -> None:
        """Revoke a token at once."""
        self._send("DELETE", f"/tokens/{_part(name)}", ANSWER_SECONDS).close()

    def config(self) -> ServerConfig:
        return self._get("/config", ServerConfig)

    def configure(self, config: ServerConfig) -> ServerConfig:
        return self._post("/config", ServerConfig, config)

    def change_identity(self, *, new: bool) -> ServerStatus:
        """Make the server a new one, or take its machines over from a copy of it."""
        return self._post("/identity", ServerStatus, ChangeIdentity(new=new))

    def shutdown(self) -> None:
        """Ask the server to stop. Containers keep running."""
        self._send("POST", "/shutdown", ANSWER_SECONDS).close()

    def follow(
        self,
        ref: str,
        offsets: Mapping[str, int],
        *,
        follow: bool = True,
        logs: bool = True,
        tail: int | None = None,
        since: str | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames of a run or job: with `follow` until it ends, else those that exist now.

        `offsets` (bytes by job id) counts what the caller has consumed. A broken stream resumes from there, so no byte
        is lost or repeated. `logs=False` leaves out the logs. The server leaves out most of what comes before the last
        `tail` lines of each job, or arrived before `since` (RFC 3339). Pings are dropped.
        """
        wanted = ("log", "job", "run") if logs else ("job", "run")
        hint = f"the run continues; wait for it with `dstack wait {ref}`"

        def path() -> str:
            begin = ",".join(f"{job}:{offset}" for job, offset in offsets.items())
            given = {"follow": int(follow), "from": begin, "logs": int(logs), "tail": tail, "since": since}
            asked = urlencode({name: value for name, value in given.items() if value is not None}, safe=":,")
            return f"/follow/{_part(ref)}?{asked}"

        for frame in self._frames(path, hint):
            fresh = frame.after(offsets) if frame.event.event in wanted else None
            if fresh is not None:
                yield fresh

    def events(self, asked: EventQuery) -> list[EventView]:
        """Return events, oldest first."""
        return self._get("/events", list[EventView], asked.parameters())

    def follow_events(self, asked: EventQuery) -> Iterator[EventView]:
        """Yield events, then new ones as they happen: of a run until it ends, else without end. A broken stream resumes
        after the last event."""
        last = 0

        def path() -> str:
            return f"/events?{urlencode({**asked.parameters(), 'follow': '1', 'after': str(last)})}"

        for frame in self._frames(path, "to see the events since then, run the same command with --since"):
            entry = frame.event.entry
            if entry is not None:
                last = entry.id
                yield entry

    def _bytes(self, path: str, seconds: float) -> Iterator[bytes]:
        response = self._send("GET", path, seconds)
        with self._reading(response):
            yield from iter(lambda: response.read1(BLOCK), b"")

    def _frames(self, path: Callable[[], str], hint: str) -> Iterator[Frame]:
        """Yield the frames of a stream, opened again at the current `path()` each time that it breaks."""
        last, pause = time.monotonic(), 0.05
        while True:
            try:
                response = self._send("GET", path(), SILENCE_SECONDS)
                with self._reading(response):
                    for frame in read_frames(response):
                        yield frame
                        last, pause = time.monotonic(), 0.05  # the reader may have paused for long
                return
            except (TryAgainError, BrokenAnswerError) as error:
                if time.monotonic() - last > PATIENCE_SECONDS:
                    message = f"gave up after {PATIENCE_SECONDS / 60:.0f} minutes: {error.message}"
                    raise DstackError(message, hint=hint) from error
                if pause > 1:
                    self.say(f"{error.message}; trying again")
                time.sleep(pause)
                pause = min(pause * 2, 10.0)


def _blocks(head: bytes, pack: Path | None) -> Iterator[bytes]:
    yield head
    if pack is not None:
        with pack.open("rb") as file:
            yield from iter(lambda: file.read(BLOCK * 4), b"")


def _part(text: str) -> str:
    return quote(text, safe="")
