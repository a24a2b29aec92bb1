"""`dstack run`: submit a workflow and follow it."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from dstack.cli import project, settings, show
from dstack.cli import words as words_
from dstack.cli.arguments import Walk, walk
from dstack.cli.events import JsonEvents
from dstack.cli.follow import DETACHED, Display, to_the_end
from dstack.cli.logwriter import LogWriter
from dstack.cli.lookup import RUNNER
from dstack.cli.narrate import Narrator, exit_code
from dstack.errors import MissingBaseError, UsageError
from dstack.model.api.runs import Plan, Recipe, RunView, Submission
from dstack.server.client import Client


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, as `500MB` or `2GB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else words_.bytes_in(value)


class Lookup:
    """The project, read when the workflow's name is known."""

    def __init__(self) -> None:
        self.found: project.Found | None = None
        self.recipe: Recipe | None = None

    def variables(self, workflow: str) -> Sequence[str]:
        """The names of the workflow's variables. Raises UsageError for a workflow that is not there."""
        from dstack.model.graph import closure

        self.found = project.load()
        closure(self.found.workflows, workflow)
        return list(self.found.values(workflow))

    def recorded(self, run: str) -> Sequence[str]:
        """The names of the variables of a run that is to be repeated."""
        self.recipe = settings.connect().recipe(run)
        variables = self.recipe.variables[self.recipe.workflow]
        return [*variables.own, *variables.shared]


class RunCommand(click.Command):
    """`run [OPTIONS] WORKFLOW [--VARIABLE VALUE]...`, with a help that knows the project."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            ctx.args = args
            return args
        lookup = Lookup()
        words = walk(args, self.params, lookup.variables, lookup.recorded)
        if words.help:
            from dstack.cli.runhelp import show_help

            show_help(ctx, self, words.workflow)
            ctx.exit()
        if words.workflow is None and lookup.recipe is None:
            raise UsageError("which workflow?", hint="`dstack run --help` lists them")
        rest = super().parse_args(ctx, words.options)
        ctx.params.update(words=words, found=lookup.found, recipe=lookup.recipe)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "{WORKFLOW | --from RUN}", "[--VARIABLE VALUE]..."]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from dstack.cli.completion import complete_run

        return [*complete_run(ctx, incomplete), *super().shell_complete(ctx, incomplete)]


@click.command("run", cls=RunCommand, add_help_option=False)
@click.option("-d", "--detach", is_flag=True, help="Submit, print the run's name and return.")
@click.option("--name", metavar="NAME", help="The run's name; the default reads like brave-otter-7.")
@click.option("--runner", metavar="NAME_OR_LABEL", type=RUNNER, help="Run on this machine, or on one with this label.")
@click.option("--local", is_flag=True, help="Run on the server's own machine, without SSH.")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="Give the job of WORKFLOW N GPUs.")
@click.option("--priority", type=click.IntRange(0, 100), metavar="N", help="Higher ones go first; 0 to 100.")
@click.option("--timeout", metavar="TIME", help="Withdraw it after so long in the queue (30s, 10m, 2h); exits with 75.")
@click.option("--singleton", is_flag=True, help="Exit with 75 while another run of WORKFLOW here has not ended.")
@click.option("--idempotency-key", "once", metavar="KEY", help="Submit once: the same KEY gives the same run.")
@click.option("--wait-for-runner", is_flag=True, help="Queue it even if no runner could run it yet.")
@click.option("-e", "env", multiple=True, metavar="KEY=VALUE", help="Set it in every job; KEY alone takes yours.")
@click.option("--no-cache", is_flag=True, help="Run the dependencies too, whatever is cached.")
@click.option("--from", "from_run", metavar="RUN", help="Repeat RUN: its code, definitions and variables.")
@click.option(
    "--max-snapshot",
    type=Size(),
    default="256MB",
    show_default=True,
    metavar="SIZE",
    help="Refuse to send more changed and untracked content; 0 for no limit.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run where, and submit nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line; the last is the run.")
@click.option("-q", "--quiet", is_flag=True, help="Print the run's name alone.")
@click.option("-h", "--help", is_flag=True, help="Show this; after WORKFLOW, its variables.")
def command(
    words: Walk,
    found: project.Found | None,
    recipe: Recipe | None,
    detach: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run a workflow on a machine and follow it.

    Options may come before or after WORKFLOW; a variable of the workflow that is called like an option wins after it.
    The exit code is the failed job's own, as with `docker run`.
    """
    options.pop("help")
    client = settings.connect()
    try:
        answer = submit(client, found, words, **options) if found else repeat(client, recipe, words, **options)
    except KeyboardInterrupt:
        show.say("interrupted while submitting: `dstack runs` shows whether the run was taken")
        return DETACHED
    if isinstance(answer, Plan):
        if as_json:
            show.document(answer)
        else:
            from dstack.cli.plan import print_plan

            print_plan(answer)
        return 0
    return _follow(client, answer, detach=detach, as_json=as_json, quiet=quiet)


