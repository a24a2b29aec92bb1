"""`dstack run`: submit a workflow and follow it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dstack.cli import connect, project
from dstack.cli.commands.run.arguments import Walk
from dstack.cli.commands.run.sent import say_what_is_sent, warn_of_secrets
from dstack.cli.follow import DETACHED, to_the_end
from dstack.cli.output import show
from dstack.cli.output.displays import Display, JsonEvents
from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.progress import ProgressLines
from dstack.cli.output.screen import terminal
from dstack.cli.parameters import REF, RUNNER, SIZE, SPAN, json_lines_option
from dstack.client.client import Client
from dstack.client.settings import user
from dstack.errors import MissingBaseError, ProjectError, UsageError
from dstack.model.api.runs import Plan, Recipe, RunView, Submission
from dstack.model.text.units import size_words
from dstack.plumbing.file_errors import file_trouble

if TYPE_CHECKING:
    from dstack.model.project.project import Project
    from dstack.model.project.workflow import Values, Variables, Workflow
    from dstack.snapshot.take import Taken

T = TypeVar("T")
LARGEST = 10
"""How many of the largest files are listed."""
SHOWN = 20
"""How many changes, modes and empty folders are listed."""


class Chosen:
    """What to run: a workflow of this folder's project, once its name is known, or the recipe of the run to repeat."""

    project: Project
    workflow: str | None = None
    recipe: Recipe | None = None

    def variables(self, workflow: str) -> Values:
        """Return the workflow's variables. Raises UsageError for an unknown workflow."""
        from dstack.model.project.graph import closure

        self.project, self.workflow = project.load(), workflow
        closure(self.project.workflows, workflow)
        return project.values(self.project, workflow)

    def recorded(self, run: str) -> Values:
        """Return the variables of the run to repeat."""
        from dstack.model.project.project import Project

        self.recipe = recipe = connect.connect().recipe(run)
        self.workflow = recipe.workflow
        workflows = {workflow.name: workflow for workflow in recipe.workflows}
        own = {name: variables.own for name, variables in recipe.variables.items()}
        self.project = Project(workflows, recipe.variables[recipe.workflow].shared, own)
        return project.values(self.project, recipe.workflow)


class RunCommand(click.Command):
    """`run [OPTIONS] WORKFLOW [--VARIABLE VALUE]...`, with help about the project's workflows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            ctx.args = args
            return args
        chosen = Chosen()
        try:
            words = Walk(args, self.params, chosen.variables, chosen.recorded)
        except ProjectError as invalid:
            if not {"-h", "--help", "--dry-run"}.intersection(args):
                invalid.consequence = "; nothing was submitted"
            raise
        if words.help:
            from dstack.cli.commands.run.help import show_help, show_workflow

            if words.workflow is None:
                show_help(ctx, self)
            else:
                show_workflow(ctx, chosen.project, words.workflow)
            ctx.exit()
        if chosen.workflow is None:
            raise UsageError("no workflow given", hint="`dstack run --help` lists the workflows")
        rest = super().parse_args(ctx, words.options)
        ctx.params.update(chosen=chosen, overrides=words.overrides)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "{WORKFLOW | --from RUN}", "[--VARIABLE VALUE]..."]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from dstack.cli.commands.run.help import complete

        return [*complete(ctx, incomplete), *super().shell_complete(ctx, incomplete)]


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
    help="Withdraw the run if it is still queued after this time (30s, 10m, 2h; 90 is seconds), and exit with 75.",
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
@click.option(
    "--from", "from_run", metavar="RUN", type=REF, help="Repeat RUN with its code, definitions and variables."
)
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
    chosen: Chosen, overrides: Sequence[tuple[str, str]], detach: bool, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Run a workflow and follow it.

    Options may come before or after WORKFLOW. After it, a variable wins over an option with the same name. If a job
    fails, the exit code is the job's own, as with `docker run`.
    """
    options.pop("help")
    client = connect.connect()
    try:
        answer = submit(client, chosen, overrides, quiet=quiet, as_json=as_json, **options)
    except KeyboardInterrupt:
        show.say("interrupted while submitting; `dstack runs` shows whether the run was accepted")
        return DETACHED
    for warning in () if as_json else answer.warnings:
        connect.warn(f"warning: {warning}")
    if isinstance(answer, RunView):
        try:
            return _follow(client, answer, detach=detach, as_json=as_json, quiet=quiet)
        except OSError as error:
            return _unseen(answer, error)
    if as_json:
        show.document(answer)
    else:
        _print_plan(answer)
    return 0


