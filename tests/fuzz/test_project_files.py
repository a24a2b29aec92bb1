"""Whatever is in `.dstack/`: valid files can be planned by the server, and all others are refused with the place."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from dstack.cli import project as files
from dstack.engine.submission.plan import Planner
from dstack.model.api import wire
from dstack.model.api.runs import Submission
from dstack.model.code.snapshot import Snapshot
from dstack.model.code.tree import TreeFile
from dstack.model.job.resources import ask_of
from dstack.model.paths import ServerLayout
from dstack.model.project.graph import closure
from dstack.model.project.nodes import SourceFile
from dstack.model.project.project import Project, parse, warnings
from dstack.model.project.variables import apply
from dstack.model.text.units import is_span, span
from dstack.server.submit import checked
from dstack.store.store import Store
from tests.fuzz import fuzz, outcome, storable

WORKFLOWS, CONFIGS = ".dstack/workflows.yaml", ".dstack/configs.yaml"
PLANNED = ("'", "no tag '")
"""How messages of the server about a valid project begin: with a key and its workflow, or a tag."""
TREE = [TreeFile("train.py", "100644", "aaa"), TreeFile("src/a.py", "100755", "bbb")]

KEYS = (
    *("workflows", "configs", "global", "name", "image", "commands", "help", "depends-on", "repo", "include", "config"),
    *("artifacts", "path", "optional", "sync", "env", "cache", "user", "secrets", "resources", "cpu", "memory"),
    *("shm-size", "disk", "gpu", "count", "vendor", "nodes", "runners", "mounts", "max-duration", "stop-grace"),
    *("signal", "before", "retry", "attempts", "on", "priority", "preemptible", "registry-auth", "username"),
    *("password", "fetch-depth", "ports", "metrics", "notify", "sweep", "triggers", "<<", "~", "?", "base", "top"),
)
NUMBERS = ("0", "-1", "1", "1.5", "1e999", "9" * 19, "9" * 400, ".inf", "0x10", "0o7", "1_000", "٣")
TEXTS = (
    *(
        "busybox",
        "base",
        "top",
        ":tag",
        ":",
        "$run_name",
        "${model}",
        "$",
        "${",
        "$$",
        "${a b}",
        "$job_id",
        "true",
        "~",
    ),
    *("16GB", "9" * 30 + "TB", "5m", "9" * 30 + "d", "1h" * 50, "../x", "/", ".git", "out", "out/a", "/data:/data:ro"),
    *("/data:/workflow", "-x", " ", "", "a\tb", "\x85", "\u2028", "\u202ereversed", "\ud7ff", "😀", "x" * 3000),
    *("2026-01-01", "*x", "&x", "!!python/object:os.system", "|", ">-", "- ", ": ", "#", "'", '"', "{", "[", "%TAG"),
)
values = st.sampled_from((*NUMBERS, *TEXTS)) | st.text(max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | values, inner, max_size=4),
    max_leaves=12,
)
texts = st.sampled_from(TEXTS)
listed = st.lists(texts, max_size=3)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "help": texts,
    "depends-on": listed | st.fixed_dictionaries({}, optional={"workflows": listed, "config": listed}),
    "artifacts": st.lists(texts | st.fixed_dictionaries({"path": texts, "sync": texts | st.sampled_from(NUMBERS)})),
    "env": st.dictionaries(st.sampled_from(("A", "PATH", "UID", "run_name", "a b")), values, max_size=3),
    "cache": listed,
    "user": texts,
    "secrets": listed,
    "resources": st.dictionaries(st.sampled_from(("cpu", "memory", "shm-size", "disk", "gpu", "nodes")), values),
    "runners": listed,
    "mounts": listed,
    "max-duration": values,
    "stop-grace": values,
    "signal": st.fixed_dictionaries({"name": st.sampled_from(("USR1", "KILL")), "before": values}),
    "retry": st.fixed_dictionaries({"attempts": values, "on": st.lists(st.sampled_from(("lost", "42", "256", "")))}),
    "priority": values,
    "fetch-depth": values,
    "registry-auth": st.fixed_dictionaries({"username": texts, "password": values}),
}


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str | None]:
    """Two files of which most are almost valid."""
    workflows = []
    for name in draw(st.lists(st.sampled_from(("base", "top", "other", "global", "a b", "")), min_size=1, max_size=3)):
        chosen = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True))
        fields = {key: draw(FIELDS[key] | anything) for key in chosen}
        commands = draw(st.just(["true"]) | listed)
        workflows.append({"name": name, "image": draw(st.just("busybox") | texts), "commands": commands} | fields)
    configs = draw(
        st.none()
        | anything
        | st.fixed_dictionaries(
            {
                "configs": st.dictionaries(
                    st.sampled_from(("global", "base", "top", "bsae")), st.dictionaries(values, values)
                )
            }
        )
    )
    document = draw(st.just({"workflows": workflows}) | anything)
    return _written(document), None if configs is None else _written(configs)


def _written(document: Any) -> str:
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)


lines = st.lists(
    st.sampled_from(
        (*KEYS, *TEXTS, *NUMBERS, "\n", "\n  ", "\n    - ", ": ", "- ", ", ", "}", "]", "&a ", "*a", "<<: *a")
    )
).map("".join)
"""Pieces of YAML in any order."""


@cache
def store() -> Store:
    """The state of a server, for all inputs: a plan only reads it."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    opened = Store(ServerLayout(Path(folder.name)))
    atexit.register(opened.close)
    return opened


