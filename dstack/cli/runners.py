"""`dstack runners`: the machines that run jobs."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import click

from dstack.cli import settings, show, words
from dstack.cli.nouns import Noun
from dstack.errors import HostAuthError, UsageError
from dstack.model.api import AddRunner, RunnerView
from dstack.model.runner import Address, Finding
from dstack.server.client import Client
from dstack.server.problems import UnknownHostKeyError

HOST = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[^]]+)\]|(?P<host>[^@:\[\]]+)|(?P<bare>[0-9A-Fa-f:.%]+))(?::(?P<port>\d+))?"
)
NOT_READY = 125
WATCH_SECONDS = 2.0


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
        _list(client.runners(), as_json)


def _watch(client: Client, as_json: bool) -> None:
    """Show them until Ctrl-C, which just ends it."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            runners = client.runners()
            show.clear()
            _list(runners, as_json)
            time.sleep(WATCH_SECONDS)


def _list(runners: list[RunnerView], as_json: bool) -> None:
    if as_json:
        show.document(runners)
    elif not runners:
        show.say("no runners yet; add a machine with `dstack runners add HOST`")
    else:
        columns = ("NAME", "STATE", "CPUS", "MEMORY", "GPUS", "DISK", "JOBS", "LATENCY", "ADDRESS")
        show.table(columns, [_row(runner) for runner in runners])
        for runner in runners:
            if runner.state != "ready":
                _trouble(runner)
            for gpu in runner.use.gpus if runner.use else ():
                if gpu.others:
                    show.say(f"{runner.name}: GPU {gpu.index} is also used by {', '.join(gpu.others)}")


