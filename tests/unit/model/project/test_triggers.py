"""Triggers in workflows.yaml."""

from __future__ import annotations

import pytest

from dstack.model.project.workflow import CodeBranch, Push, Trigger
from tests.unit.model.project.projects import problems, project

WORKFLOW = "workflows:\n  - {name: train, image: busybox, commands: ['true']}\n"
CONFIGS = "configs: {global: {epochs: 1}}\n"


def test_triggers_are_read() -> None:
    text = """\
triggers:
  - name: nightly
    workflow: train
    cron: "0 2 * * *"
    timezone: Europe/Berlin
    code: {branch: main}
    variables: {epochs: 3}
    overlap: queue
    missed: all
    deadline: 6h
    max-failures: 3
  - {name: on-push, workflow: train, push: {branch: release/1, paths: [src/], every: 30s, secret: HOOK}}
  - {name: hourly, workflow: train, cron: "@hourly", code: snapshot}
"""
    nightly, on_push, hourly = project(WORKFLOW + text, CONFIGS).triggers

    assert nightly == Trigger(
        name="nightly",
        workflow="train",
        cron="0 2 * * *",
        timezone="Europe/Berlin",
        code=CodeBranch(branch="main"),
        variables={"epochs": "3"},
        overlap="queue",
        missed="all",
        deadline="6h",
        max_failures=3,
    )
    assert on_push.push == Push(branch="release/1", paths=("src/",), every="30s", secret="HOOK")
    assert (nightly.branch, on_push.branch, hourly.branch) == ("main", "release/1", None)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('cron: "0 0 30 2 *"', "'cron' in trigger 't' can't be used: '0 0 30 2 *' never fires"),
        ('cron: "61 * * * *"', "its minute is not valid"),
        ('cron: "@daily", timezone: Mars/Base', "'timezone' in trigger 't' can't be used: 'Mars/Base' is not a known"),
        ("overlap: skip", "trigger 't' needs either 'cron' or 'push'"),
        ('cron: "@daily", push: {branch: main}', "trigger 't' needs either 'cron' or 'push'"),
        ("push: {branch: main}, code: {branch: main}", "'code' in trigger 't' has no meaning beside 'push'"),
        ("push: {branch: main}, timezone: UTC", "'timezone' in trigger 't' has no meaning without 'cron'"),
        ("push: {branch: --upload-pack=x}", "is not a valid branch name"),
        ("push: {branch: a..b}", "is not a valid branch name"),
        ("push: {branch: main, every: 0s}", "'push.every' in trigger 't' is shorter than a second"),
        ("push: {branch: main, every: 60}", "has no unit"),
        ("push: {branch: main, paths: [../x]}", "'push.paths' in trigger 't'"),
        ('cron: "@daily", deadline: 6', "'deadline' in trigger 't' is '6', which has no unit"),
        ('cron: "@daily", overlap: never', "'never' is not a rule; write skip, queue, replace or allow"),
        ('cron: "@daily", missed: some', "'some' is not a rule; write last, skip or all"),
        ('cron: "@daily", code: main', "'main' is not a kind of code; write snapshot, or {branch: NAME}"),
        ('cron: "@daily", max-failures: 0', "must be a whole number from 1 to 1000"),
        ('cron: "@daily", variables: {epoch: 1}', "unknown variable 'epoch' in 'variables' in trigger 't'; did you"),
        ('cron: "@daily", cronn: 1', "unknown key 'cronn' in trigger 't'; did you mean 'cron'?"),
    ],
)
def test_a_mistake_is_named_with_its_line(keys: str, words: str) -> None:
    (problem,) = problems(WORKFLOW + f"triggers:\n  - {{name: t, workflow: train, {keys}}}\n", CONFIGS)

    assert problem.startswith("w:4: ")
    assert words in problem


def test_names_of_triggers_and_workflows_are_checked() -> None:
    text = "triggers:\n" + "".join(
        f"  - {{name: {name}, workflow: {workflow}, cron: '@daily'}}\n"
        for name, workflow in (("a", "train"), ("a", "trian"))
    )

    assert problems(WORKFLOW + text) == [
        "w:5: two triggers are named 'a'; rename this one or the one on line 4",
        "w:5: trigger 'a' runs unknown workflow 'trian'; did you mean 'train'?",
    ]
