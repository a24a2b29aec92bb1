"""The dependencies between workflows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dstack.errors import UsageError
from dstack.model.project.workflow import Workflow
from dstack.model.text.suggest import did_you_mean

MOST_CYCLES = 20


def closure(workflows: Mapping[str, Workflow] | Iterable[Workflow], name: str) -> tuple[Workflow, ...]:
    """Return the workflow and everything it depends on, each once, dependencies first. Raises UsageError for an unknown
    name, and for workflows that depend on each other in a cycle."""
    known = workflows if isinstance(workflows, Mapping) else {workflow.name: workflow for workflow in workflows}
    if name not in known:
        words = f"no workflow is named '{name}'{did_you_mean(name, known)}"
        raise UsageError(words, hint="list the workflows: dstack run --help")
    edges = {workflow.name: workflow.needs.names for workflow in known.values()}
    order, cycles = walk(edges, [name])
    if cycles:
        raise UsageError(f"workflows depend on each other in a cycle: {' -> '.join(cycles[0])}")
    for needed in order:
        if needed not in known:
            raise UsageError(f"workflow '{name}' depends on unknown workflow '{needed}'")
    return tuple(known[needed] for needed in order)


def walk(edges: Mapping[str, Sequence[str]], roots: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """Return all that the roots depend on, dependencies first, and the cycles found on the way, at most `MOST_CYCLES`.
    Each cycle is a list of names, with the first repeated at the end."""
    order: list[str] = []
    cycles: list[list[str]] = []
    done: set[str] = set()
    for root in roots:
        path: dict[str, None] = {}
        open_: list[Iterator[str]] = [iter([root])]
        while open_:
            name = next(open_[-1], None)
            if name is None:
                open_.pop()
                if path:
                    last, _ = path.popitem()
                    done.add(last)
                    order.append(last)
            elif name in path:
                if len(cycles) < MOST_CYCLES:
                    names = list(path)
                    cycles.append([*names[names.index(name) :], name])
            elif name not in done:
                path[name] = None
                open_.append(iter(edges.get(name, ())))
    return order, cycles
