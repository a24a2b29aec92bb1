"""`dstack sweep`: many runs of one workflow with different variables."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dstack.cli import connect
from dstack.cli.commands.run.arguments import Walk
from dstack.cli.commands.run.code import send, taken_code
from dstack.cli.commands.run.command import Chosen, parse_environment
from dstack.cli.commands.sweep.follow import SweepJson, SweepLines, follow
from dstack.cli.output import show
from dstack.cli.parameters import RUNNER, SIZE, NounOrName
from dstack.client.client import Client
from dstack.client.settings import user
from dstack.errors import ProjectError, UsageError
from dstack.model.api.runs import Submission
from dstack.model.api.sweeps import SweepSubmission, SweepView
from dstack.model.sweep.status import SweepMethod

if TYPE_CHECKING:
    from dstack.model.project.workflow import SweepSettings, Variables, Workflow
    from dstack.model.sweep.plan import SweepPlan

DETACHED = 130
COUNT = click.IntRange(1, 10_000)


class SweepGroup(NounOrName):
    """`sweep WORKFLOW [--VARIABLE SPACE]...` beside `sweep show NAME` and others. The first word decides."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if (args and args[0] in self.commands) or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        chosen = Chosen()
        try:
            words = Walk(args, self.params, chosen.variables, lambda run: {}, "dstack sweep")
        except ProjectError as invalid:
            if not {"-h", "--help", "--dry-run"}.intersection(args):
                invalid.consequence = "; nothing was submitted"
            raise
        if words.help:
            self._help(ctx, chosen, words.workflow)
        if words.workflow is None:
            raise UsageError("no workflow given", hint="`dstack sweep --help` lists the workflows")
        rest = super().parse_args(ctx, words.options)
        ctx.params.update(chosen=chosen, overrides=words.overrides)
        return rest

    def _help(self, ctx: click.Context, chosen: Chosen, workflow: str | None) -> None:
        from dstack.cli.commands.run.help import show_help, show_workflow

        if workflow is None:
            show_help(ctx, self)
        else:
            show_workflow(ctx, chosen.project, workflow)
        ctx.exit()

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS] WORKFLOW [--VARIABLE SPACE]... | COMMAND [ARGS]..."]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from dstack.cli.commands.run.help import complete

        return [*complete(ctx, incomplete), *super().shell_complete(ctx, incomplete)]


@click.group("sweep", cls=SweepGroup, invoke_without_command=True, add_help_option=False)
@click.option("-d", "--detach", is_flag=True, help="Submit the sweep, print its name and return.")
@click.option("--name", metavar="NAME", help="Name of the sweep; its runs are NAME-1, NAME-2 and so on.")
@click.option(
    "--method",
    type=click.Choice(("grid", "random", "tpe")),
    help="How to choose values; default: grid if --max-runs allows all of it.",
)
@click.option("--metric", metavar="NAME", help="The metric that decides which trial is the best.")
@click.option(
    "--goal",
    type=click.Choice(("minimize", "maximize")),
    help="What is better; default: what the name of the metric says.",
)
@click.option(
    "--of", type=click.Choice(("last", "min", "max", "best")), help="Which value of a trial counts; default: last."
)
@click.option("--max-runs", type=COUNT, metavar="N", help="Try at most N combinations.")
@click.option("--parallel", type=COUNT, metavar="N", help="Keep N trials queued or running; default: 4.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Repeat the random values of this seed.")
@click.option("--try-first", multiple=True, metavar="NAME=VALUE,...", help="Begin with these values; repeatable.")
@click.option("--stop-early", metavar="RULE[:STEP]", help="Stop losing trials, after STEP: median or asha.")
@click.option("--max-failures", type=COUNT, metavar="N", help="Submit no new trials after N have failed.")
@click.option("--runner", metavar="NAME_OR_LABEL", type=RUNNER, help="Run on this runner, or on those with this label.")
@click.option("--local", is_flag=True, help="Run on the server's own machine, without SSH.")
@click.option("--gpus", type=click.IntRange(0, 1024), metavar="N", help="Number of GPUs for each run of WORKFLOW.")
@click.option("--priority", type=click.IntRange(0, 100), metavar="N", help="0 to 100, highest first.")
@click.option("--wait-for-runner", is_flag=True, help="Queue the trials even if no runner could run them yet.")
@click.option("--no-cache", is_flag=True, help="Run the dependencies of every trial even if they are cached.")
@click.option("-e", "env", multiple=True, metavar="KEY=VALUE", help="Set an environment variable in every job.")
@click.option(
    "--max-snapshot",
    type=SIZE,
    default="256MB",
    metavar="SIZE",
    help="Refuse to send more changed and untracked data than this; default: 256MB, 0 for no limit.",
)
@click.option("--dry-run", is_flag=True, help="Show the values of the trials; submit nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object per line, the last is the sweep.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the sweep's name.")
@click.option("-h", "--help", is_flag=True, help="Show this help, or after WORKFLOW its variables.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    chosen: Chosen | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    **options: Any,
) -> int:
    """Try many values of a workflow's variables.

    SPACE is a list of values (a,b,c), whole numbers (1..10), steps (0..1:0.1) or any fraction (0.0..1.0, or
    1e-5..1e-1:log to try each order of magnitude equally often). A variable with one value has it in all trials.
    `sweep:` in workflows.yaml says the same, and options replace its keys.

    Each trial is a run. NAME:best is the best one wherever a run is expected. The exit code is 0 if a trial is done.

    If a workflow is called like a command below, type `dstack sweep -- WORKFLOW`. After WORKFLOW, a variable wins over
    an option with the same name.
    """
    if chosen is None:
        return 0
    from dstack.cli.commands.sweep.settings import settings_of
    from dstack.model.project.variables import apply
    from dstack.model.sweep.plan import plan

    workflow = chosen.project.workflows[chosen.workflow or ""]
    known = list(chosen.variables(workflow.name))
    settings, fixed = settings_of(workflow.sweep, known, list(overrides), options)
    made = plan(settings, workflow, known, random.SystemRandom().randrange(2**31))
    variables = apply(chosen.project, workflow.name, fixed)
    if options["dry_run"]:
        print_trials(made, as_json=options["as_json"])
        return 0
    return submit_and_follow(chosen, workflow, variables, settings, options)


