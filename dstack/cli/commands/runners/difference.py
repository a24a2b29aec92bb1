"""The differences between an inventory file and the server's runners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dstack.model.api.runners import AddRunner, RunnerView
from dstack.model.runner.runner import DEFAULT_ROOT


@dataclass(frozen=True)
class Step:
    """What to do with one runner: `add`, `change`, `remove` or `keep`. `differences` are for messages."""

    do: str
    name: str
    wanted: AddRunner | None = None
    differences: tuple[str, ...] = ()


def difference(wanted: Sequence[AddRunner], runners: Sequence[RunnerView], source: str) -> list[Step]:
    """Return the steps that make the server's runners match the file, in file order. Runners imported from this file
    earlier but no longer in it come last. Other runners are left unchanged."""
    by_name = {runner.name: runner for runner in runners}
    steps = [_step(request, by_name.get(request.name or "")) for request in wanted]
    names = {request.name for request in wanted}
    dropped = [r.name for r in runners if r.definition and r.definition.source == source and r.name not in names]
    return steps + [Step("remove", name) for name in dropped]


def _step(wanted: AddRunner, current: RunnerView | None) -> Step:
    name = wanted.name or ""
    if current is None or current.definition is None:
        return Step("add", name, wanted)
    if current.definition.authorized:
        wanted = replace(wanted, authorized=True, address=replace(wanted.address, identity=None))
    before, after = _settings(current.definition), _settings(wanted)
    differences = tuple(f"{key}: {before[key]} -> {after[key]}" for key in after if before[key] != after[key])
    return Step("change" if differences else "keep", name, wanted, differences)


def _settings(request: AddRunner) -> dict[str, Any]:
    """Return a runner's settings as text that can be compared and shown."""
    address = request.address
    return {
        "address": str(address),
        "identity": address.identity or "ssh default",
        "jump": address.jump or "none",
        "labels": ", ".join(request.labels) or "none",
        "gpus": "detected" if request.gpus is None else request.gpus,
        "root": request.root or DEFAULT_ROOT,
        "docker": request.docker or "docker",
        "mounts": ", ".join(request.allow_mounts) or "none",
        "source": request.source or "added by hand",
    }
