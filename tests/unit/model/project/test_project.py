"""How project files are read."""

from __future__ import annotations

import pytest
import yaml

from dstack.model.project import nodes
from dstack.model.project.workflow import Artifact, DependsOn
from tests.unit.model.project.projects import STARTER, problems, project, read

ONE = "workflows:\n- {name: a, image: i, commands: [c]}\n"


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LOADER", getattr(yaml, request.param))


TEXTS = "1.15 0.00002 2e-05 off on yes True true 1:30 12GB 0x1F 010 1_000 2020-01-01 None = << .inf -1 1.10 utf-8"


@pytest.mark.parametrize("text", TEXTS.split())
def test_values_keep_their_text(text: str) -> None:
    found = project(
        f"workflows:\n- name: a\n  image: i\n  commands: [{text}]\n  env: {{A: {text}}}\n",
        f"configs:\n  global: {{x: {text}}}\n  a:\n    y: {text}\n",
    )
    assert found.shared == {"x": text}
    assert found.own == {"a": {"y": text}}
    assert found.workflows["a"].commands == (text,)
    assert found.workflows["a"].env == {"A": text}


@pytest.mark.parametrize("text", ["null", "~", "", "Null", "NULL"])
def test_null_is_no_text(text: str) -> None:
    assert project(ONE, f"configs:\n  global:\n    x: {text}\n").shared == {"x": None}


def test_quotes_make_text_of_null() -> None:
    assert project(ONE, "configs: {global: {x: 'null', y: ''}}").shared == {"x": "null", "y": ""}


def test_all_keys() -> None:
    found = project(
        """
workflows:
  - name: a
    image: i
    commands:
      - |
        first
        second
      - third
    help: H
    depends-on:
      repo: {include: [src/, "conf/**/*.yaml"]}
      config: [x]
      workflows: [b]
    artifacts: [out, {path: logs, optional: true}]
    env: {A: 1}
    user: 1000
    resources: {gpu: 2}
  - {name: b, image: i, commands: [c]}
""",
        "configs: {global: {x: 1}}",
    ).workflows["a"]
    assert found.commands == ("first\nsecond\n", "third")
    assert found.help == "H"
    assert found.needs.repo is not None
    assert found.needs.repo.include == ("src/", "conf/**/*.yaml")
    assert found.needs.config == ("x",)
    assert found.needs.workflows == ("b",)
    assert found.outputs == (Artifact(path="out"), Artifact(path="logs", optional=True))
    assert found.env == {"A": "1"}
    assert found.user == "1000"
    assert found.resources.gpu == 2


def test_parts_of_depends_on_that_are_left_out_have_their_own_default() -> None:
    depends_on = project(ONE).workflows["a"].needs
    assert (depends_on.repo, depends_on.config, depends_on.workflows) == (None, None, ())


def test_a_list_in_depends_on_is_short_for_its_workflows() -> None:
    found = project(f"{ONE}- {{name: b, image: i, commands: [c], depends-on: [a, ':best']}}\n").workflows["b"]
    assert found.needs == DependsOn(workflows=("a", ":best"))


@pytest.mark.parametrize("written", ["[x]", "{workflows: [x]}"])
def test_an_unknown_workflow_is_named_at_its_line_in_both_forms_of_depends_on(written: str) -> None:
    found = problems(f"{ONE}- name: b\n  image: i\n  commands: [c]\n  depends-on: {written}\n")
    assert found == ["w:6: workflow 'b' depends on unknown workflow 'x'"]


def test_anchors_aliases_and_merge_keys() -> None:
    found = project(
        """
workflows:
  - &base
    name: a
    image: i
    commands: &commands [c]
    env: &env {A: 1, B: 2}
  - <<: *base
    name: b
    env: {<<: *env, B: 3}
  - {<<: [{image: j}, *base], name: c, commands: *commands}
""",
        "configs: {a: &a {x: 1, y: 2}, b: {<<: *a, x: 3}, c: *a}",
    )
    assert found.workflows["b"].image == "i"
    assert found.workflows["b"].env == {"A": "1", "B": "3"}
    assert found.workflows["c"].image == "j"
    assert list(found.own["b"].items()) == [("y", "2"), ("x", "3")]
    assert found.own["c"] == {"x": "1", "y": "2"}


@pytest.mark.parametrize(
    "configs", [None, "", "# nothing\n", "configs:\n", "configs: {global: }\n", "configs: {a: }\n"]
)
def test_configs_may_be_empty(configs: str | None) -> None:
    assert project(ONE, configs).own == {"a": {}}


def test_a_file_may_begin_with_a_byte_order_mark_and_have_other_line_ends() -> None:
    assert list(project("\ufeff" + ONE.replace("\n", "\r\n")).workflows) == ["a"]


def test_workflows_and_variables_keep_the_order_of_the_file() -> None:
    names = ["zeta", "alpha", "mid"]
    workflows = "workflows:\n" + "".join(f"- {{name: {name}, image: i, commands: [c]}}\n" for name in names)
    found = project(workflows, "configs: {alpha: {z: 1, a: 2, m: 3}}")
    assert list(found.workflows) == names
    assert list(found.own["alpha"]) == ["z", "a", "m"]


def test_variables_of_every_kind_are_known_in_texts() -> None:
    found = project(
        """
workflows:
- name: a
  image: i:$tag
  commands: [c $undefined]
  artifacts: ["out/$job_id/${x}"]
  env: {A: $DSTACK_GPUS $config_args $$HOME 5$}
  depends-on: {repo: {include: ["$x/$run_name"]}}
""",
        "configs: {global: {tag: 1}, a: {x: 2}}",
    )
    assert found.workflows["a"].image == "i:$tag"


def test_warnings_name_what_does_not_reach_the_environment() -> None:
    found = project(
        ONE.replace("[c]", "[c], env: {DSTACK_JOB_ID: x}") + "- {name: b, image: i, commands: [c]}\n",
        "configs: {global: {path: x}, b: {uid: 1, job_id: 2}}",
    )
    assert [warning.split("'")[1] for warning in found.warnings] == ["path", "DSTACK_JOB_ID", "uid"]
    assert [note.split("'")[1] for note in found.notes] == ["job_id"]


def test_the_starter_project_is_in_order() -> None:
    assert list(read(STARTER).workflows) == ["prepare", "train", "report"]
