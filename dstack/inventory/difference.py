"""What differs between an inventory file and the runners that a server knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dstack.model.api.runners import AddRunner, RunnerView
from dstack.model.runner import DEFAULT_ROOT


@dataclass(frozen=True)
class Step:
    """What to do about one runner: `add`, `change`, `remove` or `keep`, and what differs, in words."""

    do: str
    name: str
    wanted: AddRunner | None = None
    differences: tuple[str, ...] = ()


def difference(wanted: Sequence[AddRunner], known: Sequence[RunnerView], source: str) -> list[Step]:
    """The steps that make the server's runners those of the file, in its order; what came from the file earlier and
    is no longer in it comes last. Runners from elsewhere are let be."""
    by_name = {runner.name: runner for runner in known}
    steps = [_step(request, by_name.get(request.name or "")) for request in wanted]
    names = {request.name for request in wanted}
    gone = [r.name for r in known if r.definition and r.definition.source == source and r.name not in names]
    return steps + [Step("remove", name) for name in gone]


def _step(wanted: AddRunner, known: RunnerView | None) -> Step:
    name = wanted.name or ""
    if known is None or known.definition is None:
        return Step("add", name, wanted)
    if known.definition.authorized:
        wanted = replace(wanted, authorized=True, address=replace(wanted.address, identity=None))
    before, after = _said(known.definition), _said(wanted)
    differences = tuple(f"{key}: {before[key]} -> {after[key]}" for key in after if before[key] != after[key])
    return Step("change" if differences else "keep", name, wanted, differences)


def _said(request: AddRunner) -> dict[str, Any]:
    """What a definition says, in words that can be compared and shown."""
    address = request.address
    return {
        "address": str(address),
        "identity": address.identity or "ssh's own",
        "jump": address.jump or "none",
        "labels": ", ".join(request.labels) or "none",
        "gpus": "what is found" if request.gpus is None else request.gpus,
        "root": request.root or DEFAULT_ROOT,
        "docker": request.docker or "docker",
        "mounts": ", ".join(request.allow_mounts) or "none",
        "source": request.source or "by hand",
    }
