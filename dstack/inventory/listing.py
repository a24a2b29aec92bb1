"""Reads inventories from programs that print JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from dstack.errors import UsageError
from dstack.inventory.groups import Groups
from dstack.inventory.yaml_file import add_group

SECONDS = 120


def read(path: Path, groups: Groups) -> None:
    """Add what the program prints for --list, and for --host if `_meta` is missing. Raises OSError if it can't be
    started."""
    answer = _run(path, "--list")
    known = set(groups.hosts)
    meta = answer.pop("_meta", None)
    try:
        for name, body in answer.items():
            _group(groups, name, body)
        if isinstance(meta, dict) and "hostvars" in meta:
            variables = meta["hostvars"]
        else:
            variables = {host: _run(path, "--host", host) for host in groups.hosts if host not in known}
        for host in groups.hosts.keys() & variables.keys():
            groups.hosts[host].update(variables[host])
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise UsageError(f"{path} printed JSON that is not an Ansible inventory: {error}") from error


def _group(groups: Groups, name: str, body: Any) -> None:
    parts = {"hosts": body} if isinstance(body, list) else dict(body)
    if not parts.keys() & {"hosts", "vars", "children"}:
        parts = {"hosts": [name], "vars": parts}  # as Ansible reads it
    listed = {key: dict.fromkeys(parts.get(key) or ()) for key in ("hosts", "children")}
    add_group(groups, name, {**listed, "vars": parts.get("vars")})


def _run(path: Path, *arguments: str) -> dict[str, Any]:
    words = [str(path.absolute()), *arguments]
    try:
        done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{path} {' '.join(arguments)} did not finish within {SECONDS} seconds") from error
    if done.returncode:
        output = done.stderr.decode(errors="replace").strip() or "it printed nothing to stderr"
        raise UsageError(f"{path} {' '.join(arguments)} failed with exit code {done.returncode}: {output}")
    try:
        answer = json.loads(done.stdout)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} {' '.join(arguments)} did not print valid JSON: {error}") from error
    if not isinstance(answer, dict):
        raise UsageError(f"{path} {' '.join(arguments)} did not print a JSON object")
    return answer
