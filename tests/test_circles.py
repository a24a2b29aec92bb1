"""No modules import each other in a circle: at the top, inside functions, or for types only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "dstack"

Graph = dict[str, set[str]]


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph_of(sources: dict[str, str]) -> Graph:
    """Return which module imports which, given their sources by name. An import of a name counts for the module that
    defines it."""
    return {name: set(imported(text, sources.keys())) - {name} for name, text in sources.items()}


def imported(text: str, modules: object) -> Iterator[str]:
    assert hasattr(modules, "__contains__")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in modules:
                    yield whole
                elif node.module in modules:
                    yield node.module


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that import each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = graph_of({name_of(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))})
    told = [" -> ".join([*group, group[0]]) for group in circles(graph)]
    assert not told, "modules that import each other:\n" + "\n".join(told)


def test_a_circle_is_found_also_inside_functions_and_for_types() -> None:
    # given
    sources = {
        "p.a": "from p import b",
        "p.b": "def f():\n    from p.c import x",
        "p.c": "if TYPE_CHECKING:\n    from p.a import y",
        "p.d": "from p.a import y",
    }
    # when
    found = circles(graph_of(sources))
    # then
    assert found == [["p.a", "p.b", "p.c"]]