@command.command("add")
@click.argument("host")
@click.option("--name", metavar="NAME", help="What to call it; default: the host's name.")
@click.option("--user", metavar="USER", help="The user to log in as.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="The port of its SSH server.")
@click.option("--identity", metavar="FILE", help="The private key to log in with.")
@click.option("--jump", metavar="HOST", help="Go through this host.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="A label that runs can ask for; repeatable.")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="How many GPUs it has, instead of what is found.")
@click.option("--max-jobs", type=click.IntRange(0), metavar="N", help="How many jobs without resources may share it.")
@click.option("--root", metavar="DIR", help="Where it keeps dstack's files; default: ~/.dstack-host.")
@click.option(
    "--allow-mount",
    "allow_mounts",
    multiple=True,
    metavar="DIR",
    help="A folder of it that jobs may mount, with all below; repeatable.",
)
@click.option("--docker", metavar="COMMAND", help="docker, podman, or 'sudo docker'.")
@click.option("--fingerprint", metavar="SHA256:...", help="The fingerprint of its host key, to pin without asking.")
@click.option("--authorize", is_flag=True, help="Let the server's own key in, so that it needs nobody's agent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def add(
    host: str,
    user: str | None,
    port: int | None,
    identity: str | None,
    jump: str | None,
    authorize: bool,
    as_json: bool,
    **options: object,
) -> int:
    """Add a machine that runs jobs.

    HOST is [USER@]HOST[:PORT], an alias of ~/.ssh/config, or `local` for this machine without SSH. The
    machine is checked, and its host key is shown and pinned.

    A team's server that can't log in by itself has its own key let in, with your keys; `--authorize` does that for your
    own server too. `dstack runners remove` takes it out again.
    """
    address = parse_host(host, user=user, port=port, identity=identity, jump=jump)
    request = AddRunner(address=address, **options)  # type: ignore[arg-type]
    client = settings.connect()
    runner = letting_in(client, request) if authorize else _add(client, request)
    return _report(runner, as_json)


def parse_host(text: str, *, user: str | None, port: int | None, identity: str | None, jump: str | None) -> Address:
    """The address that the words mean. Raises UsageError for one that makes no sense, or says a thing twice."""
    if text == "local":
        if user or port or identity or jump:
            raise UsageError("`local` is this machine, without SSH: it takes no SSH options")
        return Address()
    match = HOST.fullmatch(text)
    if match is None or text.startswith("-"):
        raise UsageError(f"'{text}' is no host", hint="write HOST, USER@HOST, USER@HOST:PORT or [::1]:PORT")
    written = int(match["port"]) if match["port"] else None
    if (user and match["user"] and user != match["user"]) or (port and written and port != written):
        raise UsageError(f"'{text}' and --user or --port say different things")
    if written is not None and not 0 < written < 65536:
        raise UsageError(f"{written} is no port")
    return Address(
        host=match["v6"] or match["host"] or match["bare"],
        user=user or match["user"],
        port=port or written,
        identity=identity and str(Path(identity).expanduser().absolute()),
        jump=jump,
    )


def _add(client: Client, request: AddRunner) -> RunnerView:
    """Add it; a person may vouch for a key that nobody knows yet."""
    try:
        return client.add_runner(request)
    except HostAuthError:
        if client.endpoint.embedded or request.authorized:
            raise
        return letting_in(client, request)
    except UnknownHostKeyError as unknown:
        if request.fingerprint is not None or not show.interactive():
            if not unknown.hint:
                unknown.hint = f"if it is the right one, add --fingerprint {unknown.fingerprint}"
            raise
        show.say(unknown.message)
        if not show.confirm(f"Is {unknown.fingerprint} its key?"):
            raise UsageError("the machine was not added") from unknown
        request.fingerprint = unknown.fingerprint
        return _add(client, request)


def letting_in(client: Client, request: AddRunner) -> RunnerView:
    """Let the server's own key in from here, with this user's keys, then add the machine."""
    if request.address.local:
        raise UsageError("`local` is this machine, without SSH: no key is needed")
    from dstack.cli import letin

    own = client.key()
    show.say(f"letting the key of the server in on {request.address}")
    request.fingerprint = letin.let_in(request.address, request.fingerprint, own)
    request.authorized = True
    return _add(client, request)


@command.command("check")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(name: str, as_json: bool) -> int:
    """Look at a machine now.

    Says what to do about what is wrong, and exits with 0 if it is ready.
    """
    return _report(settings.connect().check_runner(name), as_json)


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


@command.command("approve")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def approve(names: tuple[str, ...], as_json: bool) -> None:
    """Approve machines that registered with dstack-runner.

    Without NAME, the machines that wait for it. Compare the fingerprint with `ssh-keygen -l` on the machine.
    """
    client = settings.connect()
    if not names:
        waiting = [each for each in client.registrations() if not each.approved]
        if as_json:
            show.document(waiting)
        elif not waiting:
            show.say("no machine waits for approval")
        else:
            rows = [(each.name, each.address, ", ".join(each.gpus), each.fingerprints[0]) for each in waiting]
            show.table(("NAME", "ADDRESS", "GPUS", "HOST KEY"), rows)
        return
    approved = [client.approve(name) for name in names]
    if as_json:
        show.document(approved)
    for each in approved:
        show.say(f"{each.name}: approved; it is added with its next sign of life")


@command.command("token")
def token() -> None:
    """Make a token for dstack-runner.

    It registers one machine, which needs no approval then.
    """
    show.line(settings.connect().registration_token().token)


@command.command("drain")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
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
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def resume(names: tuple[str, ...]) -> None:
    """Give a drained machine jobs again."""
    client = settings.connect()
    for name in names:
        runner = client.resume_runner(name)
        show.say(f"{name}: takes jobs again" + ("" if runner.state == "ready" else f", once it is not {runner.state}"))


@command.command("remove")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
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


def _report(runner: RunnerView, as_json: bool) -> int:
    if as_json:
        show.document(runner)
    else:
        show.fields(
            [
                ("name", runner.name),
                ("address", runner.address),
                ("state", runner.state),
                ("host key", runner.host_key),
                ("labels", ", ".join(runner.labels) or None),
                ("mounts", ", ".join(runner.allow_mounts) or None),
                ("cpus", str(runner.cpus) if runner.cpus else None),
                ("memory", words.memory(runner.memory) if runner.memory else None),
                ("gpus", gpus(runner) if runner.gpus else None),
                ("disk free", words.size(runner.disk_free) if runner.disk_free else None),
                ("latency", _latency(runner) or None),
            ]
        )
        if runner.state != "ready" and not any(finding.blocking for finding in runner.findings):
            _trouble(runner)
        for finding in runner.findings:
            _finding(runner, finding)
    return 0 if runner.state == "ready" else NOT_READY


def _trouble(runner: RunnerView) -> None:
    show.say(f"{runner.name}: {runner.state}" + (f": {runner.reason}" if runner.reason else ""), style="yellow")
    if runner.fix:
        show.say(f"hint: {runner.fix}")


def _finding(runner: RunnerView, finding: Finding) -> None:
    state = f"{runner.state}: " if finding.blocking else "ready, but " if runner.state == "ready" else ""
    show.say(f"{runner.name}: {state}{finding.what}", style="yellow")
    show.say(f"  why: {finding.why}")
    show.say(f"  fix: {finding.fix}")


def _row(runner: RunnerView) -> tuple[str, ...]:
    return (
        runner.name,
        runner.state,
        _cpus(runner),
        _memory(runner),
        free_gpus(runner),
        words.size(runner.disk_free) if runner.disk_free else "",
        str(len(runner.jobs)),
        _latency(runner),
        runner.address,
    )


def _cpus(runner: RunnerView) -> str:
    """`16`, or `16 35%` when it is known how busy they are."""
    if runner.use is None or runner.use.cpu is None:
        return str(runner.cpus or "")
    return f"{runner.cpus} {runner.use.cpu:.0f}%"


def _memory(runner: RunnerView) -> str:
    """`64 GB`, or `12/64 GB`."""
    if not runner.memory:
        return ""
    whole = words.memory(runner.memory)
    return f"{runner.use.memory_used / 1024**3:.0f}/{whole}" if runner.use and whole.endswith("GB") else whole


def free_gpus(runner: RunnerView) -> str:
    """`1/2 A100`: one of two is free."""
    if not runner.gpus:
        return gpus(runner)
    names = dict.fromkeys(gpu.name or "GPU" for gpu in runner.gpus)
    return f"{runner.gpus_free}/{len(runner.gpus)} {', '.join(names)}"


def gpus(runner: RunnerView) -> str:
    """`2x A100, 1x V100`."""
    names = [gpu.name or "GPU" for gpu in runner.gpus]
    return ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names)) or "0"


def _latency(runner: RunnerView) -> str:
    return "" if runner.latency_ms is None else f"{runner.latency_ms:.0f} ms"
