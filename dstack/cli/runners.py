"""`dstack runners`: the machines that run jobs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from dstack.cli import adding, changing, machine, offered, settings, show
from dstack.cli.lookup import RUNNER
from dstack.cli.nouns import Noun
from dstack.server.client import Client

WATCH_SECONDS = 2.0
RECHECK_SECONDS = 30.0
"""While they are shown live, they are looked at no more often than otherwise: what they do is sampled beside it."""


@click.group("runners", cls=Noun, invoke_without_command=True)
@click.option("-w", "--watch", is_flag=True, help="Show them again every two seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, watch: bool, as_json: bool) -> None:
    """Show, add, check and remove machines.

    Without a command, all of them: state, processors and memory with what is used of them by whoever it is, GPUs free
    of all, disk, jobs, latency, and what is wrong.
    """
    if ctx.invoked_subcommand is not None:
        return
    client = settings.connect()
    if watch:
        _watch(client, as_json)
    else:
        machine.table(client.runners(), as_json)


def _watch(client: Client, as_json: bool) -> None:
    """Show them until Ctrl-C, which just ends it."""
    with contextlib.suppress(KeyboardInterrupt):
        runners = client.runners()
        while True:
            if not as_json:
                show.clear()
            machine.table(runners, as_json)
            time.sleep(WATCH_SECONDS)
            runners = client.runners(fresh=RECHECK_SECONDS)


command.add_command(adding.add)


@command.command("check")
@click.argument("name", type=RUNNER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(name: str, as_json: bool) -> int:
    """Look at a machine now.

    Says what to do about what is wrong, and exits with 0 if it is ready.
    """
    return machine.report(settings.connect().check_runner(name), as_json)


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show the difference; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(file: Path, dry_run: bool, as_json: bool) -> int:
    """Make the machines those of an Ansible inventory.

    FILE is YAML, INI, or a program that prints JSON; group_vars/ and host_vars/ beside it count. Machines are added,
    changed, and drained and removed when they are no longer in it. Groups become labels; the variables dstack_labels,
    dstack_gpus, dstack_root, dstack_docker, dstack_allow_mount, dstack_fingerprint and dstack_skip are for dstack.
    Machines that were added by hand are let be.
    """
    from dstack.cli import importing

    client = settings.connect()
    todo = importing.steps(client, file)
    if as_json:
        show.document([{"name": step.name, "do": step.do, "differences": list(step.differences)} for step in todo])
    if not dry_run:
        return importing.apply(client, todo, quiet=as_json)
    for step in todo if not as_json else ():
        show.line(show.clean(f"{step.name}: {importing.words(step)}"))
    return 0


command.add_command(changing.set_)
command.add_command(offered.approve)
command.add_command(offered.token)


@command.command("drain")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)
@click.option("--reason", metavar="TEXT", default="by hand", show_default=True, help="Why; shown to everybody.")
@click.option("--wait", is_flag=True, help="Return when its last job has ended.")
def drain(names: tuple[str, ...], reason: str, wait: bool) -> None:
    """Give a machine no new jobs.

    What it runs goes on. `dstack runners resume NAME` gives it jobs again.
    """
    client = settings.connect()
    drained = [client.drain_runner(name, reason) for name in names]
    for runner in drained:
        jobs = len(runner.jobs)
        still = f"; {jobs} {'job goes' if jobs == 1 else 'jobs go'} on" if jobs else ""
        show.say(f"{runner.name}: takes no new jobs{still}")
    if wait:
        _wait(client, names)


def _wait(client: Client, names: tuple[str, ...]) -> None:
    """Return when none of these has a job left."""
    pause = 0.2
    while any(runner.jobs for runner in client.runners() if runner.name in names):
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)
    for name in names:
        show.say(f"{name}: idle")


@command.command("resume")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)
def resume(names: tuple[str, ...]) -> None:
    """Give a drained machine jobs again."""
    client = settings.connect()
    for name in names:
        runner = client.resume_runner(name)
        show.say(f"{name}: takes jobs again" + ("" if runner.state == "ready" else f", once it is not {runner.state}"))


@command.command("remove")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)
@click.option("--force", is_flag=True, help="Forget it even if it can't be cleaned up.")
def remove(names: tuple[str, ...], force: bool) -> None:
    """Remove a machine, and everything of dstack's from it.

    Its folder, containers, volumes and images of dstack's are removed, and it is asked what is left: only if that is
    nothing, the machine is forgotten.
    """
    client = settings.connect()
    for name in names:
        client.remove_runner(name, force=force)
        show.say(f"{name}: removed" + ("" if force else "; nothing of it is left there"))