def plan(project: Project, name: str) -> None:
    """Do what `dstack run` and the server do with a valid project."""
    variables = apply(project, name, [])
    submission = Submission(
        workflow=name,
        workflows=closure(project.workflows, name),
        variables=variables,
        snapshot=Snapshot(repo="r", tree="0" * 40),
        user="ann",
    )
    submission = checked(wire.decode(wire.encode(submission), Submission))
    for job in Planner(store(), TREE, "brave-otter-7", "2026-01-31T12:00:00.000Z", {}).plan(submission):
        storable(job)
        ask_of(job.definition.resources)
        for text in (job.definition.max_duration, job.definition.stop_grace):
            assert text is None or 0 <= span(text) < 10**11


@fuzz
@given(documents() | st.tuples(lines, st.none() | lines))
@example(("workflows: [{name: a, image: " + "x" * 10**6 + " y, commands: [a]}]", None))
@example(("workflows: [{name: a, image: b, commands: [a], resources: {memory: " + "9" * 400 + "}}]", None))
@example(("workflows: [" + "[" * 5000, None))
@example(("a: &a [*a]", "configs: &c {global: *c}"))
def test_any_project(written: tuple[str, str | None]) -> None:
    workflows, configs = written
    size = len(workflows) + len(configs or "")
    config_file = None if configs is None else SourceFile(CONFIGS, configs)

    project = outcome(lambda: parse(SourceFile(WORKFLOWS, workflows), config_file), WORKFLOWS, CONFIGS, size=size)

    for name in project.workflows if project else ():
        assert project
        warnings(project, name)
        outcome(lambda: plan(project, name), *PLANNED, size=size)  # noqa: B023


@fuzz
@given(
    st.dictionaries(
        st.sampled_from((*files.WORKFLOWS, *files.CONFIGS)),
        st.binary(max_size=60) | lines.map(lambda text: text.encode("utf-8", "surrogatepass")),
        max_size=3,
    )
)
@example({"workflows.yaml": b"\xef\xbb\xbfworkflows: \xff"})
def test_any_files(found: dict[str, bytes]) -> None:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as top, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(top) / ".dstack"
        folder.mkdir()
        for name, data in found.items():
            (folder / name).write_bytes(data)
        os.chdir(top)
        try:
            outcome(files.load, ".dstack/", "both .dstack/", "no .dstack/")
        finally:
            os.chdir(before)


@fuzz
@given(values)
def test_any_duration_is_one_that_can_be_added_to_a_time(text: str) -> None:
    if is_span(text):
        assert 0 <= span(text) < 10**11
