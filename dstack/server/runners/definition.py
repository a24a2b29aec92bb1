"""Reads a runner's definition: its name, its folders, and what is said of a machine that can't run jobs."""

from __future__ import annotations

import re
from collections.abc import Callable

from dstack.errors import HostError, UsageError
from dstack.model.api.runners import AddRunner
from dstack.model.runner import mounts
from dstack.model.runner.runner import DEFAULT_ROOT, Address, Facts


def folders(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders that jobs may mount. Raises UsageError for an invalid one."""
    try:
        return tuple(dict.fromkeys(mounts.folder(text) for text in texts))
    except ValueError as trouble:
        hint = "name a folder that jobs need: --allow-mount /data"
        raise UsageError(f"a folder that jobs may mount {trouble}", hint=hint) from trouble


def unfit(address: Address, facts: Facts, consequence: str = "was not added") -> HostError:
    """Return the error for a machine that can't run jobs, with everything that must be fixed first."""
    listed = "".join(f"\n  {f.what}\n    why: {f.why}\n    fix: {f.fix}" for f in facts.findings)
    return HostError(f"{address} can't run jobs: {facts.problem}; it {consequence}{listed}", hint=facts.fix)


def default_name(address: Address, taken: Callable[[str], bool] = lambda name: False) -> str:
    """Return a runner's default name: the host with its domain, without the user, invalid characters replaced. If that
    is taken, machines behind one address are told apart by their port, and accounts on one machine by their user."""
    if address.host is None:
        return "local"
    parts = [address.host, *([str(address.port)] if address.port else []), *([address.user] if address.user else [])]
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts[:count])).strip("-.") for count in range(1, 4)]
    return next((name for name in names if not taken(name)), names[0])


def root_of(request: AddRunner) -> str:
    """Return the folder for dstack's files. Raises UsageError for one that Docker can't mount."""
    root = request.root or DEFAULT_ROOT
    if not set(root).isdisjoint(',"'):
        message = f"'{root}' is not a valid root: it contains a comma or a quote, which Docker can't mount"
        raise UsageError(message, hint="use --root ~/.dstack-host")
    return root
