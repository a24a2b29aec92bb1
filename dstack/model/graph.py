"""Which workflow needs which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dstack.errors import UsageError
from dstack.model.suggest import did_you_mean
from dstack.model.workflow import Workflow


def closure(workflows: Mapping[str, Workflow] | Iterable[Workflow], name: str) -> tuple[Workflow, ...]:
    """The workflow and all that it needs, each once, dependencies before their dependents.

    Raises UsageError for a name that no workflow has, and for workflows that need each other in a circle.
    """
    known = workflows if isinstance(workflows, Mapping) else {workflow.name: workflow for workflow in workflows}
    if name not in known:
        near = did_you_mean(name, known)
        raise UsageError(f"no workflow is called '{name}'{near}", hint="dstack run --help lists the workflows")
    edges = {workflow.name: workflow.depends_on.names for workflow in known.values()}
    order, circles = walk(edges, [name])
    if circles:
        raise UsageError(f"workflows depend on each other in a circle: {' -> '.join(circles[0])}")
    for needed in order:
        if needed not in known:
            raise UsageError(f"a dependency of '{name}' is called '{needed}', and no workflow is")
    return tuple(known[needed] for needed in order)


def walk(edges: Mapping[str, Sequence[str]], roots: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """All that can be reached from the roots, what is needed before what needs it; and the circles on the way, each
    as the names around it with the first repeated at the end."""
    order: list[str] = []
    circles: list[list[str]] = []
    done: set[str] = set()
    for root in roots:
        path: list[str] = []
        open_: list[Iterator[str]] = [iter([root])]
        while open_:
            name = next(open_[-1], None)
            if name is None:
                open_.pop()
                if path:
                    done.add(path[-1])
                    order.append(path.pop())
            elif name in path:
                circles.append([*path[path.index(name) :], name])
            elif name not in done:
                path.append(name)
                open_.append(iter(edges.get(name, ())))
    return order, circles
