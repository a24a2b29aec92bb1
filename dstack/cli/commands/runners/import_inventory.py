"""Makes the server's runners match an inventory file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dstack.cli.commands.runners.difference import Step, difference
from dstack.cli.output import show
from dstack.client.client import Client
from dstack.errors import ConflictError, DstackError, HostError, UnknownHostKeyError
from dstack.inventory.read import read
from dstack.inventory.runners import machines

AT_ONCE = 16
FAILED = 125


def steps(client: Client, file: Path) -> list[Step]:
    """Return the steps that make the server match the file."""
    source = str(file.absolute())
    wanted = machines(read(file), source)
    return difference(wanted, client.runners(), source)


def apply(client: Client, todo: list[Step], *, quiet: bool = False) -> int:
    """Carry out the steps in parallel, print the result of each (`quiet`: only failures), and return the exit code."""
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for step, outcome in zip(todo, pool.map(lambda step: _done(client, step), todo), strict=True):
            if isinstance(outcome, UnknownHostKeyError):
                outcome = _confirmed(client, step, outcome)
            if isinstance(outcome, DstackError):
                failed += 1
                show.say(f"{step.name}: {outcome.message}", style="red")
                if outcome.hint:
                    show.say(f"  hint: {outcome.hint}")
            elif not quiet:
                show.line(show.clean(f"{step.name}: {outcome}"))
    if failed:
        show.say(f"{failed} of {len(todo)} runners could not be updated; run the same command to try again")
    return FAILED if failed else 0


def words(step: Step) -> str:
    """Say what a step would do."""
    if step.do == "change":
        return f"change {'; '.join(step.differences)}"
    if step.do == "add":
        assert step.wanted
        labels = f", labels {', '.join(step.wanted.labels)}" if step.wanted.labels else ""
        return f"add {step.wanted.address}{labels}"
    return {"keep": "unchanged", "remove": "drain and remove: it is no longer in the file"}[step.do]


def _confirmed(client: Client, step: Step, unknown: UnknownHostKeyError) -> str | DstackError:
    """Ask the user at the terminal to confirm the host key, then try again."""
    assert step.wanted
    if show.interactive() and show.confirm(f"{unknown.message}. Is the key right?"):
        step.wanted.fingerprint = unknown.fingerprint
        return _done(client, step)
    unknown.hint = f"if the key is right, set the host's variable dstack_fingerprint: {unknown.fingerprint}"
    return unknown


def _done(client: Client, step: Step) -> str | DstackError:
    try:
        return _do(client, step)
    except DstackError as error:
        return error


def _do(client: Client, step: Step) -> str:
    if step.do == "add":
        assert step.wanted
        client.add_runner(step.wanted)
        return f"added, {step.wanted.address}"
    if step.do == "change":
        assert step.wanted
        client.change_runner(step.name, step.wanted)
        return f"changed {'; '.join(step.differences)}"
    if step.do == "remove":
        return _removed(client, step.name)
    return "unchanged"


def _removed(client: Client, name: str) -> str:
    """Drain first, so that no job starts there meanwhile. A later import removes a busy or unreachable runner."""
    client.drain_runner(name, "no longer in the inventory")
    try:
        client.remove_runner(name)
    except ConflictError:
        return "drained; it still runs jobs, so import the file again after they end to remove it"
    except HostError as error:
        return f"drained, not removed: {error.message}"
    return "removed; nothing is left on the machine"
