"""`dstack run`: submit a workflow and follow it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from dstack.cli import connect, project
from dstack.cli.commands.run.arguments import Walk, walk
from dstack.cli.follow import DETACHED, Display, to_the_end
from dstack.cli.names import RUNNER
from dstack.cli.options import SIZE, SPAN, json_lines_option
from dstack.cli.output import show
from dstack.cli.output.json_events import JsonEvents
from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.progress import ProgressLines, exit_code
from dstack.cli.project import LoadedProject
from dstack.client.client import Client
from dstack.client.settings import user
from dstack.errors import MissingBaseError, UsageError
from dstack.model.api.runs import Plan, Recipe, RunView, Submission


class Lookup:
    """Reads the project once the workflow's name is known, or the recipe of the run to repeat."""

    def __init__(self) -> None:
        self.loaded: LoadedProject | None = None
        self.recipe: Recipe | None = None

    def variables(self, workflow: str) -> Sequence[str]:
        """Return the names of the workflow's variables. Raises UsageError for an unknown workflow."""
        from dstack.model.project.graph import closure

        self.loaded = project.load()
        closure(self.loaded.workflows, workflow)
        return list(self.loaded.values(workflow))

    def recorded(self, run: str) -> Sequence[str]:
        """Return the names of the variables of the run to repeat."""
        self.recipe = connect.connect().recipe(run)
        variables = self.recipe.variables[self.recipe.workflow]
        return [*variables.own, *variables.shared]


class RunCommand(click.Command):
    """`run [OPTIONS] WORKFLOW [--VARIABLE VALUE]...`, with help about the project's workflows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            ctx.args = args
            return args
        lookup = Lookup()
        words = walk(args, self.params, lookup.variables, lookup.recorded)
        if words.help:
            from dstack.cli.commands.run.help import show_help

            show_help(ctx, self, words.workflow, lookup.loaded)
            ctx.exit()
        if words.workflow is None and lookup.recipe is None:
            raise UsageError("no workflow given", hint="`dstack run --help` lists the workflows")
        rest = super().parse_args(ctx, words.options)
        ctx.params.update(words=words, loaded=lookup.loaded, recipe=lookup.recipe)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "{WORKFLOW | --from RUN}", "[--VARIABLE VALUE]..."]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from dstack.cli.commands.completion import complete_run

        return [*complete_run(ctx, incomplete), *super().shell_complete(ctx, incomplete)]


@click.command("run", cls=RunCommand, add_help_option=False)
@click.option("-d", "--detach", is_flag=True, help="Submit the run, print its name and return.")
@click.option("--name", metavar="NAME", help="Name of the run; default: one like brave-otter-7.")
@click.option("--runner", metavar="NAME_OR_LABEL", type=RUNNER, help="Run on this runner, or on one with this label.")
@click.option("--local", is_flag=True, help="Run on the server's own machine, without SSH.")
@click.option(
    "--gpus",
    type=click.IntRange(0, 1024),
    metavar="N",
    help="Number of GPUs for WORKFLOW; default: as in workflows.yaml.",
)
@click.option(
    "--priority",
    type=click.IntRange(0, 100),
    metavar="N",
    help="0 to 100, highest first; default: as in workflows.yaml.",
)
@click.option(
    "--timeout",
    type=SPAN,
    metavar="TIME",
    help="Withdraw the run if it is still queued after this time (30s, 10m, 2h), and exit with 75.",
)
@click.option("--singleton", is_flag=True, help="Exit with 75 if a run of WORKFLOW in this repository is unfinished.")
@click.option("--idempotency-key", "once", metavar="KEY", help="Submit once: the same KEY returns the same run.")
@click.option("--wait-for-runner", is_flag=True, help="Queue the run even if no runner could run it yet.")
@click.option(
    "-e",
    "env",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set an environment variable in every job; KEY alone copies yours; repeatable.",
)
@click.option("--no-cache", is_flag=True, help="Run the dependencies even if they are cached.")
@click.option("--from", "from_run", metavar="RUN", help="Repeat RUN with its code, definitions and variables.")
@click.option(
    "--max-snapshot",
    type=SIZE,
    default="256MB",
    metavar="SIZE",
    help="Refuse to send more changed and untracked data than this; default: 256MB, 0 for no limit.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run where; submit nothing.")
@json_lines_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the run's name.")
@click.option("-h", "--help", is_flag=True, help="Show this help, or after WORKFLOW its variables.")
def command(
    words: Walk,
    loaded: LoadedProject | None,
    recipe: Recipe | None,
    detach: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run a workflow and follow it.

    Options may come before or after WORKFLOW. After it, a variable wins over an option with the same name. If a job
    fails, the exit code is the job's own, as with `docker run`.
    """
    options.pop("help")
    client = connect.connect()
    try:
        answer = submit(client, loaded, words, **options) if loaded else repeat(client, recipe, words, **options)
    except KeyboardInterrupt:
        show.say("interrupted while submitting; `dstack runs` shows whether the run was accepted")
        return DETACHED
    if isinstance(answer, Plan):
        if as_json:
            show.document(answer)
        else:
            from dstack.cli.commands.run.plan import print_plan

            print_plan(answer)
        return 0
    return _follow(client, answer, detach=detach, as_json=as_json, quiet=quiet)


