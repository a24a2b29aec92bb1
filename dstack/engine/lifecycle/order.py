"""Builds a launch order: a job with its environment, its script and its folder in the tree."""

from __future__ import annotations

from collections.abc import Mapping

from dstack.commands.job.launch import Order
from dstack.engine.context import Context
from dstack.model.job import script
from dstack.model.job.job import Job, Run
from dstack.model.job.resources import ask_of
from dstack.model.paths import attempt_id
from dstack.model.project import environment
from dstack.model.project.variables import config_args
from dstack.model.runner import mounts
from dstack.model.runner.runner import Runner
from dstack.model.text.units import memory_bytes

SAFE_DIRECTORY = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
"""The tree belongs to the runner's user, not the container's, so git would refuse it ("dubious ownership")."""


def order(context: Context, job: Job, runner: Runner, *, artifacts: bool, gathered: bool) -> Order:
    """The launch order for a job on a runner. `artifacts`: some of its dependencies are sent on stdin. `gathered`: some
    are already on the runner."""
    run = context.store.runs.require(job.run)
    resources = job.definition.resources
    asked = ask_of(resources)
    leased = [gpu for gpu in (runner.facts.gpus if runner.facts else ()) if gpu.index in job.gpus]
    return Order(
        job=job.id,
        attempt=attempt_id(job.id, job.attempt),
        image=job.image,
        snapshot=run.snapshot,
        depth=job.definition.fetch_depth,
        user=job.definition.user,
        gpus=job.gpus,
        cpu=asked.cpu,
        memory=asked.memory,
        shm=memory_bytes(resources.shm_size) if resources.shm_size else 0,
        script=script.script(job.definition, job.variables, job.id, job.run),
        environment=variables_of(job, run, runner, secrets_of(context, job)),
        caches=job.definition.cache,
        artifacts=artifacts,
        gathered=gathered,
        mounts=tuple(mounts.parse(text) for text in job.definition.mounts),
        allowed=mounts.outermost(runner.allow_mounts),
        nodes=tuple(gpu.node for gpu in leased if gpu.vendor == "amd"),
    )


def secrets_of(context: Context, job: Job) -> dict[str, str]:
    """The job's secrets. They are recorded as given to the job, and masked in its log from now on. Raises NotFoundError
    if one has been deleted."""
    secrets = {name: context.store.secrets.require(name) for name in job.definition.secrets}
    if secrets:
        context.store.secrets.give(job.id, list(secrets.values()))
    return secrets


def variables_of(job: Job, run: Run, runner: Runner, secrets: Mapping[str, str]) -> dict[str, str | None]:
    """The container's environment; None unsets a variable."""
    reserved = environment.reserved_values(
        run=job.run,
        job=job.id,
        workflow=job.workflow,
        config_args=config_args(job.variables.own),
        runner=runner.name,
        gpus=job.gpus,
        attempt=job.attempt,
    )
    built = environment.build(job.variables, job.definition.env, {**run.environment, **secrets}, reserved)
    return {**SAFE_DIRECTORY, **built.values}
