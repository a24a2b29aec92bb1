"""Prints runners: a table of all, or one in full."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.cli.output import show, words
from dstack.model.api.runners import RunnerView
from dstack.model.runner.runner import fingerprint
from dstack.model.text.units import memory_words, size_words

NOT_READY = 125
ORPHANS = {
    "running": "still running",
    "ended": "its commands have ended",
    "prepared": "its commands never began",
    "artifacts": "only its artifacts are left",
}


def table(runners: list[RunnerView], as_json: bool) -> None:
    """Print a table of all runners, and their problems."""
    columns = ("NAME", "STATE", "CPUS", "MEMORY", "GPUS", "DISK", "JOBS", "LATENCY", "ADDRESS")
    show.list_table(runners, columns, _row, "no runners yet; add one with `dstack runners add HOST`", as_json=as_json)
    if not as_json:
        _same_machines(runners)
    for runner in runners if not as_json else ():
        if runner.state != "ready":
            _trouble(runner)
        if runner.orphans:
            count = len(runner.orphans)
            what = "1 job's remains that" if count == 1 else f"the remains of {count} jobs that"
            show.say(f"{runner.name}: has {what} this server does not know; see: dstack runners check {runner.name}")
        for gpu in runner.use.gpus if runner.use else ():
            if gpu.others:
                show.say(f"{runner.name}: GPU {gpu.index} is also used by {', '.join(gpu.others)}")


def _same_machines(runners: list[RunnerView]) -> None:
    """Say once which of them are one machine."""
    told: set[str] = set()
    for runner in runners:
        names = [runner.name, *runner.same_machine]
        if len(names) > 1 and told.isdisjoint(names):
            show.say(f"{', '.join(names[:-1])} and {names[-1]} are one machine: they share its CPUs, memory and GPUs")
        told.update(names)


def report(runner: RunnerView, as_json: bool) -> int:
    """Print one runner in full, and return the exit code."""
    if as_json:
        show.document(runner)
    else:
        key = runner.host_key
        show.fields(
            [
                ("name", runner.name),
                ("address", runner.address),
                ("state", runner.state),
                ("same machine", ", ".join(runner.same_machine) or None),
                ("host key", key and f"{fingerprint(key)} ({key.split()[0]})"),
                ("labels", ", ".join(runner.labels) or None),
                ("mounts", ", ".join(runner.allow_mounts) or None),
                ("cpus", str(runner.cpus) if runner.cpus else None),
                ("memory", memory_words(runner.memory) if runner.memory else None),
                ("gpus", _gpus(runner) if runner.gpus else None),
                ("disk free", size_words(runner.disk_free) if runner.disk_free else None),
                ("latency", _latency(runner) or None),
            ]
        )
        if runner.state != "ready" and not any(finding.blocking for finding in runner.findings):
            _trouble(runner)
        for finding in runner.findings:
            state = f"{runner.state}: " if finding.blocking else "ready, but " if runner.state == "ready" else ""
            show.say(f"{runner.name}: {state}{finding.what}", style="yellow")
            show.say(f"  why: {finding.why}")
            show.say(f"  fix: {finding.fix}")
        for orphan in runner.orphans:
            whose = f"{orphan.workflow} of {orphan.run}, " if orphan.run else ""
            show.say(f"{runner.name}: orphan {orphan.name} ({whose}{ORPHANS[orphan.what]})", style="yellow")
            show.say("  why: no job of this server owns it, so it is neither followed nor stored")
            show.say(f"  fix: to remove it: dstack runners clean {runner.name} {orphan.name}")
    return 0 if runner.state == "ready" else NOT_READY


def _trouble(runner: RunnerView) -> None:
    why = f": {words.local(runner.reason)}" if runner.reason else ""
    show.say(f"{runner.name}: {runner.state}{why}", style="yellow")
    if runner.fix:
        show.say(f"hint: {runner.fix}")


def _row(runner: RunnerView) -> tuple[str, ...]:
    return (
        runner.name,
        runner.state,
        _cpus(runner),
        _memory(runner),
        _free_gpus(runner),
        size_words(runner.disk_free) if runner.disk_free else "",
        str(len(runner.jobs)),
        _latency(runner),
        runner.address,
    )


def _cpus(runner: RunnerView) -> str:
    """`16`, or `16 35%` if the load is known."""
    if runner.use is None or runner.use.cpu is None:
        return str(runner.cpus or "")
    return f"{runner.cpus} {runner.use.cpu:.0f}%"


def _memory(runner: RunnerView) -> str:
    """`64 GB`, or `12/64 GB` if the use is known."""
    if not runner.memory:
        return ""
    whole = memory_words(runner.memory)
    if runner.use is None:
        return whole
    used, _, unit = memory_words(runner.use.memory_used).partition(" ")
    return f"{used}/{whole}" if whole.endswith(f" {unit}") else f"{used} {unit}/{whole}"


def _free_gpus(runner: RunnerView) -> str:
    """`1/2 A100`: one of two is free."""
    if not runner.gpus:
        return _gpus(runner)
    names = dict.fromkeys(gpu.name or "GPU" for gpu in runner.gpus)
    return f"{runner.gpus_free}/{len(runner.gpus)} {', '.join(names)}"


def _gpus(runner: RunnerView) -> str:
    """`2x A100, 1x V100`."""
    names = [gpu.name or "GPU" for gpu in runner.gpus]
    return ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names)) or "0"


def _latency(runner: RunnerView) -> str:
    return "" if runner.latency_ms is None else f"{runner.latency_ms:.0f} ms"


def stays(used_by: Sequence[str]) -> str:
    """Say why a removed runner's folder is still there: other runners have it, too."""
    return f"its folder stays, because {', '.join(sorted(used_by))} {'uses' if len(used_by) == 1 else 'use'} it"