def submit(
    client: Client,
    chosen: Chosen,
    overrides: Sequence[tuple[str, str]],
    *,
    env: Sequence[str],
    max_snapshot: int,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> RunView | Plan:
    """Send the definitions and, unless another run is repeated, a snapshot. Try the smallest pack first."""
    from dstack.model.project.graph import closure
    from dstack.model.project.variables import apply

    _check(options)
    recipe, workflow = chosen.recipe, chosen.workflow or ""
    variables = apply(chosen.project, workflow, overrides)
    _warn_of_reserved(overrides)
    environment = _environment(env)
    if recipe:
        environment = {**recipe.environment, **environment}
        options["gpus"] = recipe.gpus if options["gpus"] is None else options["gpus"]
    workflows = recipe.workflows if recipe else closure(chosen.project.workflows, workflow)
    options |= {"workflow": workflow, "workflows": workflows, "variables": variables, "environment": environment}
    if recipe:
        return client.submit(Submission(snapshot=recipe.snapshot, user=user(), **options))
    from dstack.snapshot.take import take

    depths, root = {each.fetch_depth for each in workflows}, project.find_root()
    with take(root, limit=max_snapshot, depths=depths) as taken:
        _refuse_links(workflows, variables, taken)
        if not (quiet or as_json or options["dry_run"]):
            say_what_is_sent(taken, root)
        if not as_json:
            warn_of_secrets(taken, root)
        submission = Submission(snapshot=taken.snapshot, user=user(), **options)
        return with_code(taken, lambda pack: client.submit(submission, pack))


def with_code(taken: Taken, send: Callable[[Path], T]) -> T:
    """Send a snapshot's code in the smallest pack that the server can use."""
    try:
        return send(taken.pack())
    except MissingBaseError as missing:
        commits = missing.known
    with suppress(MissingBaseError):
        if commits:
            return send(taken.pack(commits))
    return send(taken.full_pack())


def _refuse_links(workflows: Sequence[Workflow], variables: Mapping[str, Variables], taken: Taken) -> None:
    """Raise UsageError, before anything is sent, if a link is in the way of an artifact."""
    from dstack.model.job.script import expanded
    from dstack.model.project.artifact_links import inside, refuse_links

    links = inside(taken.links, taken.snapshot.project)
    known = {each.name: expanded(each, variables[each.name], "job", "run") for each in workflows} if links else {}
    for workflow in known.values():
        refuse_links(workflow, [known[name] for name in workflow.needs.names], links)


def _check(options: dict[str, Any]) -> None:
    """Raise UsageError for invalid options."""
    from dstack.model.job.names import check_run_name

    if options["name"] is not None:
        check_run_name(options["name"])
    if options["local"] and options["runner"] is not None:
        raise UsageError("--local and --runner can't be used together")


def _environment(given: Sequence[str]) -> dict[str, str]:
    """Parse `KEY=VALUE`, or `KEY` for its value in this environment, as docker does."""
    from dstack.model.project.environment import no_effect

    environment = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not name.isascii():
            raise UsageError(f"-e: '{name}' is not a valid variable name; write -e KEY=VALUE")
        if not equals and name not in os.environ:
            raise UsageError(f"-e: {name} is not set in your environment", hint=f"set its value with -e {name}=VALUE")
        environment[name] = value if equals else os.environ[name]
        if why := no_effect(name):
            connect.warn(f"warning: '{name}' {why}")
    return environment


def _warn_of_reserved(overrides: Sequence[tuple[str, str]]) -> None:
    from dstack.model.project.environment import RESERVED

    for name, _ in overrides:
        if name.replace("-", "_") in RESERVED:
            connect.warn(f"warning: --{name} has no effect: the name is reserved for dstack's own value")


def _follow(client: Client, run: RunView, *, detach: bool, as_json: bool, quiet: bool) -> int:
    display: Display
    if as_json:
        display = JsonEvents()
        display.run(run)
    else:
        if quiet or detach:
            show.line(run.name)
        workflows = [job.workflow for job in run.jobs]
        hidden = terminal(sys.stdout)  # there, a label that stands alone only takes space
        labels = {job.id: job.workflow for job in run.jobs if not (job.cached and hidden)}
        writer = None if quiet else LogWriter(labels)
        display = narrator = ProgressLines(run.jobs, writer, named=run.workflow, quiet=quiet)
        if not quiet and not detach:
            show.say(f"{run.name}: {', '.join(workflows)}")
            narrator.begin()
    if detach:
        if not quiet and not as_json:
            show.say(f"follow it with `dstack logs -f {run.name}`, or wait for its end with `dstack wait {run.name}`")
        return 0
    return to_the_end(client, run.name, display, logs=as_json or not quiet)


def _unseen(run: RunView, error: OSError) -> int:
    """Detach from a run whose output can't be written."""
    trouble = file_trouble(error)
    if error.filename != show.STDOUT or trouble is None:
        raise error
    show.leave_closed_output()
    why = "output closed" if isinstance(error, BrokenPipeError) else trouble.message
    show.say(f"{why}; {run.name} keeps running: follow it with `dstack logs -f {run.name}`")
    return DETACHED


def _print_plan(plan: Plan) -> None:
    """Print for each job whether it is cached, why, and where it would run, then the changes since the commit."""
    rows = []
    for job in plan.jobs:
        why = f"{job.cache.why}; {job.reason}" if job.reason else job.cache.why
        rows.append((job.workflow, "cached" if job.cache.hit else "run", job.runner or "-", why))
    show.table(("WORKFLOW", "PLAN", "RUNNER", "WHY"), rows)
    repo = plan.repo
    commit = f"commit {repo.commit[:12]}" if repo.commit else "no commit"
    branch = f" on {repo.branch}" if repo.branch else ""
    show.line("")
    show.line(f"code: {commit}{branch}, {plan.files} files, {size_words(plan.bytes)}")
    for file in plan.largest[:LARGEST]:
        show.line(f"  {size_words(file.size):>8}  {show.clean(file.path)}".replace("\n", " "))
    show.line(f"changes since the commit: {len(plan.changes) or 'none'}" if repo.commit else f"files: {plan.files}")
    _print_list("", [f"{size_words(each.size):>8}  {each.change:<8}  {show.clean(each.path)}" for each in plan.changes])
    modes = [f"{each.mode:>8}  {show.clean(each.path)}" for each in plan.modes]
    _print_list(f"file modes that differ from umask {plan.umask}", modes)
    _print_list("empty folders", [f"{'':8}  {show.clean(path)}/" for path in plan.empty_folders])


def _print_list(title: str, lines: Sequence[str]) -> None:
    if title and lines:
        show.line(f"{title}: {len(lines)}")
    for line in lines[:SHOWN]:
        show.line(f"  {line}".replace("\n", " "))
    if len(lines) > SHOWN:
        show.line(f"  and {len(lines) - SHOWN} more (--json lists all)")
