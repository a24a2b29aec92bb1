"""Makes the server's runners those of an inventory file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dstack.cli import show
from dstack.errors import ConflictError, DstackError, HostError, UnknownHostKeyError
from dstack.inventory.difference import Step, difference
from dstack.inventory.machines import machines
from dstack.inventory.read import read
from dstack.server.client import Client

AT_ONCE = 16
FAILED = 125


def steps(client: Client, file: Path) -> list[Step]:
    """What has to be done, as the file and the server are now."""
    source = str(file.absolute())
    wanted = machines(read(file), source)
    return difference(wanted, client.runners(), source)


def apply(client: Client, todo: list[Step], *, quiet: bool = False) -> int:
    """Do it, many machines at once; say what was done with each (`quiet`: only what failed), and return the exit
    code."""
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for step, outcome in zip(todo, pool.map(lambda step: _done(client, step), todo), strict=True):
            if isinstance(outcome, UnknownHostKeyError):
                outcome = _vouched(client, step, outcome)
            if isinstance(outcome, DstackError):
                failed += 1
                show.say(f"{step.name}: {outcome.message}", style="red")
                if outcome.hint:
                    show.say(f"  hint: {outcome.hint}")
            elif not quiet:
                show.line(show.clean(f"{step.name}: {outcome}"))
    if failed:
        show.say(f"{failed} of {len(todo)} machines could not be made as the file says; the same command tries again")
    return FAILED if failed else 0


def words(step: Step) -> str:
    """What would be done."""
    if step.do == "change":
        return f"change {'; '.join(step.differences)}"
    if step.do == "add":
        assert step.wanted
        labels = f", labels {', '.join(step.wanted.labels)}" if step.wanted.labels else ""
        return f"add {step.wanted.address}{labels}"
    return {"keep": "as it is", "remove": "drain and remove: it is no longer in the file"}[step.do]


def _vouched(client: Client, step: Step, unknown: UnknownHostKeyError) -> str | DstackError:
    """Try again with a host key that the person at the terminal knows."""
    assert step.wanted
    if show.interactive() and show.confirm(f"{unknown.message}. Is it the right one?"):
        step.wanted.fingerprint = unknown.fingerprint
        return _done(client, step)
    unknown.hint = f"if it is the right one, give the host the variable dstack_fingerprint: {unknown.fingerprint}"
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
    return "as it is"


def _removed(client: Client, name: str) -> str:
    """Drained first: no job is placed there in between. One that is busy or away is removed by a later import."""
    client.drain_runner(name, "no longer in the inventory")
    try:
        client.remove_runner(name)
    except ConflictError:
        return "drained: it still runs jobs, and is removed by the next import after them"
    except HostError as error:
        return f"drained: {error.message}"
    return "removed; nothing of it is left there"
