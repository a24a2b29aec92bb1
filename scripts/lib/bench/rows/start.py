"""From typing a command to its first line: a warm server, an image and code that are there."""

from __future__ import annotations

from collections.abc import Mapping

from measure import Way, finished, first_line
from table import Row
from world import World

HELLO = "workflows:\n  - {{name: hello, image: {image}, commands: [echo hello]}}\n"


def typed(world: World, port: int | None = None) -> list[str]:
    return [*world.login(port), *world.docker, "run", "--rm", world.image, "echo", "hello"]


def run(world: World, kind: type[object] | None = None, *, far: bool = False, line: bool = True) -> Mapping[str, Way]:
    """Compare `dstack run` with the same typed by hand."""
    root = world.project("hello", HELLO.format(image=world.image))
    port = world.far.port if far else None
    runner = world.runner("far" if far else "here", port)
    measure = first_line if line else finished
    return {
        "dstack run": measure(["dstack", "run", "hello", "--runner", runner], root),
        "ssh HOST docker run --rm IMAGE": measure(typed(world, port), root),
    }


def query(world: World) -> Mapping[str, Way]:
    """Compare a query with the interpreter's own start, which no Python program goes below."""
    root = world.project("hello", HELLO.format(image=world.image))
    python = world.program("python")
    return {
        "dstack runs -n 1": finished(["dstack", "runs", "-n", "1"], root),
        "python -c pass": finished([python, "-c", "pass"]),
        "dstack --version": finished(["dstack", "--version"]),
        "python -c 'import click, msgspec, http.client'": finished(
            [python, "-c", "import click, msgspec, http.client"]
        ),
    }


SSH = "ssh HOST docker run, cold"
ROWS = [
    Row("first-line", "first log line, warm server", SSH, "0.75", lambda world: run(world)),
    Row("to-exit", "a whole run, warm server", SSH, "0.90", lambda world: run(world, line=False)),
    Row("far", "first log line, 50 ms away", SSH, "0.5", lambda world: run(world, far=True)),
    Row("query", "a query", "bare Python", "-", query),
]