def submit_and_follow(
    chosen: Chosen,
    workflow: Workflow,
    variables: dict[str, Variables],
    settings: SweepSettings,
    options: dict[str, Any],
) -> int:
    client = connect.connect()
    try:
        sweep = submit(client, chosen, workflow, variables, settings, options)
    except KeyboardInterrupt:
        show.say("interrupted while submitting; `dstack sweep list` shows whether the sweep was accepted")
        return DETACHED
    if options["as_json"]:
        json = SweepJson()
        json.sweep(sweep)
        return 0 if options["detach"] else follow(client, sweep.name, json)
    lines = SweepLines(sweep, quiet=options["quiet"])
    if options["quiet"] or options["detach"]:
        show.line(sweep.name)
    if not options["detach"]:
        lines.begin()
        return follow(client, sweep.name, lines)
    if not options["quiet"]:
        show.say(f"look at it with `dstack sweep show {sweep.name}`")
    return 0


def submit(
    client: Client,
    chosen: Chosen,
    workflow: Workflow,
    variables: dict[str, Variables],
    settings: SweepSettings,
    options: dict[str, Any],
) -> SweepView:
    """Send the sweep with its code."""
    from dstack.model.job.names import check_run_name
    from dstack.model.project.graph import closure

    if options["name"] is not None:
        check_run_name(options["name"])
    if options["local"] and options["runner"] is not None:
        raise UsageError("--local and --runner can't be used together")
    common = {name: options[name] for name in ("name", "runner", "local", "gpus", "priority", "no_cache")}
    workflows = closure(chosen.project.workflows, workflow.name)
    environment = parse_environment(options["env"])
    loud = not (options["quiet"] or options["as_json"])
    with taken_code(workflows, variables, options["max_snapshot"], say=loud, warn=not options["as_json"]) as taken:
        submission = Submission(
            workflow=workflow.name,
            workflows=workflows,
            variables=variables,
            snapshot=taken.snapshot,
            user=user(),
            environment=environment,
            wait_for_runner=options["wait_for_runner"],
            **common,
        )
        wish = SweepSubmission(settings=settings, submission=submission)
        return send(taken, lambda pack: client.submit_sweep(wish, pack))


def print_trials(made: SweepPlan, *, as_json: bool) -> None:
    """Print the values of all trials that depend on no result."""
    from dstack.model.sweep.points import foreseeable

    trials = list(foreseeable(made))
    if as_json:
        about = {"method": made.method, "seed": made.seed, "max_runs": made.max_runs}
        show.document({"trials": [{"values": values} for values in trials], **about})
        return
    rows = [(str(number), *values.values()) for number, values in enumerate(trials, 1)]
    show.table(("TRIAL", *made.params), rows)
    show.say(f"{made.method.value}, seed {made.seed}: {len(trials)} of {made.max_runs} trials")
    if len(trials) < made.max_runs:
        learns = "the values of the others depend on the results of these"
        show.say(learns if made.method is SweepMethod.TPE else "there are no more combinations")
