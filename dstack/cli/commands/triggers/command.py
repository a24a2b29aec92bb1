"""`dstack triggers`: list triggers, show one, and change when they start runs."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.commands.triggers.apply import add, apply
from dstack.cli.output import show, words
from dstack.cli.parameters import TRIGGER, Noun, json_option, yes_option
from dstack.errors import UsageError
from dstack.model.api.triggers import TickView, TriggerView

COLUMNS = ("NAME", "WORKFLOW", "WHEN", "STATE", "NEXT", "LAST", "RESULT", "RUN", "WHY")
SPARE = ("WORKFLOW", "LAST", "RUN")
name_argument = click.argument("name", type=TRIGGER)


@click.group("triggers", cls=Noun, invoke_without_command=True, no_args_is_help=False)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the triggers, or change them.

    A trigger starts runs by itself: at times like cron's, or when a branch gets new commits. Write triggers under
    `triggers:` in .dstack/workflows.yaml and register them with `dstack triggers apply`.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise UsageError("write --json after the command", hint=f"dstack triggers {ctx.invoked_subcommand} --json")
        return
    none = "no triggers yet; write `triggers:` in .dstack/workflows.yaml, then type: dstack triggers apply"
    show.list_table(connect.connect().triggers(), COLUMNS, _row, none, as_json=as_json, spare=SPARE)


command.add_command(apply)
command.add_command(add)


@command.command("show")
@name_argument
@json_option
def show_one(name: str, as_json: bool) -> None:
    """Show a trigger in full, with what happened last."""
    trigger = connect.connect().trigger(name)
    if as_json:
        show.document(trigger)
        return
    variables = [f"{key}={value}" for key, value in trigger.variables.items()]
    when = f"{trigger.cron} ({trigger.timezone})" if trigger.cron else f"pushes to {trigger.push}"
    show.fields(
        [
            ("trigger", trigger.name),
            ("workflow", trigger.workflow),
            ("state", trigger.state),
            ("reason", trigger.reason),
            ("when", when),
            ("next", words.local(trigger.next) if trigger.next else None),
            ("code", trigger.code),
            ("remote", trigger.url),
            ("variables", "\n".join(variables) or None),
            ("overlap", trigger.overlap),
            ("missed", f"{trigger.missed}, within {trigger.deadline}" if trigger.deadline else trigger.missed),
            ("failures", f"{trigger.failures} in a row" if trigger.failures else None),
            ("owner", trigger.owner),
            ("source", trigger.source or "added by hand"),
        ]
    )
    if trigger.ticks:
        show.line("")
        show.table(("AT", "RESULT", "RUN", "COMMIT", "WHY"), map(_tick_row, trigger.ticks))


@command.command("run")
@name_argument
@json_option
def run(name: str, as_json: bool) -> None:
    """Let a trigger start a run now, even if it is paused."""
    tick = connect.connect().run_trigger(name)
    if as_json:
        show.document(tick)
    else:
        show.say(f"{name}: will run; see what becomes of it: dstack triggers show {name}")


@command.command("pause")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=TRIGGER)
def pause(names: tuple[str, ...]) -> None:
    """Let triggers start nothing until they are resumed.

    Runs in progress go on.
    """
    client = connect.connect()
    for name in names:
        client.pause_trigger(name)
        show.say(f"{name}: paused")


@command.command("resume")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=TRIGGER)
def resume(names: tuple[str, ...]) -> None:
    """Let paused triggers start runs again.

    The times during the pause are left out.
    """
    client = connect.connect()
    for name in names:
        trigger = client.resume_trigger(name)
        show.say(f"{name}: resumed" + (f", next {words.local(trigger.next)}" if trigger.next else ""))


@command.command("remove")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=TRIGGER)
@yes_option
def remove(names: tuple[str, ...], yes: bool) -> None:
    """Remove triggers. Their runs stay."""
    if not yes and show.interactive() and not show.confirm(f"Remove {', '.join(names)}?"):
        raise UsageError("nothing was removed")
    client = connect.connect()
    for name in names:
        client.remove_trigger(name)
        show.say(f"{name}: removed")


def _row(trigger: TriggerView) -> tuple[str, ...]:
    last = trigger.last
    when = f"{trigger.cron} {trigger.timezone}" if trigger.cron else f"push to {trigger.push}"
    why = trigger.reason or (last.why if last else None) or ""
    following = words.local(trigger.next) if trigger.next else "-"
    seen = words.ago(last.at) if last else "-"
    result, run = (last.result, last.run or "-") if last else ("-", "-")
    return trigger.name, trigger.workflow, when, trigger.state, following, seen, result, run, words.local(why)


def _tick_row(tick: TickView) -> tuple[str, ...]:
    return words.local(tick.at), tick.result, tick.run or "-", (tick.commit or "-")[:12], words.local(tick.why or "")
