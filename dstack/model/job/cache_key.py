"""The cache key: what a job's result depends on, and which part of it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from dstack.model.code.tree import TreeFile
from dstack.model.project.environment import RESERVED
from dstack.model.project.interpolation import mentions
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.text.tag import is_tag

FORMAT = "1"
"""Part of every key. Raise it when the meaning of keys changes, so that old keys no longer match."""

KINDS = ("image", "commands", "env", "user", "artifacts", "arguments", "file", "folder", "variable", "dependency")
"""The first words of component names, in the order in which changes are reported."""

LONGEST = 60


def components(
    workflow: Workflow, image: str, files: Iterable[TreeFile], variables: Variables, dependencies: Mapping[str, str]
) -> dict[str, str]:
    """Return the parts of the key by name (`image`, `file encode.py`, `variable model`, ...). `image` has its variables
    replaced; commands, artifacts and env count as written. `files` are those that the workflow depends on.
    `dependencies` maps its direct dependencies to their keys."""
    counted = workflow.needs.config
    values = {
        name: value
        for name, value in variables.all.items()
        if name not in RESERVED and (counted is None or name in counted)
    }
    paths = [artifact.path for artifact in workflow.outputs]
    found = {"image": image, "commands": _json(workflow.commands), "user": workflow.user}
    found.update((f"env {name}", text) for name, text in workflow.env.items())
    found["artifacts"] = _json(sorted([artifact.path, artifact.optional] for artifact in workflow.outputs))
    if any(mentions(text, "config_args") for text in (*workflow.commands, *workflow.env.values(), *paths)):
        found["arguments"] = _json([name for name in variables.own if name in values])
    for file in files:
        kind, content = ("folder", file.mode) if file.is_folder else ("file", f"{file.mode} {file.id}")
        found[f"{kind} {shown(file.path)}"] = content
    found.update((f"variable {name}", _json(value)) for name, value in values.items())
    found.update((f"dependency {name}", key) for name, key in dependencies.items())
    return found


def key(components: Mapping[str, str]) -> str:
    """Return the cache key, a sha256 in hex. Jobs with equal keys have equal results."""
    content = _json([FORMAT, sorted(components.items())])
    return hashlib.sha256(content.encode()).hexdigest()


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Return the first component that changed, in words such as `variable model: 124M -> 117M`; None if none did."""
    changed = changes(before, after)
    return changed[0][1] if changed else None


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names of the components that changed, each with what happened to it in words."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    changed.sort(key=lambda name: (KINDS.index(name.split(" ", 1)[0]), name))
    return [(name, _describe(name, before.get(name), after.get(name))) for name in changed]


def shown(path: str) -> str:
    """Return the path as text that can be stored: bytes that are not UTF-8 as `\\xff`, backslashes doubled."""
    doubled = path.replace("\\", "\\\\")
    return doubled.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _describe(name: str, before: str | None, after: str | None) -> str:
    kind, _, which = name.partition(" ")
    what = which if kind == "file" else name
    if kind in ("image", "user"):
        return f"{kind}: {before} -> {after}"
    if kind == "arguments":
        return "the variables in $config_args changed"
    if before is None or after is None:
        return f"{what} {'added' if before is None else 'removed'}"
    if kind == "dependency" and not is_tag(which):
        return f"{what} ran again"
    if kind == "variable":
        return f"{what}: {_value(before)} -> {_value(after)}"
    if kind == "folder" or (kind == "file" and before.split()[1] == after.split()[1]):
        return f"permissions of {what} changed"
    return f"{what} changed"


def _value(text: str) -> str:
    value = msgspec.json.decode(text, type=str | None)
    line = "null" if value is None else value.replace("\n", "\\n") or "''"
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
