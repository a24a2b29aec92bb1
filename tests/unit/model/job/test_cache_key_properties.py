"""Any change of an input changes the cache key, and any other change does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from dstack.model.code.tree import TreeFile
from dstack.model.job.cache_key import components, difference, key
from dstack.model.project.environment import RESERVED
from dstack.model.project.workflow import (
    Artifact,
    DependsOn,
    RegistryAuth,
    RepoDependency,
    Resources,
    Retry,
    SweepSettings,
    Variables,
    WarningSignal,
    Workflow,
)


@dataclass(frozen=True)
class Inputs:
    """Everything that a key is made of."""

    workflow: Workflow
    image: str
    files: tuple[TreeFile, ...]
    variables: Variables
    dependencies: Mapping[str, str]

    @property
    def components(self) -> dict[str, str]:
        return components(self.workflow, self.image, self.files, self.variables, self.dependencies)

    @property
    def key(self) -> str:
        return key(self.components)

    def rewritten(self, **changes: Any) -> Inputs:
        return replace(self, workflow=msgspec.structs.replace(self.workflow, **changes))


# Few letters, so that values meet; quotes, dollars and what JSON escapes among them.
TEXT = st.text(alphabet='ab"\\$ \n\x00é', max_size=3)
NAME = st.text(alphabet="abc", min_size=1, max_size=2)
COMMANDS = st.lists(TEXT.filter(bool) | st.just("run $config_args"), min_size=1, max_size=3).map(tuple)
VALUES = st.dictionaries(NAME, st.none() | TEXT, max_size=3)
MODES = st.sampled_from(["100644", "100755", "100444", "100555"])
FILES = st.dictionaries(NAME | st.just("b\udcff"), st.tuples(MODES, NAME), max_size=3)
FOLDERS = st.dictionaries(NAME.map("{}/".format), st.sampled_from(["040755", "040555"]), max_size=2)
ARTIFACTS = st.dictionaries(NAME, st.booleans(), max_size=3)
CONFIG = st.none() | st.lists(NAME, max_size=3).map(tuple)


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    keys = draw(st.dictionaries(NAME | NAME.map(":{}".format), NAME, max_size=3))
    workflow = Workflow(
        name=draw(NAME),
        image=draw(NAME),
        commands=draw(COMMANDS),
        artifacts=tuple(Artifact(path=path, optional=maybe) for path, maybe in draw(ARTIFACTS).items()),
        env=draw(st.dictionaries(NAME, TEXT, max_size=3)),
        user=draw(st.sampled_from(["root", "image", "1000"])),
        depends_on=DependsOn(config=draw(CONFIG), workflows=tuple(keys)),
    )
    files = tuple(TreeFile(path, mode, blob) for path, (mode, blob) in draw(FILES).items())
    files += tuple(TreeFile(path, mode, "") for path, mode in draw(FOLDERS).items())
    return Inputs(workflow, draw(NAME), files, Variables(draw(VALUES), draw(VALUES)), keys)


def meaning(inputs: Inputs) -> object:
    """Return what decides the result, computed differently than the key."""
    workflow = inputs.workflow
    counts = workflow.needs.config
    values = {name: value for name, value in inputs.variables.all.items() if counts is None or name in counts}
    texts = (*workflow.commands, *workflow.env.values(), *(artifact.path for artifact in workflow.outputs))
    section = [name for name in inputs.variables.own if name in values]
    return (
        inputs.image,
        workflow.commands,
        workflow.user,
        workflow.env,
        {artifact.path: artifact.optional for artifact in workflow.outputs},
        {file.path: (file.mode, file.id) for file in inputs.files},
        values,
        section if any("$config_args" in text for text in texts) else None,
        dict(inputs.dependencies),
    )


@given(inputs(), inputs())
def test_keys_are_equal_exactly_when_the_inputs_mean_the_same(one: Inputs, other: Inputs) -> None:
    assert (one.key == other.key) == (meaning(one) == meaning(other))
    assert (difference(one.components, other.components) is None) == (one.key == other.key)


def without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {known: value for known, value in values.items() if known != name}


CHANGES: dict[str, Callable[[Inputs, str], Inputs]] = {
    "image": lambda i, new: replace(i, image=i.image + new),
    "command": lambda i, new: i.rewritten(commands=(*i.workflow.commands[:-1], i.workflow.commands[-1] + new)),
    "another command": lambda i, new: i.rewritten(commands=(*i.workflow.commands, new)),
    "user": lambda i, new: i.rewritten(user=i.workflow.user + new),
    "env": lambda i, new: i.rewritten(env={**i.workflow.env, "a": i.workflow.env.get("a", "") + new}),
    "an artifact more": lambda i, new: i.rewritten(artifacts=(*i.workflow.artifacts, f"zz{new}")),
    "a file's bytes": lambda i, new: replace(i, files=(TreeFile("f", "100644", new), *i.files)),
    "a file's mode": lambda i, new: replace(i, files=(*i.files[:-1], flipped(i.files))),
    "an empty folder": lambda i, new: replace(i, files=(*i.files, TreeFile(f"{new}/", "040755", ""))),
    "a file less": lambda i, new: replace(i, files=i.files[1:]),
    "a variable": lambda i, new: with_own(i, {"zz": new}),
    "no value any more": lambda i, new: with_own(i, {"a": None}),
    "a dependency's key": lambda i, new: replace(i, dependencies={**i.dependencies, "zz": new}),
    "a dependency less": lambda i, new: replace(i, dependencies=without(i.dependencies, min(i.dependencies))),
}


def flipped(files: tuple[TreeFile, ...]) -> TreeFile:
    last = files[-1]
    modes = ("040755", "040555") if last.is_folder else ("100644", "100444", "100755")
    return TreeFile(last.path, next(mode for mode in modes if mode != last.mode), last.id)


def with_own(before: Inputs, new: dict[str, str | None]) -> Inputs:
    return replace(before, variables=Variables(before.variables.shared, {**before.variables.own, **new}))


@given(inputs(), st.text(alphabet="xyz", min_size=1, max_size=2), st.sampled_from(sorted(CHANGES)))
def test_any_change_of_an_input_changes_the_key(before: Inputs, new: str, change: str) -> None:
    assume(before.files or "file" not in change or "bytes" in change)
    assume(before.dependencies or change != "a dependency less")
    before = before.rewritten(depends_on=msgspec.structs.replace(before.workflow.needs, config=None))
    if change == "no value any more":
        before = with_own(before, {"a": new})

    after = CHANGES[change](before, new)

    assert after.key != before.key
    assert difference(before.components, after.components)


ELSEWHERE = {
    "name": "other",
    "help": "H",
    "image": "as-written-$torch",
    "cache": ("/root/.cache/pip",),
    "secrets": ("TOKEN",),
    "registry_auth": RegistryAuth(username="u", password="TOKEN"),
    "resources": Resources(cpu="4", memory="16GB", gpu=2),
    "runners": ("lab",),
    "mounts": ("/data:/data:ro",),
    "priority": 7,
    "preemptible": True,
    "max_duration": "6h",
    "stop_grace": "5s",
    "signal": WarningSignal(before="5m"),
    "retry": Retry(attempts=3),
    "fetch_depth": 0,
    "ports": (8888,),
    "metrics": "auto",
    "sweep": SweepSettings(max_runs=3),
    "notify": ("done",),
}
"""Fields of a workflow that no result depends on."""


def test_every_field_of_a_workflow_was_thought_of() -> None:
    inside = {"commands", "artifacts", "env", "user", "depends_on"}
    assert inside | set(ELSEWHERE) == {field.name for field in msgspec.structs.fields(Workflow)}


@given(inputs(), st.sets(st.sampled_from(sorted(ELSEWHERE))))
def test_what_no_result_depends_on_does_not_change_the_key(before: Inputs, names: set[str]) -> None:
    assert before.rewritten(**{name: ELSEWHERE[name] for name in names}).key == before.key


def turned(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(reversed(values.items()))


@given(inputs())
def test_order_does_not_change_the_key_where_it_means_nothing(before: Inputs) -> None:
    workflow, depends = before.workflow, before.workflow.needs
    config = None if depends.config is None else depends.config[::-1]
    after = replace(
        before.rewritten(
            artifacts=workflow.artifacts[::-1],
            env=turned(workflow.env),
            depends_on=msgspec.structs.replace(depends, config=config, workflows=depends.workflows[::-1]),
        ),
        files=before.files[::-1],
        dependencies=turned(before.dependencies),
        variables=Variables(turned(before.variables.shared), before.variables.own),
    )

    assert after.key == before.key


@given(inputs(), st.sampled_from(sorted(RESERVED)), TEXT)
def test_what_is_reserved_or_does_not_count_does_not_change_the_key(before: Inputs, name: str, value: str) -> None:
    own = {**before.variables.own, name: value}
    assert replace(before, variables=Variables(before.variables.shared, own)).key == before.key

    only = before.rewritten(depends_on=msgspec.structs.replace(before.workflow.needs, config=("a",)))
    more = Variables({**before.variables.shared, "other": value}, before.variables.own)
    assert replace(only, variables=more).key == only.key


@given(inputs(), st.sampled_from(["5m", "30s"]))
def test_how_files_are_named_and_stored_does_not_change_the_key(before: Inputs, sync: str) -> None:
    artifacts = tuple(msgspec.structs.replace(one, sync=sync) for one in before.workflow.outputs)
    include = msgspec.structs.replace(before.workflow.needs, repo=RepoDependency(include=("**",)))
    assert before.rewritten(artifacts=artifacts, depends_on=include).key == before.key
