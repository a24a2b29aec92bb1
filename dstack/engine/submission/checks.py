"""Refuses submissions that can't become runs, and says what to type instead."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.errors import ConflictError, TryAgainError, UsageError
from dstack.model.api.runs import Submission
from dstack.model.job.job import Job
from dstack.model.job.reasons import ReasonCode
from dstack.scheduling.schedule import eligible, impossible
from dstack.scheduling.types import Machine, Waiting
from dstack.store.store import Store


def refuse_taken(store: Store, name: str) -> None:
    """Raise ConflictError if a run has this name."""
    if store.runs.get(name):
        hint = f"choose another --name; to see that run: dstack runs {name}"
        raise ConflictError(f"a run named '{name}' already exists", hint=hint)


def refuse_second(store: Store, submission: Submission) -> None:
    """Raise TryAgainError if a run of this repository and workflow is unfinished."""
    for name in dict.fromkeys(job.run for job in store.jobs.unfinished()):
        run = store.runs.require(name)
        if run.workflow == submission.workflow and run.snapshot.repo == submission.snapshot.repo:
            raise TryAgainError(
                f"'{run.workflow}' already has an unfinished run, {name} of {run.user}; nothing was submitted",
                hint=f"dstack logs -f {name}, or dstack stop {name}",
            )


def refuse_unknown_secrets(store: Store, jobs: Sequence[Job]) -> None:
    """Raise UsageError if a job needs a secret that is not set."""
    known = store.secrets.names()
    for job in jobs:
        missing = [name for name in job.definition.needed_secrets if name not in known and not job.finished]
        if missing:
            message = f"{job.workflow} needs the secret '{missing[0]}', which is not set"
            raise UsageError(message, hint=f"dstack secrets set {missing[0]}", code=ReasonCode.SECRET_MISSING)


def refuse_impossible(
    waiting: Sequence[tuple[Job, Waiting]], machines: Sequence[Machine], most_gpus: int | None
) -> None:
    """Raise UsageError if a job could never run on these machines. `most_gpus` is the limit of each user."""
    for job, item in waiting:
        why = impossible(item, machines, most_gpus)
        if why:
            add = "dstack runners add HOST, or add --local to run it on this machine"
            wait = "see `dstack runners`, or add --wait-for-runner to wait for a runner that can run it"
            hint = wait if eligible(Waiting(""), machines) else add
            raise UsageError(f"{job.workflow} can't run: {why.text}", hint=hint, code=why.code)
