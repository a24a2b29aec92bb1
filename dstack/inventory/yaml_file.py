"""Reads inventories in Ansible's YAML format, and YAML files of variables."""

from __future__ import annotations

from typing import Any

import yaml

from dstack.errors import UsageError
from dstack.inventory.groups import ALL, Groups, Variables

MOST_VALUES = 500_000


class Locked:
    """A value encrypted with Ansible Vault, which only Ansible can read."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


for tag in ("!vault", "!vault-encrypted"):
    _Loader.add_constructor(tag, lambda loader, node: Locked())
_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def read(text: str, path: str, groups: Groups | None = None) -> Groups:
    """Parse an inventory and add it to the groups. Raises UsageError if it is not valid."""
    groups = groups or Groups()
    document = variables(text, path)
    if isinstance(document.get("plugin"), str):
        program = f"printf '#!/bin/sh\\nexec ansible-inventory -i {path} --list\\n' >hosts.sh; chmod +x hosts.sh"
        message = f"{path} configures Ansible's plugin {document['plugin']}, which only Ansible can run"
        raise UsageError(message, hint=f"{program}; dstack runners import hosts.sh")
    try:
        for name, body in document.items():
            add_group(groups, name, body)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return groups


def variables(text: str, path: str) -> Variables:
    """Parse a YAML document that is a map. Raises UsageError, with file and line for a syntax error."""
    try:
        document = _load(text)
        return {str(name): value for name, value in _mapping(document, "the file").items()}
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise UsageError(f"{where}: invalid YAML: {problem or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: lists and maps are nested too deeply") from error


def _load(text: str) -> Any:
    """Raises ValueError if aliases repeat too much: what follows looks at every value each time it is repeated."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node has, those that aliases repeat included."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # a node that contains itself has no end
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        pairs = isinstance(node, yaml.MappingNode)
        known[id(node)] = 1 + sum(_count(each, known) for item in inner for each in (item if pairs else (item,)))
    if known[id(node)] > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values, those that aliases (*NAME) repeat included")
    return known[id(node)]


def add_group(groups: Groups, name: str, body: Any) -> None:
    """Add a group with its hosts, variables and children. Raises ValueError if it is not valid."""
    group = groups.group(name)
    parts = _mapping(body, f"the group '{name}'")
    if unknown := set(parts) - {"hosts", "vars", "children"}:
        first = min(map(str, unknown))
        raise ValueError(f"the group '{name}' has the key '{first}'; only hosts, vars and children are allowed")
    group.variables.update(_mapping(parts.get("vars"), f"vars of '{name}'"))
    for pattern, own in _mapping(parts.get("hosts"), f"hosts of '{name}'").items():
        groups.add(name, str(pattern), dict(_mapping(own, f"the host '{pattern}'")))
    for child, below in _mapping(parts.get("children"), f"children of '{name}'").items():
        if name != ALL or child != ALL:
            group.children[str(child)] = None
        add_group(groups, str(child), below)


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    """Return a mapping. None becomes an empty one, and text becomes a key without a value."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {value: None}
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a map, not {'a list' if isinstance(value, list) else repr(value)}")
    return value
