"""`dstack runners`: manage the machines that run jobs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from dstack.cli import connect
from dstack.cli.commands.runners import add, registrations
from dstack.cli.commands.runners.set import set_
from dstack.cli.names import RUNNER, Noun
from dstack.cli.options import json_option
from dstack.cli.output import runners as output
from dstack.cli.output import show
from dstack.client.client import Client

WATCH_SECONDS = 2.0
RECHECK_SECONDS = 30.0
"""`--watch` probes runners no more often than usual; their use is sampled separately."""


@click.group("runners", cls=Noun, invoke_without_command=True)
@click.option("-w", "--watch", is_flag=True, help="Refresh every two seconds until Ctrl-C.")
@json_option
@click.pass_context
def command(ctx: click.Context, watch: bool, as_json: bool) -> None:
    """Manage runners, the machines that run jobs.

    Without a command, list all runners: state, CPUs and memory with their total use, free and total GPUs, free disk
    space, number of jobs, latency and problems.
    """
    if ctx.invoked_subcommand is not None:
        return
    client = connect.connect()
    if watch:
        _watch(client, as_json)
    else:
        output.table(client.runners(), as_json)


def _watch(client: Client, as_json: bool) -> None:
    """Print the table again and again until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        runners = client.runners()
        while True:
            if not as_json:
                show.clear()
            output.table(runners, as_json)
            time.sleep(WATCH_SECONDS)
            runners = client.runners(fresh=RECHECK_SECONDS)


command.add_command(add.add)


@command.command("check")
@click.argument("name", type=RUNNER)
@json_option
def check(name: str, as_json: bool) -> int:
    """Check a runner now.

    Prints a fix for every problem, and exits with 0 if the runner is ready, else with 125.
    """
    return output.report(connect.connect().check_runner(name), as_json)


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@json_option
def import_(file: Path, dry_run: bool, as_json: bool) -> int:
    """Make the runners match an Ansible inventory.

    FILE is YAML, INI or a program that prints JSON; group_vars/ and host_vars/ beside it are read. dstack adds and
    changes runners, and drains and removes those no longer in the file. Groups become labels. The variables
    dstack_labels, dstack_gpus, dstack_root, dstack_docker, dstack_allow_mount, dstack_fingerprint and dstack_skip are
    settings for dstack. Runners that you added by hand are left unchanged, unless the file names them.
    """
    from dstack.cli.commands.runners import import_inventory

    client = connect.connect()
    todo = import_inventory.steps(client, file)
    if as_json:
        show.document([{"name": step.name, "do": step.do, "differences": list(step.differences)} for step in todo])
    if not dry_run:
        return import_inventory.apply(client, todo, quiet=as_json)
    for step in todo if not as_json else ():
        show.line(show.clean(f"{step.name}: {import_inventory.words(step)}"))
    return 0


command.add_command(set_)
command.add_command(registrations.approve)
command.add_command(registrations.token)


@command.command("drain")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)
@click.option("--reason", metavar="TEXT", default="by hand", help="Reason, shown to all users; default: by hand.")
@click.option("--wait", is_flag=True, help="Return once the last job has ended.")
def drain(names: tuple[str, ...], reason: str, wait: bool) -> None:
    """Stop giving new jobs to a runner.

    Running jobs continue. `dstack runners resume NAME` undoes this.
    """
    client = connect.connect()
    drained = [client.drain_runner(name, reason) for name in names]
    for runner in drained:
        jobs = len(runner.jobs)
        still = f"; {jobs} {'job keeps' if jobs == 1 else 'jobs keep'} running" if jobs else ""
        show.say(f"{runner.name}: gets no new jobs{still}")
    if wait:
        _wait(client, names)


def _wait(client: Client, names: tuple[str, ...]) -> None:
    """Return once none of these runners has a job."""
    pause = 0.2
    while any(runner.jobs for runner in client.runners() if runner.name in names):
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)
    for name in names:
        show.say(f"{name}: idle")


@command.command("resume")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)
def resume(names: tuple[str, ...]) -> None:
    """Give a drained runner jobs again."""
    client = connect.connect()
    for name in names:
        runner = client.resume_runner(name)
        show.say(
            f"{name}: gets jobs again" + ("" if runner.state == "ready" else f" when it is no longer {runner.state}")
        )


@command.command("remove")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)
@click.option("--force", is_flag=True, help="Remove it even if it can't be cleaned up.")
def remove(names: tuple[str, ...], force: bool) -> None:
    """Remove a runner and all that dstack put on the machine.

    Deletes dstack's folder, containers, volumes and images there, then checks that nothing is left. If something is
    left, the runner is not removed.
    """
    client = connect.connect()
    for name in names:
        client.remove_runner(name, force=force)
        show.say(f"{name}: removed" + ("" if force else "; nothing is left on the machine"))
