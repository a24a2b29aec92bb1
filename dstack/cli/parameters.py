"""What several commands share: options, types of values, groups, and what a name stands for."""

from __future__ import annotations

import getpass
import math
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

from dstack.cli import connect
from dstack.cli.output import show
from dstack.client.client import Client
from dstack.errors import DstackError, ErrorCode, NotFoundError, UsageError
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import RunView
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.tag import is_tag
from dstack.model.text.units import disk_bytes, lacks_unit, span

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: one object per line, the last is the run."
)
ports_option = click.option(
    "-p",
    "--port",
    "ports",
    multiple=True,
    metavar="[LOCAL:]PORT",
    help="Forward a port of the container to this machine while following; repeatable.",
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Don't ask for confirmation.")


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
    target = run_or_job(client, ref)
    return client.run(target.run) if isinstance(target, JobView) else target


def name_of(target: RunView | JobView) -> str:
    """Return the name of a run, or the id of a job."""
    return target.name if isinstance(target, RunView) else target.id


def read_secret(prompt: str) -> str:
    """Read one line from a prompt on a terminal, or all of stdin without its last newline."""
    if show.interactive():
        return getpass.getpass(f"{prompt}: ")
    text = sys.stdin.read() if sys.stdin is not None else ""
    return text[:-1] if text.endswith("\n") else text


class KnownName(click.types.StringParamType):
    """A name that the server knows. Completes to `names(client)`, or to nothing if no server is running."""

    def __init__(self, noun: str, names: Callable[[Client], Iterable[CompletionItem]]) -> None:
        self.name = noun
        self._names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        group = ctx.command if isinstance(ctx.command, click.Group) and isinstance(param, click.Argument) else None
        commands = group.shell_complete(ctx, incomplete) if group else []
        client = connect.quiet_client()
        known: Iterable[CompletionItem] = ()
        with suppress(DstackError):
            known = self._names(client) if client else ()
        return [*commands, *(item for item in known if item.value.startswith(incomplete))]


REF = KnownName("run", lambda client: [CompletionItem(run.name, help=run.workflow) for run in client.runs(limit=50)])
"""A run, a job or a unique prefix of either."""
RUNNER = KnownName("name", lambda client: [CompletionItem(runner.name) for runner in client.runners(fresh=math.inf)])
"""Any runner. Completion doesn't probe them."""
SWEEP = KnownName(
    "sweep", lambda client: [CompletionItem(sweep.name, help=sweep.workflow) for sweep in client.sweeps(limit=50)]
)
"""A sweep or a unique prefix."""
TAG = KnownName("name", lambda client: [CompletionItem(tag.name, help=tag.run) for tag in client.tags()])
TRIGGER = KnownName("name", lambda client: [CompletionItem(each.name) for each in client.triggers()])
SECRET = KnownName("name", lambda client: [CompletionItem(secret.name) for secret in client.secrets()])
WORKFLOW = KnownName("name", lambda client: [CompletionItem(name) for name in _workflows(client)])
"""A workflow of recent runs."""


def _workflows(client: Client) -> list[str]:
    return sorted({run.workflow for run in client.runs(limit=200)})


class Quantity(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit, which `read` converts."""

    def __init__(self, name: str, read: Callable[[str], float]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self.read(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            option = f"{param.opts[0]}: " if param else ""
            raise UsageError(f"{option}{error}") from error


def _size(text: str) -> int:
    count = disk_bytes(text)
    if lacks_unit(text):
        raise ValueError(f"'{text}' has no unit; write a unit, such as {text}MB")
    return count


def _age(text: str) -> float:
    if lacks_unit(text):
        raise ValueError(f"'{text}' has no unit; write a unit, such as {text}d or {text}h")
    return span(text)


SIZE = Quantity("size", _size)
"""Such as `500MB` or `2GB`, in bytes."""
SPAN = Quantity("span", span)
"""Such as `30s`, `10m` or `1h30m`, in seconds. A bare number is seconds, as for timeout(1)."""
AGE = Quantity("age", _age)
"""Such as `30d` or `12h`, in seconds."""


class Noun(click.Group):
    """A group that shows its help without a command, and suggests the closest name for an unknown one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        commands = self.list_commands(ctx)
        if not args[0].startswith("-") and args[0] not in commands:
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], commands)}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class NounOrName(Noun):
    """A group that, without a command, shows what its argument names: `runs [RUN]` beside `runs delete RUN...`. The
    first word decides. After `--`, a word is never a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            ctx.invoked_subcommand = args[0]
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True
        extra = click.Command.parse_args(self, ctx, args.copy())
        if not ctx.resilient_parsing:
            self._refuse_misplaced(ctx, args, extra)
        return extra

    def _refuse_misplaced(self, ctx: click.Context, args: list[str], extra: list[str]) -> None:
        """Raise UsageError for a command after options, and for more than one name."""
        named = [ctx.params[each.name or ""] for each in self.params if isinstance(each, click.Argument)]
        if "--" not in args and (command := next((name for name in self.commands if name in named), None)):
            raise click.UsageError(f"write '{command}' first, and its options after it", ctx)
        if extra:
            raise click.UsageError(f"unexpected word '{extra[0]}'", ctx)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Leave out the argument if a command follows."""
        params = super().get_params(ctx)
        if ctx.command is self and not ctx.invoked_subcommand:
            return params
        return [each for each in params if isinstance(each, click.Option)]
