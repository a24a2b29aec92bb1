# ruff: noqa: E501 - values and the message that they cause are one row

from __future__ import annotations

import subprocess

import pytest

from dstack.errors import UsageError
from dstack.model.job.script import expanded, script
from dstack.model.project.environment import build
from dstack.model.project.variables import apply
from dstack.model.project.workflow import Artifact, DependsOn, RepoDependency, Values, Variables, Workflow
from tests.unit.model.project.projects import STARTER, read

RESERVED = {"run_name": "brave-otter-7", "job_id": "0a1b"}


def workflow(**fields: object) -> Workflow:
    return Workflow(**{"name": "train", "image": "i", "commands": ("c",), **fields})  # type: ignore[arg-type]


def ready(own: Values, **fields: object) -> Workflow:
    return expanded(workflow(**fields), Variables(own=own), "0a1b", "brave-otter-7")


def include(*entries: str) -> DependsOn:
    return DependsOn(repo=RepoDependency(include=entries))


def test_the_commands_in_their_order() -> None:
    text = script(
        workflow(commands=("cd src", "python train.py $config_args --model $model\n", "echo ${config_args}")),
        Variables(shared={"model": "m"}, own={"x": "1", "note": "a b"}),
        "0a1b",
        "brave-otter-7",
    )
    assert text == (
        "# workflow train, job 0a1b of run brave-otter-7\n"
        "cd src\n"
        "python train.py --x 1 --note 'a b' --model $model\n\n"
        "echo --x 1 --note 'a b'\n"
    )


def test_what_is_replaced() -> None:
    found = ready(
        {"tag": "1.15", "x": "a b"},
        image="repo/i:$tag",
        artifacts=("./out/$job_id/", Artifact(path="$x/$run_name", optional=True), "$DSTACK_JOB_ID$DSTACK_WORKFLOW"),
        env={"A": "$DSTACK_GPUS $x"},
        depends_on=include("conf/$x/*.yaml", "src/"),
    )
    assert found.image == "repo/i:1.15"
    assert found.artifacts == ("out/0a1b", Artifact(path="a b/brave-otter-7", optional=True), "0a1btrain")
    assert found.needs == include("conf/a b/*.yaml", "src/")
    assert found.env == {"A": "$DSTACK_GPUS $x"}, "it waits for the machine"
    assert found.commands == ("c",)


def test_a_variable_never_hides_a_reserved_name() -> None:
    found = ready({"run_name": "run1", "config_args": "x"}, artifacts=("$run_name", "a$config_args"))
    assert found.artifacts == ("brave-otter-7", "a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "i:$zzz"}, "'image' in workflow 'train': undefined variable '$zzz'; define it in configs.yaml, or write '$$zzz' for a literal '$zzz'"),
        ({"image": "i:$none"}, "'image' in workflow 'train': variable '$none' is null; give it a value with --none VALUE"),
        ({"image": "$empty"}, "'image' in workflow 'train' is empty; name a Docker image"),
        ({"image": "lab:5000/$big"}, "'image' in workflow 'train' is 'lab:5000/Py', which can't be the name of an image: names are in lower case; write 'lab:5000/py'"),
        ({"image": "$dash"}, "'image' in workflow 'train' starts with '-': '--privileged'; write the name of a Docker image"),
        ({"artifacts": ("$up",)}, "'artifacts' in workflow 'train' contains '..': '../x'; write a path inside the project's folder"),
        ({"artifacts": ("$root/x",)}, "'artifacts' in workflow 'train' is the absolute path '/x'; write a path inside the project's folder"),
        ({"artifacts": ("$root",)}, "'artifacts' in workflow 'train' is empty; write a path inside the project's folder"),
        ({"artifacts": ("a", "a/$dash")}, "'artifacts' in workflow 'train' has overlapping paths: 'a' and 'a/--privileged'"),
        ({"depends_on": include("$up")}, "'depends-on.repo.include' in workflow 'train' contains '..': '../x'; write a path inside the project's folder"),
        ({"mounts": ("$root:/data",)}, "'mounts' in workflow 'train' has a path that is not absolute: ':/data'; start it with /"),
        ({"mounts": ("/data/$up:/data",)}, "'mounts' in workflow 'train' contains '..': '/data/../x:/data'; write the path without it"),
        ({"mounts": ("/a:/data", "/b:/data$root/")}, "'mounts' in workflow 'train' has the target /data, which another mount or cache uses"),
        ({"env": {"A": "$none"}}, "'env.A' in workflow 'train': variable '$none' is null; give it a value with --none VALUE"),
    ],
)  # fmt: skip
def test_values_that_spoil_a_path_or_image(fields: dict[str, object], message: str) -> None:
    own: Values = {"none": None, "empty": "", "dash": "--privileged", "up": "../x", "root": "", "big": "Py"}
    with pytest.raises(UsageError) as caught:
        ready(own, **fields)
    assert caught.value.message == message


def test_the_starter_project_needs_nothing_but_sh(tmp_path: object) -> None:
    project = read(STARTER)
    variables = apply(project, "report", [("words", "500")])
    for name, values in variables.items():
        environment = build(values, project.workflows[name].env, {}, RESERVED)
        said = subprocess.run(
            ["sh", "-e"],
            input=script(project.workflows[name], values, "0a1b", "brave-otter-7"),
            env={"PATH": "/usr/bin:/bin", **{key: text for key, text in environment.items() if text is not None}},
            cwd=str(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("500 words")
    assert len(said.stdout.splitlines()) == 6


def test_variables_in_caches() -> None:
    assert ready({"x": "b/"}, cache=("/a/$x/", "/c")).cache == ("/a/b", "/c")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "'cache' in workflow 'train' is empty"),
        ("a", "'cache' in workflow 'train' is the relative path 'a'"),
        ("/workflow/x", "'cache' in workflow 'train' is '/workflow/x'"),
        ("/c/d", "'cache' in workflow 'train' has overlapping paths: '/c/d' and '/c'"),
    ],
)
def test_caches_that_variables_spoil(value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ready({"x": value}, cache=("$x", "/c"))