def submit(
    client: Client, loaded: LoadedProject, words: Walk, *, env: Sequence[str], max_snapshot: int, **options: Any
) -> RunView | Plan:
    """Take the snapshot and send it with the definitions. Try the smallest pack first."""
    from dstack.model.project.graph import closure
    from dstack.model.project.variables import apply

    workflow = words.workflow or ""
    _check(options)
    variables = apply(loaded.project, workflow, words.overrides)
    environment = _environment(env)
    depths = {each.fetch_depth for each in closure(loaded.workflows, workflow)}
    from dstack.snapshot.take import take

    with take(loaded.root, limit=max_snapshot, depths=depths) as taken:
        submission = Submission(
            workflow=workflow,
            workflows=closure(loaded.workflows, workflow),
            variables=variables,
            snapshot=taken.snapshot,
            user=user(),
            environment=environment,
            **options,
        )
        try:
            return client.submit(submission, taken.pack())
        except MissingBaseError as missing:
            commits = missing.known
        with suppress(MissingBaseError):
            if commits:
                return client.submit(submission, taken.pack(commits))
        return client.submit(submission, taken.full_pack())


def repeat(
    client: Client, recipe: Recipe | None, words: Walk, *, env: Sequence[str], max_snapshot: int, **options: Any
) -> RunView | Plan:
    """Submit another run's code and definitions again, with the given variables. The server has the code."""
    from dstack.model.project.project import Project
    from dstack.model.project.variables import apply

    _check(options)
    if recipe is None:
        raise UsageError("no run to repeat", hint="dstack run --from RUN")
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
    """Raise UsageError for invalid options."""
    from dstack.model.job.names import check_run_name

    if options["name"] is not None:
        check_run_name(options["name"])
    if options["local"] and options["runner"] is not None:
        raise UsageError("--local and --runner can't be used together")


def _environment(given: Sequence[str]) -> dict[str, str]:
    """Parse `KEY=VALUE`, or `KEY` for its value in this environment, as docker does."""
    environment = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not name.isascii():
            raise UsageError(f"-e: '{name}' is not a valid variable name; write -e KEY=VALUE")
        if not equals and name not in os.environ:
            raise UsageError(f"-e: {name} is not set in your environment", hint=f"set its value with -e {name}=VALUE")
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
        display = narrator = ProgressLines(run, writer, quiet=quiet)
        if not quiet and not detach:
            show.say(f"{run.name}: {', '.join(workflows)}")
            narrator.begin()
    if detach:
        if not quiet and not as_json:
            show.say(f"follow it with `dstack logs -f {run.name}`, or wait for its end with `dstack wait {run.name}`")
        return 0
    try:
        ended = to_the_end(client, run.name, display, logs=as_json or not quiet)
    except BrokenPipeError:
        show.leave_closed_output()
        show.say(f"output closed; {run.name} keeps running: follow it with `dstack logs -f {run.name}`")
        return DETACHED
    return DETACHED if ended is None else exit_code(ended)
