"""Files of any size are read in a time in proportion to it, or refused."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from dstack.errors import ProjectError
from dstack.model.project.locations import overlap
from dstack.model.project.nodes import SourceFile
from dstack.model.project.project import parse

WORKFLOW = "- {{name: w{0}, image: i, commands: [x], {1}}}\n"


def workflows(count: int, rest: str = "help: h") -> str:
    lines = [WORKFLOW.format(number, rest.format(number, max(number - 1, 0))) for number in range(count)]
    return f"workflows:\n{''.join(lines)}"


def read(text: str, configs: str | None = None) -> float:
    """Read a project; the processor seconds that it took."""
    started = time.process_time()
    with suppress(ProjectError):
        parse(SourceFile("w", text), SourceFile("c", configs) if configs else None)
    return time.process_time() - started


@pytest.mark.parametrize(
    "rest",
    [
        "help: h",
        "depends-on: {{workflows: [w{1}]}}",
        "depends-on: {{workflows: [x{0}]}}",
        "k{0}: 1",
        "env: {{A: $x{0}}}",
    ],
    ids=["plain", "one after the other", "unknown dependencies", "unknown keys", "unknown variables"],
)
def test_four_times_the_workflows_take_about_four_times_as_long(rest: str) -> None:
    read(workflows(10, rest))  # what is loaded on first use
    few, many = (read(workflows(count, rest)) for count in (300, 1200))

    assert many < 12 * few + 0.5


def test_four_times_the_artifacts_take_about_four_times_as_long() -> None:
    def took(count: int) -> float:
        started = time.process_time()
        assert overlap([f"a/b/{number}" for number in range(count)]) is None
        return time.process_time() - started

    assert took(8000) < 12 * took(2000) + 0.1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (workflows(10_001), r"^w:1: 'workflows' has 10,001 entries; it may have 10,000$"),
        ("#" * 2_000_001, r"^w:1: the file has 2,000,001 characters; it may have 2,000,000$"),
        (
            "workflows:\n- {name: w, image: &i " + "i" * 10**6 + ", commands: [x]}\n"
            "- {name: v, image: i, commands: [" + "*i, " * 99 + "]}",
            r"^w:2: the file has more than 300,000 values, and those that aliases repeat count, too$",
        ),
        (
            "workflows:\n- {name: w, image: i, commands: &c [" + "x, " * 5000 + "]}\n"
            + "".join(f"- {{name: w{number}, image: i, commands: *c}}\n" for number in range(100)),
            r"^w:\d+: the file has more than 300,000 values",
        ),
        ("workflows: " + "[" * 100_000, "^w:1: invalid YAML: exceeded maximum nesting depth"),
        ("workflows: &a\n- *a\n", "^w:1: entry 1 of 'workflows' must be a map, not a list"),
        (workflows(200, "k: 1"), r"\nw: these are the first 100 problems$"),
    ],
    ids=["workflows", "size", "long text repeated", "list repeated", "depth", "itself", "problems"],
)  # fmt: skip
def test_what_is_over_a_bound_is_said(text: str, why: str) -> None:
    with pytest.raises(ProjectError, match=why):
        parse(SourceFile("w", text), None)


def test_merges_of_merges() -> None:
    maps = ["a: &a0 {k: 1}\n"]
    maps += [f"b{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}\n" for n in range(1, 30)]

    assert read("".join(maps) + "workflows:\n- <<: *a29\n") < 5


def test_cycles_of_everything() -> None:
    names = ", ".join(f"w{number}" for number in range(100))

    assert read(workflows(100, f"depends-on: {{{{workflows: [{names}]}}}}")) < 10


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a", "b"], None),
        (["a", "b", "./a/"], (2, 0)),
        (["a/b/c", "x", "a/b"], (2, 0)),
        (["a", "ab", "a/b"], (2, 0)),
        (["a/1", "a/2", "a"], (2, 0)),
        (["", "."], None),
    ],
)
def test_paths_that_overlap(paths: list[str], found: tuple[int, int] | None) -> None:
    assert overlap(paths) == found
