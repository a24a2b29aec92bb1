"""Makes the server's runners match an inventory file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dstack.cli.output import show
from dstack.cli.output.runners import stays
from dstack.client.client import Client
from dstack.errors import ConflictError, DstackError, HostError, UnknownHostKeyError, UsageError
from dstack.inventory.read import read
from dstack.inventory.runners import Machines, machines, runner_name
from dstack.model.api.runners import DROPPED, AddRunner, RunnerView
from dstack.model.runner.runner import DEFAULT_ROOT, Address

AT_ONCE = 16
FAILED = 125
SKIP = "to leave a host out, set dstack_skip: true for it"
RESUMED = f"drained: {DROPPED} -> no"


@dataclass(frozen=True)
class Step:
    """What to do with one runner: `add`, `rename`, `change`, `keep` or `remove`. `differences` are for messages. `old`
    is the name of a runner at the same address that is no longer in the file. `resume`: an earlier import drained it,
    because the file did not have it."""

    do: str
    name: str
    wanted: AddRunner
    differences: tuple[str, ...] = ()
    old: str = ""
    resume: bool = False

    @property
    def words(self) -> str:
        """Say what the step would do."""
        labels = f", labels {', '.join(self.wanted.labels)}" if self.wanted.labels else ""
        return {
            "add": f"add {self.wanted.address}{labels}",
            "rename": f"rename from {self.old}, {self.wanted.address}{labels}",
            "change": f"change {'; '.join(self.differences)}",
            "keep": "unchanged",
            "remove": "drain and remove: it is no longer in the file",
        }[self.do]


@dataclass(frozen=True)
class Todo:
    """What an inventory asks for: the steps, and what is in the way of the hosts that are skipped, by name."""

    steps: list[Step]
    skipped: dict[str, str]


def steps(client: Client, file: Path) -> Todo:
    """Return the steps that make the server match the file. Raises UsageError if no host in it can be used."""
    source = str(file.absolute())
    groups = read(file)
    found = machines(groups, source)
    if found.skipped and not found.requests:
        problems = "\n".join(f"{host}: {why}" for host, why in found.skipped.items())
        raise UsageError(f"no host in {file} can be used; nothing was changed\n{problems}", hint=SKIP)
    for note in groups.notes:
        show.say(f"warning: {note}", style="yellow")
    return Todo(difference(found, client.runners(), source), found.skipped)


def difference(found: Machines, runners: Sequence[RunnerView], source: str) -> list[Step]:
    """Return the steps that make the server's runners match the file, in file order. Runners imported from this file
    earlier but no longer in it come last. Other runners, and those of skipped hosts, are left unchanged."""
    known = {runner.name: runner.definition for runner in runners if runner.definition}
    drained = {runner.name for runner in runners if runner.drained == DROPPED}
    names = {request.name for request in found.requests} | set(map(runner_name, found.skipped))
    dropped = {name: old for name, old in known.items() if old.source == source and name not in names}
    listed = [_step(each, known.get(each.name or ""), dropped, drained) for each in found.requests]
    renamed = {step.old for step in listed}
    return listed + [Step("remove", name, old) for name, old in dropped.items() if name not in renamed]


def _step(
    wanted: AddRunner, current: AddRunner | None, dropped: Mapping[str, AddRunner], drained: Collection[str]
) -> Step:
    name = wanted.name or ""
    if current is None:
        # The server knows whether a runner at another address is the same machine, too.
        old = next((each for each, its in dropped.items() if reached(its) == reached(wanted)), "")
        wanted = replace(wanted, replaces=tuple(dropped))
        return Step("rename", name, wanted, (f"name: {old} -> {name}",), old) if old else Step("add", name, wanted)
    if current.authorized:
        address = replace(wanted.address, identity=None, jump_identity=None)
        wanted = replace(wanted, authorized=True, address=address)
    before, after = _settings(current), _settings(wanted)
    differences = tuple(f"{key}: {before[key]} -> {after[key]}" for key in after if before[key] != after[key])
    if resume := name in drained:
        differences += (RESUMED,)
    return Step("change" if differences else "keep", name, wanted, differences, resume=resume)


def reached(request: AddRunner) -> tuple[Address, str, str]:
    """Return which account's folder on which machine the definition names, and its Docker."""
    address = replace(request.address, identity=None)
    return address, request.root or DEFAULT_ROOT, request.docker or "docker"


