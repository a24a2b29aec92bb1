from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dstack.model.code.tree import TreeFile
from dstack.model.job.cache_key import components, difference, key
from dstack.model.project.workflow import Artifact, DependsOn, Resources, Variables, Workflow

WORKFLOW = Workflow(
    name="encode",
    image="i:$tag",
    commands=("python encode.py",),
    artifacts=("out/$job_id",),
    env={"A": "$model"},
)
FILES = (TreeFile("encode.py", "100644", "aaa"), TreeFile("old.py", "100755", "bbb"))
VARIABLES = Variables(shared={"model": "124M", "tag": None}, own={"lr": "0.1"})
KEYS = {"download-model": "k1"}


def made(workflow: Workflow = WORKFLOW, **changes: Any) -> dict[str, str]:
    parts: dict[str, Any] = {"image": "i:1", "files": FILES, "variables": VARIABLES, "dependencies": KEYS, **changes}
    return components(workflow, **parts)


def changed(**fields: Any) -> Workflow:
    return replace(WORKFLOW, **fields)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (made(image="i:2"), "image: i:1 -> i:2"),
        (made(changed(commands=("python encode.py -v",))), "commands changed"),
        (made(changed(commands=("python", "encode.py"))), "commands changed"),
        (made(changed(env={"A": "$tag"})), "env A changed"),
        (made(changed(env={"A": "$model", "B": ""})), "env B added"),
        (made(changed(env={})), "env A removed"),
        (made(changed(user="image")), "user: root -> image"),
        (made(changed(artifacts=("out",))), "artifacts changed"),
        (made(changed(artifacts=(Artifact(path="out/$job_id", optional=True),))), "artifacts changed"),
        (made(files=[TreeFile("encode.py", "100644", "ccc"), FILES[1]]), "encode.py changed"),
        (made(files=[TreeFile("encode.py", "100755", "aaa"), FILES[1]]), "permissions of encode.py changed"),
        (made(files=[TreeFile("encode.py", "100444", "aaa"), FILES[1]]), "permissions of encode.py changed"),
        (made(files=[*FILES, TreeFile("data/", "040755", "")]), "folder data/ added"),
        (made(files=[*FILES, TreeFile("data/", "040755", ""), TreeFile("new.py", "100644", "x")]), "new.py added"),
        (made(files=[*FILES, TreeFile("new.py", "100644", "x")]), "new.py added"),
        (made(files=FILES[:1]), "old.py removed"),
        (made(variables=Variables({"model": "117M", "tag": None}, {"lr": "0.1"})), "variable model: 124M -> 117M"),
        (made(variables=Variables({"model": "124M", "tag": ""}, {"lr": "0.1"})), "variable tag: null -> ''"),
        (made(variables=Variables({"model": "124M", "tag": "null"}, {"lr": "0.1"})), "variable tag: null -> null"),
        (made(variables=Variables({"model": "124M"}, {"lr": "0.1"})), "variable tag removed"),
        (made(variables=Variables(VARIABLES.shared, {"lr": "0.1", "n": "1"})), "variable n added"),
        (made(dependencies={"download-model": "k2"}), "dependency download-model ran again"),
        (made(dependencies={}), "dependency download-model removed"),
    ],
)
def test_what_is_in_the_key(after: dict[str, str], words: str) -> None:
    assert difference(made(), after) == words
    assert key(after) != key(made())


def test_a_folder_is_told_by_what_changed() -> None:
    open_, closed = (made(files=[TreeFile("data/", mode, "")]) for mode in ("040755", "040555"))
    assert difference(open_, closed) == "permissions of folder data/ changed"
    assert difference(open_, made(files=[])) == "folder data/ removed"


@pytest.mark.parametrize(
    "same",
    [
        made(),
        made(changed(name="other", help="H", resources=Resources(gpu=2), mounts=("/a:/b",))),
        made(changed(artifacts=(Artifact(path="out/$job_id"),))),
        made(files=reversed(FILES)),
        made(variables=Variables({"tag": None, "model": "124M", "lr": "0.1"})),
        made(variables=Variables(VARIABLES.shared, {"lr": "0.1", "run_name": "mine"})),
        made(changed(depends_on=DependsOn(config=("model", "tag", "lr")))),
    ],
)
def test_what_is_not_in_the_key(same: dict[str, str]) -> None:
    assert difference(made(), same) is None
    assert key(same) == key(made())


def test_only_the_variables_of_depends_on_count() -> None:
    workflow = changed(depends_on=DependsOn(config=("model",)))
    assert made(workflow) == made(workflow, variables=Variables({"model": "124M"}, {"x": "1"}))
    assert made(workflow) != made(workflow, variables=Variables({"model": "117M"}))
    none = changed(depends_on=DependsOn(config=()))
    assert made(none) == made(none, variables=Variables())


def test_config_args_change_with_the_section_and_order_of_a_variable() -> None:
    workflow = changed(commands=("python train.py $config_args",))
    before = made(workflow, variables=Variables({"a": "1"}, {"b": "1", "c": "1"}))
    for variables in (Variables({}, {"a": "1", "b": "1", "c": "1"}), Variables({"a": "1"}, {"c": "1", "b": "1"})):
        assert difference(before, made(workflow, variables=variables)) == "the variables in $config_args changed"


def test_one_of_several_changes_is_told_always_the_same() -> None:
    after = made(image="i:2", dependencies={}, files=())
    assert difference(made(), after) == "image: i:1 -> i:2"
    assert difference(made(), made(dependencies={}, files=())) == "encode.py removed"


def test_a_long_value_is_cut() -> None:
    words = difference(made(), made(variables=Variables({"model": "a\n" * 100, "tag": None}, {"lr": "0.1"})))
    assert words is not None
    assert words.startswith("variable model: 124M -> a\\na")
    assert len(words) < 100


def test_names_that_are_not_utf8_can_be_stored_and_are_told_apart() -> None:
    one = made(files=[TreeFile("a\udcff", "100644", "x")])
    other = made(files=[TreeFile("a\\xff", "100644", "x")])
    assert msgspec.json.decode(msgspec.json.encode(one)) == one
    assert key(one) != key(other)
    assert difference(made(files=()), one) == "a\\xff added"


def test_the_key_stays_what_it_is() -> None:
    assert key({"b": "2", "a": "1"}) == key({"a": "1", "b": "2"})
    assert key({"a": "1"}) == "ea63402ddb7f587a1ba28945c1868965acf1394d451d41ef0005be0873db6a18"
