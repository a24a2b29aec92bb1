"""What a name on the command line means: a run, a job, a runner, a command of a group; and completion for it."""

from __future__ import annotations

import math
from typing import Any

import click
from click.shell_completion import CompletionItem

from dstack.client.client import Client
from dstack.errors import DstackError, ErrorCode, NotFoundError
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import RunView
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.tag import is_tag


def run_or_job(client: Client, ref: str) -> RunView | JobView:
    """Return the run with this name, or the job with this id; a unique prefix is enough."""
    try:
        return client.run(ref)
    except NotFoundError as no_run:
        try:
            return client.job(ref)
        except NotFoundError as no_job:
            if is_tag(ref):
                raise
            several = next((error for error in (no_run, no_job) if error.code == ErrorCode.AMBIGUOUS), None)
            raise several or NotFoundError(f"no run or job '{ref}'", hint="`dstack runs` lists the runs") from no_job


def run_of(client: Client, ref: str) -> RunView:
    """Return the run with this name, or the run of the job with this id; a unique prefix is enough."""
    found = run_or_job(client, ref)
    return client.run(found.run) if isinstance(found, JobView) else found


class RefType(click.types.StringParamType):
    """A run, job or unique prefix; completes to recent runs."""

    name = "run"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from dstack.cli.connect import quiet_client

        client = quiet_client()
        try:
            runs: list[Any] = client.runs(limit=50) if client else []
        except DstackError:
            return []
        return [CompletionItem(run.name, help=run.workflow) for run in runs if run.name.startswith(incomplete)]


class RunnerType(click.types.StringParamType):
    """A runner's name; completes to all runners without probing them."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from dstack.cli.connect import quiet_client

        client = quiet_client()
        try:
            runners = client.runners(fresh=math.inf) if client else []
        except DstackError:
            return []
        return [CompletionItem(runner.name) for runner in runners if runner.name.startswith(incomplete)]


REF = RefType()
RUNNER = RunnerType()


class Noun(click.Group):
    """A group that suggests the closest name for an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