def _settings(request: AddRunner) -> dict[str, Any]:
    """Return a runner's settings as text that can be compared and shown."""
    address = request.address
    return {
        "address": str(address),
        "identity": address.identity or "ssh default",
        "jump": address.jump or "none",
        "jump identity": address.jump_identity or "ssh default",
        "labels": ", ".join(request.labels) or "none",
        "gpus": "detected" if request.gpus is None else request.gpus,
        "jobs": "default" if request.max_jobs is None else request.max_jobs,
        "root": request.root or DEFAULT_ROOT,
        "docker": request.docker or "docker",
        "mounts": ", ".join(request.allow_mounts) or "none",
        "source": request.source or "added by hand",
    }


def tell_skipped(skipped: dict[str, str]) -> None:
    """Say which hosts are skipped, and why."""
    for host, why in skipped.items():
        show.say(f"{host}: skipped: {why}", style="red")
    if skipped:
        show.say(f"  hint: {SKIP}")


def apply(client: Client, todo: list[Step], *, quiet: bool) -> int:
    """Carry out the steps in parallel, print the result of each (`quiet`: only failures), and return the exit code."""
    renamed: set[str] = set()
    adding, removing = ([step for step in todo if (step.do == "remove") is removes] for removes in (False, True))
    failed = carry_out(client, adding, renamed, quiet=quiet)
    # A runner that got a new name is no longer there to be removed; one that did not goes.
    kept = [Step("remove", step.old, step.wanted) for step in adding if step.old and step.name not in failed]
    removing = [step for step in (*removing, *kept) if step.name not in renamed]
    failed |= carry_out(client, removing, renamed, quiet=quiet)
    if failed:
        show.say(f"{len(failed)} of {len(todo)} runners could not be updated; run the same command to try again")
    return FAILED if failed else 0


def carry_out(client: Client, todo: Sequence[Step], renamed: set[str], *, quiet: bool) -> set[str]:
    """Carry out these steps, print the results, and return the names of those that failed. Adds to `renamed` the old
    names of renamed runners."""
    failed: set[str] = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for step, outcome in zip(todo, pool.map(lambda step: _done(client, step, renamed), todo), strict=True):
            if isinstance(outcome, UnknownHostKeyError):
                outcome = _confirmed(client, step, outcome, renamed)
            if isinstance(outcome, DstackError):
                failed.add(step.name)
                show.say(f"{step.name}: {outcome.message}", style="red")
                if outcome.hint:
                    show.say(f"  hint: {outcome.hint}")
            elif not quiet:
                show.line(show.clean(f"{step.name}: {outcome}"))
    return failed


def _confirmed(client: Client, step: Step, unknown: UnknownHostKeyError, renamed: set[str]) -> str | DstackError:
    """Ask the user at the terminal to confirm the host key, then try again."""
    if show.interactive() and show.confirm(f"{unknown.message}. Is the key right?"):
        step.wanted.fingerprint = unknown.fingerprint
        return _done(client, step, renamed)
    unknown.hint = f"if the key is right, set the host's variable dstack_fingerprint: {unknown.fingerprint}"
    return unknown


def _done(client: Client, step: Step, renamed: set[str]) -> str | DstackError:
    """Carry out a step, and return its result in words, or its error."""
    try:
        if step.do in ("add", "rename"):
            added = warned(client.add_runner(step.wanted))
            if added.renamed_from:
                renamed.add(added.renamed_from)
                return f"renamed from {added.renamed_from}, {step.wanted.address}"
            same = f", the same machine as {', '.join(added.same_machine)}" if added.same_machine else ""
            return f"added, {step.wanted.address}{same}"
        if step.do == "change":
            if step.differences != (RESUMED,):
                warned(client.change_runner(step.name, step.wanted))
            if step.resume:
                client.resume_runner(step.name)
            return f"changed {'; '.join(step.differences)}"
        return _removed(client, step.name) if step.do == "remove" else "unchanged"
    except DstackError as error:
        return error


def warned(runner: RunnerView) -> RunnerView:
    """Say if containers don't get the GPUs that the runner is said to have."""
    for finding in runner.findings:
        if finding.name == "gpu-toolkit":
            show.say(f"{runner.name}: {finding.what}", style="yellow")
            show.say(f"  fix: {finding.fix}")
    return runner


def _removed(client: Client, name: str) -> str:
    """Drain first, so that no job starts there meanwhile. A later import removes a busy or unreachable runner."""
    client.drain_runner(name, DROPPED)
    try:
        used_by = client.remove_runner(name).used_by
    except ConflictError:
        return "drained; it still runs jobs, so import the file again after they end to remove it"
    except HostError as error:
        return f"drained, not removed: {error.message}"
    if used_by:
        return f"removed; {stays(used_by)}"
    return "removed; nothing is left on the machine"