def submit(
    client: Client, found: project.Found, words: Walk, *, env: Sequence[str], max_snapshot: int, **options: Any
) -> RunView | Plan:
    """Take the snapshot and send it with the definitions: the thin pack first."""
    from dstack.model.graph import closure
    from dstack.model.variables import apply

    workflow = words.workflow or ""
    _check(options)
    variables = apply(found.project, workflow, words.overrides)
    environment = _environment(env)
    depths = {each.fetch_depth for each in closure(found.workflows, workflow)}
    from dstack.repo.snapshot import take

    with take(found.root, limit=max_snapshot, depths=depths) as taken:
        submission = Submission(
            workflow=workflow,
            workflows=closure(found.workflows, workflow),
            variables=variables,
            snapshot=taken.snapshot,
            user=user(),
            environment=environment,
            **options,
        )
        try:
            return client.submit(submission, taken.pack())
        except MissingBaseError as missing:
            known = missing.known
        with suppress(MissingBaseError):
            if known:
                return client.submit(submission, taken.pack(known))
        return client.submit(submission, taken.full_pack())


def repeat(
    client: Client, recipe: Recipe | None, words: Walk, *, env: Sequence[str], max_snapshot: int, **options: Any
) -> RunView | Plan:
    """Submit what another run was made of, with other values for the variables that the user names. The server has
    the code."""
    from dstack.model.project import Project
    from dstack.model.variables import apply

    _check(options)
    if recipe is None:
        raise UsageError("which run?", hint="dstack run --from RUN")
    given = recipe.variables
    workflows = {workflow.name: workflow for workflow in recipe.workflows}
    own = {name: variables.own for name, variables in given.items()}
    project = Project(workflows, given[recipe.workflow].shared, own)
    options["gpus"] = recipe.gpus if options["gpus"] is None else options["gpus"]
    submission = Submission(
        workflow=recipe.workflow,
        workflows=recipe.workflows,
        variables=apply(project, recipe.workflow, words.overrides),
        snapshot=recipe.snapshot,
        user=user(),
        environment={**recipe.environment, **_environment(env)},
        **options,
    )
    return client.submit(submission)


def _check(options: dict[str, Any]) -> None:
    """Raise UsageError for options that can't be; a length of time becomes seconds."""
    from dstack.model.names import check_run_name

    if options["name"] is not None:
        check_run_name(options["name"])
    if options["local"] and options["runner"] is not None:
        raise UsageError("--local and --runner exclude each other")
    options["timeout"] = _seconds(options["timeout"])


def user() -> str:
    """Who submits, also where no login shell set a name."""
    for name in ("LOGNAME", "USER"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _seconds(text: str | None) -> float | None:
    """`30s`, `10m`, `1h30m` in seconds."""
    from dstack.model.quantities import SPAN, span

    if text is not None and not re.search(SPAN, text):
        raise UsageError(f"--timeout {text}: it is no time", hint="write 30s, 10m, 2h or 1d")
    return None if text is None else span(text)


def _environment(given: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE`, or `KEY` for the value that it has here, as docker does."""
    environment = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not name.isascii():
            raise UsageError(f"-e {text}: '{name}' is no name of a variable", hint="write -e KEY=VALUE")
        if not equals and name not in os.environ:
            raise UsageError(f"-e {name}: it is not set here", hint=f"write -e {name}=VALUE")
        environment[name] = value if equals else os.environ[name]
    return environment


def _follow(client: Client, run: RunView, *, detach: bool, as_json: bool, quiet: bool) -> int:
    display: Display
    if as_json:
        display = JsonEvents()
        display.run(run)
    else:
        if quiet or detach:
            show.line(run.name)
        workflows = [job.workflow for job in run.jobs]
        writer = None if quiet else LogWriter(workflows if len(workflows) > 1 else ())
        display = narrator = Narrator(run, writer, quiet=quiet)
        if not quiet and not detach:
            show.say(f"{run.name}: {', '.join(workflows)}")
            narrator.begin()
    if detach:
        if not quiet and not as_json:
            show.say(f"follow it with `dstack logs -f {run.name}`, wait for it with `dstack wait {run.name}`")
        return 0
    try:
        ended = to_the_end(client, run.name, display, logs=as_json or not quiet)
    except BrokenPipeError:
        show.leave_closed_output()
        show.say(f"nobody reads any more: {run.name} goes on; look again with `dstack logs -f {run.name}`")
        return DETACHED
    return DETACHED if ended is None else exit_code(ended)
