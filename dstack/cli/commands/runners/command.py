"""`dstack runners`: manage the machines that run jobs."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from msgspec.structs import replace

from dstack.cli import connect
from dstack.cli.commands.runners.add import add
from dstack.cli.output import runners as output
from dstack.cli.output import show
from dstack.cli.parameters import RUNNER, Noun, json_option
from dstack.errors import NotFoundError, UsageError

RECHECK_SECONDS = 30.0
"""`--watch` probes runners no more often than usual; their use is sampled separately."""

AT_ONCE = 16
"""How many runners are checked at a time."""

names_argument = click.argument("names", metavar="NAME...", nargs=-1, required=True, type=RUNNER)


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
    if not watch:
        output.table(client.runners(), as_json)
        return
    ages = itertools.chain([None], itertools.repeat(RECHECK_SECONDS))

    def draw() -> bool:
        output.table(client.runners(fresh=next(ages)), as_json)
        return True

    show.watch(draw, as_json=as_json)


command.add_command(add)


@command.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1, type=RUNNER)
@json_option
def check(names: tuple[str, ...], as_json: bool) -> int:
    """Check runners now, with a new login.

    Without NAME, check all. Tests whether containers get the GPUs, prints a fix for every problem, and exits with 0 if
    all runners are ready, else with 125.
    """
    client = connect.connect()
    wanted = names or tuple(runner.name for runner in client.runners(fresh=float("inf")))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(client.check_runner, wanted))
    if len(names) == 1:
        return output.report(found[0], as_json)
    if as_json or not found:
        output.table(found, as_json)
    codes = [output.report(runner, False) for runner in found if not as_json]
    return max(codes, default=0)


@command.command("clean")
@click.argument("name", type=RUNNER)
@click.argument("orphans", metavar="ORPHAN...", nargs=-1, required=True)
def clean(name: str, orphans: tuple[str, ...]) -> None:
    """Remove orphans from a runner.

    An orphan is what is there of a job that the server does not know, such as one of a runner that was removed with
    --force and added again. `dstack runners check NAME` lists them. A running one is killed; nothing of it is stored.
    """
    connect.connect().clean_runner(name, orphans)
    for orphan in orphans:
        show.say(f"{name}: removed {orphan}")


@command.command("import")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@json_option
def import_(file: Path, dry_run: bool, as_json: bool) -> int:
    """Make the runners match an Ansible inventory.

    FILE is YAML, INI, a program that prints JSON, or a folder of these; group_vars/ and host_vars/ beside it are read.
    dstack adds and changes runners, and drains and removes those no longer in the file. Groups become labels. The
    variables dstack_labels, dstack_gpus, dstack_max_jobs, dstack_root, dstack_docker, dstack_allow_mount,
    dstack_fingerprint and dstack_skip are settings for dstack. Runners that you added by hand are left unchanged,
    unless the file names them.

    A host that can't be used is skipped with the reason, and its runner is left unchanged; the exit code is then 125.
    """
    from dstack.cli.commands.runners import import_inventory

    client = connect.connect()
    todo = import_inventory.steps(client, file)
    if not todo.steps:
        show.say(f"{file} names no host; nothing was changed")
    if as_json:
        steps = [{"name": step.name, "do": step.do, "differences": list(step.differences)} for step in todo.steps]
        skipped = [{"name": host, "do": "skip", "differences": [], "reason": why} for host, why in todo.skipped.items()]
        show.document([*steps, *skipped])
    code = 0
    if not dry_run:
        code = import_inventory.apply(client, todo.steps, quiet=as_json)
    for step in todo.steps if dry_run and not as_json else ():
        show.line(show.clean(f"{step.name}: {step.words}"))
    import_inventory.tell_skipped(todo.skipped)
    return import_inventory.FAILED if todo.skipped else code


@command.command("set")
@click.argument("name", type=RUNNER)
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="New labels, replacing all; '' for none; repeatable."
)
@click.option("--gpus", type=click.IntRange(0, 1024), metavar="N", help="How many GPUs jobs may use.")
@click.option(
    "--max-jobs",
    type=click.IntRange(0, 10**6),
    metavar="N",
    help="How many jobs that ask for no resources may run at once.",
)
@click.option(
    "--allow-mount",
    "allow_mounts",
    multiple=True,
    metavar="DIR",
    help="Folders that jobs may mount, replacing all; '' for none; repeatable.",
)
@json_option
def set_(name: str, as_json: bool, **options: object) -> int:
    """Change a runner's settings.

    Running jobs are not affected. If the runner comes from an inventory, the next import restores the file's settings.
    """
    given = {option: value for option, value in options.items() if value not in ((), None)}
    if not given:
        raise UsageError("nothing to change; give at least one option", hint="dstack runners set --help")
    client = connect.connect()
    definition = next((runner.definition for runner in client.runners() if runner.name == name), None)
    if definition is None:
        raise NotFoundError(f"no runner '{name}'", hint="dstack runners")
    changes = {
        option: tuple(text for text in value if text) if isinstance(value, tuple) else value
        for option, value in given.items()
    }
    return output.report(client.change_runner(name, replace(definition, **changes)), as_json)


@command.command("approve")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def approve(names: tuple[str, ...], as_json: bool) -> None:
    """Approve machines that registered with dstack-runner.

    Without NAME, list the machines that wait for approval. Before you approve one, compare its fingerprint with the
    output of `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine.
    """
    client = connect.connect()
    if not names:
        show.list_table(
            [each for each in client.registrations() if not each.approved],
            ("NAME", "ADDRESS", "GPUS", "HOST KEY"),
            lambda each: (each.name, each.address, ", ".join(each.gpus), each.fingerprints[0]),
            "no machine is waiting for approval",
            as_json=as_json,
        )
        return
    approved = [client.approve(name) for name in names]
    if as_json:
        show.document(approved)
    for each in approved:
        show.say(f"{each.name}: approved; it is added at its next heartbeat")


@command.command("token")
def token() -> None:
    """Create a token for dstack-runner.

    The token registers one machine, which then needs no approval.
    """
    show.line(connect.connect().registration_token().token)


@command.command("drain")
@names_argument
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
        if others := [name for name in runner.same_machine if name not in names]:
            show.say(f"hint: this machine is also {', '.join(others)}: dstack runners drain {' '.join(others)}")
    if not wait:
        return
    pause = 0.2
    while any(runner.jobs for runner in client.runners() if runner.name in names):
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)
    for name in names:
        show.say(f"{name}: idle")


@command.command("resume")
@names_argument
def resume(names: tuple[str, ...]) -> None:
    """Give a drained runner jobs again."""
    client = connect.connect()
    for name in names:
        runner = client.resume_runner(name)
        later = "" if runner.state == "ready" else f" when it is no longer {runner.state}"
        show.say(f"{name}: gets jobs again{later}")


@command.command("remove")
@names_argument
@click.option("--force", is_flag=True, help="Remove it even if it can't be cleaned up.")
def remove(names: tuple[str, ...], force: bool) -> None:
    """Remove a runner and all that dstack put on the machine.

    Deletes dstack's folder, containers, volumes and images there, then checks that nothing is left. If something is
    left, the runner is not removed. What another runner on the same machine uses stays.
    """
    client = connect.connect()
    for name in names:
        used_by = client.remove_runner(name, force=force).used_by
        left = f"; {output.stays(used_by)}" if used_by else "; nothing is left on the machine"
        show.say(f"{name}: removed" + ("" if force and not used_by else left))
