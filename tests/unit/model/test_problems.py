"""What is wrong in project files, in exactly these words. `w` stands for workflows.yaml, `c` for configs.yaml."""

# ruff: noqa: E501 - a mistake and its message are one row

from __future__ import annotations

import pytest
import yaml

from dstack.errors import ProjectError
from dstack.model import nodes
from dstack.model.workflow import Workflow
from tests.unit.model.projects import problems, project

ONE = "workflows:\n- name: train\n  image: i\n  commands: [c]\n"
"""A workflow without a mistake; what follows it is line 5."""
TWO = ONE + "- name: b\n  image: i\n  commands: [c]\n"

SYNTAX = [
    ("", "w:1: the file is empty: it begins with 'workflows:'"),
    ("# only this\n", "w:1: the file is empty: it begins with 'workflows:'"),
    ("- a\n", "w:1: the file must be a map that begins with 'workflows:'"),
    ("\nhello\n", "w:2: the file must be a map that begins with 'workflows:'"),
    ("workflows:\n\t- name: a\n", "w:2: no valid YAML: a line can't be indented with tabs; use spaces"),
    (ONE + "---\na: 1\n", "w:5: a second document begins here: a project file holds one"),
    (ONE + "  help: a\0b\n", "w:5: the character U+0000 can't be part of YAML: save the file as UTF-8 text"),
    (ONE + "  help: \udcff\n", "w:5: the character U+DCFF can't be part of YAML: save the file as UTF-8 text"),
    (ONE + "  help: a: b\n", "w:5: no valid YAML: mapping values are not allowed"),
    (ONE + "  help: `x`\n", "w:5: no valid YAML: found character"),
    (ONE + "  artifacts: [*.pt]\n", "w:5: no valid YAML: "),
    (ONE + "  help: 'a\n", "(while scanning a quoted scalar that begins in line 5)"),
    (ONE + "  env: {A: *b}\n", "w:5: no valid YAML: found undefined alias"),
]

TABLE = [
    # keys
    ("artefacts: [a]", "w:5: unknown key 'artefacts' in workflow 'train'; did you mean 'artifacts'?"),
    ("depends_on: {}", "w:5: unknown key 'depends_on' in workflow 'train'; did you mean 'depends-on'?"),
    ("zzz: 1", "w:5: unknown key 'zzz' in workflow 'train'"),
    ("image: j", "w:5: key 'image' is given twice in workflow 'train': first in line 3"),
    ("[a]: b", "w:5: a key in workflow 'train' is a list or a map: a key is one word"),
    ("<<: x", "w:5: '<<' in workflow 'train' merges a map or a list of maps, nothing else"),
    (
        "depends-on: {repo: {includes: [a]}}",
        "w:5: unknown key 'includes' in 'depends-on.repo' of workflow 'train'; did you mean 'include'?",
        "w:5: 'depends-on.repo' of workflow 'train' has no 'include'",
    ),
    # kinds
    ("help:", "w:5: 'help' of workflow 'train' has no value; give it one or leave the key out"),
    ("help: [a]", "w:5: 'help' of workflow 'train' must be text, not a list"),
    ("help: !x a", "w:5: 'help' of workflow 'train' has the tag '!x', which means nothing here"),
    ("help: !!binary aaaa", "w:5: 'help' of workflow 'train' has the tag 'tag:yaml.org,2002:binary', which means nothing here"),
    ('help: "a\\0"', "w:5: 'help' of workflow 'train' holds a NUL character, which no command or variable can"),
    ("artifacts: a", "w:5: 'artifacts' of workflow 'train' must be a list, not text"),
    ("artifacts: [[a]]", "w:5: entry 1 of 'artifacts' of workflow 'train' must be a map or text, not a list"),
    ("artifacts: [{optional: true}]", "w:5: entry 1 of 'artifacts' of workflow 'train' has no 'path'"),
    (
        "artifacts: [{path: a, optional: yes}]",
        "w:5: 'optional' of entry 1 of 'artifacts' of workflow 'train' must be true or false, not 'yes'",
    ),
    ("resources: {gpu: two}", "w:5: 'resources.gpu' of workflow 'train' must be a whole number from 0 to 1024, not 'two'"),
    ("resources: {gpu: -1}", "w:5: 'resources.gpu' of workflow 'train' must be a whole number from 0 to 1024, not '-1'"),
    ("resources: {gpu: 1_0}", "w:5: 'resources.gpu' of workflow 'train' must be a whole number from 0 to 1024, not '1_0'"),
    ("user: a b", "w:5: 'user' of workflow 'train' must be a uid, a name, or 'image' for the image's own user; it is 'a b'"),
    ("depends-on:", "w:5: 'depends-on' of workflow 'train' has no value; give it one or leave the key out"),
    # dependencies
    (
        "depends-on: {workflows: [trian]}",
        "w:5: workflow 'train' depends on unknown workflow 'trian'; did you mean 'train'?",
    ),
    ("depends-on: {workflows: [zzz]}", "w:5: workflow 'train' depends on unknown workflow 'zzz'"),
    ("depends-on: {workflows: [train]}", "w:5: workflow 'train' depends on itself"),
    (
        "depends-on: {config: [modle]}",
        "w:5: unknown variable 'modle' in 'depends-on.config' of workflow 'train'; did you mean 'model'?",
    ),
    # texts with variables
    ("artifacts: [$modle]", "w:5: undefined variable '$modle' in entry 1 of 'artifacts' of workflow 'train'; did you mean '$model'?"),
    ("env: {A: '${zzz}'}", "w:5: undefined variable '$zzz' in 'env.A' of workflow 'train'"),
    ("env: {A: '${a-b}'}", "w:5: '${a-b}' in 'env.A' of workflow 'train' is no variable: write ${name}, or $$ for a dollar sign"),
    ("depends-on: {repo: {include: [$zzz]}}", "w:5: undefined variable '$zzz' in entry 1 of 'depends-on.repo.include' of workflow 'train'"),
    ("artifacts: [$DSTACK_GPUS]", "w:5: '$DSTACK_GPUS' in entry 1 of 'artifacts' of workflow 'train' has no value before the job has a machine"),
    # paths
    ("artifacts: [/a]", "w:5: entry 1 of 'artifacts' of workflow 'train' is the absolute path '/a': name one inside the project's folder"),
    ("artifacts: [a/../../b]", "w:5: entry 1 of 'artifacts' of workflow 'train' holds '..' in 'a/../../b': name a path inside the project's folder"),
    ("artifacts: ['']", "w:5: entry 1 of 'artifacts' of workflow 'train' is empty"),
    ("artifacts: [' ']", "w:5: entry 1 of 'artifacts' of workflow 'train' is empty"),
    ("artifacts: [./]", "w:5: entry 1 of 'artifacts' of workflow 'train' is the whole project: name a file or folder in it"),
    ("artifacts: [a/.git/b]", "w:5: entry 1 of 'artifacts' of workflow 'train' names 'a/.git/b': .git is not part of the project's files"),
    ("artifacts: [./.dstack]", "w:5: entry 1 of 'artifacts' of workflow 'train' names './.dstack': .dstack holds dstack's own files"),
    ("artifacts: ['*.pt']", "w:5: entry 1 of 'artifacts' of workflow 'train' is the pattern '*.pt': name the folder that holds the files"),
    ('artifacts: ["a\\nb"]', "w:5: entry 1 of 'artifacts' of workflow 'train' holds a control character"),
    ("artifacts: [models/124M, ./models/]", "w:5: artifacts 'models/124M' and './models/' of workflow 'train' overlap: name the outer one alone"),
    ("artifacts: [a, a/]", "w:5: artifacts 'a' and 'a/' of workflow 'train' overlap: name the outer one alone"),
    ("depends-on: {repo: {include: [../a]}}", "w:5: entry 1 of 'depends-on.repo.include' of workflow 'train' holds '..' in '../a': name a path inside the project's folder"),
    ("depends-on: {repo: {include: [.dstack/]}}", "w:5: entry 1 of 'depends-on.repo.include' of workflow 'train' names '.dstack/': .dstack holds dstack's own files"),
    # caches
    ("cache: [.cache]", "w:5: entry 1 of 'cache' of workflow 'train' is the relative path '.cache': name an absolute one in the container, such as /root/.cache/pip"),
    ("cache: [~/.cache]", "w:5: entry 1 of 'cache' of workflow 'train' is '~/.cache': write the whole path in the container, such as /root/.cache"),
    ("cache: [//./]", "w:5: entry 1 of 'cache' of workflow 'train' is '/': name a folder in the container"),
    ("cache: [/workflow/]", "w:5: entry 1 of 'cache' of workflow 'train' is '/workflow/': /workflow holds the project's files"),
    ("cache: [/workflow/a]", "w:5: entry 1 of 'cache' of workflow 'train' is '/workflow/a': /workflow holds the project's files"),
    ("cache: [/.dstack/x]", "w:5: entry 1 of 'cache' of workflow 'train' is '/.dstack/x': /.dstack holds dstack's own files"),
    ("cache: [/a/../workflow]", "w:5: entry 1 of 'cache' of workflow 'train' holds '..' in '/a/../workflow'"),
    ("cache: ['/a,b']", "w:5: entry 1 of 'cache' of workflow 'train' holds a comma, a quote or a control character, which Docker's mounts can't"),
    ("cache: [/usr]", "w:5: entry 1 of 'cache' of workflow 'train' is '/usr', which belongs to the system in the container"),
    ("cache: [/proc/x]", "w:5: entry 1 of 'cache' of workflow 'train' is '/proc/x', which belongs to the system in the container"),
    ("cache: [/a, /a/b]", "w:5: '/a' and '/a/b' of 'cache' of workflow 'train' overlap: name the outer one alone"),
    ("cache: [/a/$modle]", "w:5: undefined variable '$modle' in entry 1 of 'cache' of workflow 'train'; did you mean '$model'?"),
    # mounts
    ("mounts: [/data]", "w:5: entry 1 of 'mounts' of workflow 'train' must be SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw, not '/data'"),
    ("mounts: ['/data:/data:z']", "w:5: entry 1 of 'mounts' of workflow 'train' must be SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw, not '/data:/data:z'"),
    ("mounts: ['data:/data']", "w:5: entry 1 of 'mounts' of workflow 'train' needs absolute paths: 'data:/data'"),
    ("mounts: ['/data/../etc:/data']", "w:5: entry 1 of 'mounts' of workflow 'train' holds '..' in '/data/../etc:/data'"),
    ("mounts: ['/data:/']", "w:5: entry 1 of 'mounts' of workflow 'train' would hide the image's own files: '/data:/'"),
    ("mounts: ['/data:/workflow/a']", "w:5: entry 1 of 'mounts' of workflow 'train' has a target in /workflow, which is dstack's own: '/data:/workflow/a'"),
    ("mounts: ['/data://.dstack/']", "w:5: entry 1 of 'mounts' of workflow 'train' has a target in /.dstack, which is dstack's own: '/data://.dstack/'"),
    ("mounts: ['/a,b:/data']", "w:5: entry 1 of 'mounts' of workflow 'train' holds a comma, a quote, a backslash or a control character: '/a,b:/data'"),
    ("mounts: ['/a:/data', '/b:/data/:ro']", "w:5: entry 2 of 'mounts' of workflow 'train' has the target /data, as another entry or a cache"),
    ("mounts: ['/a:/b', '$zzz:/data']", "w:5: undefined variable '$zzz' in entry 2 of 'mounts' of workflow 'train'"),
    ("mounts: ['/a:/$DSTACK_RUNNER']", "w:5: '$DSTACK_RUNNER' in entry 1 of 'mounts' of workflow 'train' has no value before the job has a machine"),
    ("cache: [/data]\n  mounts: ['/a:/data/']", "w:6: entry 1 of 'mounts' of workflow 'train' has the target /data, as another entry or a cache"),
    # environment
    ("env: {A-B: 1}", "w:5: name 'A-B' in 'env' of workflow 'train' must be letters, digits and '_', not beginning with a digit"),
    ("env: {UID: 1}", "w:5: 'env.UID' of workflow 'train' can't be set: shells forbid it"),
    ("env: {A: }", "w:5: 'env.A' of workflow 'train' has no value"),
]  # fmt: skip


CONFIGS = [
    ("configs: {trian: {a: 1}}", "c:1: no workflow is called 'trian'; did you mean 'train'?"),
    ("configs: {globl: {a: 1}}", "c:1: no workflow is called 'globl'; did you mean 'global'?"),
    ("configs: {train: {a: [1]}}", "c:1: 'configs.train.a' must be text, not a list"),
    ("configs:\n  train:\n    a:\n      b: 1", "c:3: 'configs.train.a' must be text, not a map; text that holds ': ' needs quotes"),
    ("configs: {train: {2a: 1}}", "c:1: name '2a' in 'configs.train' must be letters, digits and '_', not beginning with a digit"),
    ("configs: {train: {a-b: 1}}", "c:1: name 'a-b' in 'configs.train' must be letters, digits and '_', not beginning with a digit"),
    ('configs: {train: {"a\\n": 1}}', "c:1: name 'a\n' in 'configs.train' must be letters, digits and '_', not beginning with a digit"),
    ("configs: {train: {a: 1, A: 2}}", "c:1: variables 'a' and 'A' differ only in case"),
    ("configs:\n  global: {lr: 1}\n  train: {LR: 2}", "c:3: variables 'lr' and 'LR' differ only in case"),
    ("configs:\n  train: {LR: 2}\n  global: {lr: 1}", "c:2: variables 'lr' and 'LR' differ only in case"),
    ("configs: {train: {a: 1, a: 2}}", "c:1: key 'a' is given twice in 'configs.train': first in line 1"),
    ('configs: {train: {a: "\\0"}}', "c:1: 'configs.train.a' holds a NUL character, which no command or variable can"),
    ("config: {train: {a: 1}}", "c:1: unknown key 'config' in the file; did you mean 'configs'?", "c:1: the file has no 'configs'"),
    ("- a", "c:1: the file must be a map that begins with 'configs:'"),
    ("configs: [a]", "c:1: 'configs' must be a map, not a list"),
    ("configs: {train: [a]}", "c:1: 'configs.train' must be a map, not a list"),
]  # fmt: skip


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LOADER", getattr(yaml, request.param))


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("text", "words"), SYNTAX)
def test_syntax(text: str, words: str) -> None:
    (problem,) = problems(text)
    assert words in problem


@pytest.mark.usefixtures("loader")
def test_lists_without_end_are_no_crash() -> None:
    (problem,) = problems("[" * 5000)
    assert problem.startswith("w:1: no valid YAML: ")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_a_mistake_in_a_workflow(row: tuple[str, ...]) -> None:
    line, *expected = row
    assert problems(f"{ONE}  {line}\n", "configs: {global: {model: 1}}") == expected


@pytest.mark.parametrize("row", CONFIGS, ids=lambda row: row[0])
def test_a_mistake_in_the_configs(row: tuple[str, ...]) -> None:
    text, *expected = row
    assert problems(ONE, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workflows: []", ["w:1: 'workflows' is empty"]),
        ("workflows:", ["w:1: 'workflows' has no value"]),
        ("workflow: []", ["w:1: unknown key 'workflow' in the file; did you mean 'workflows'?", "w:1: the file has no 'workflows'"]),
        ("workflows: [a]", ["w:1: entry 1 of 'workflows' must be a map, not text"]),
        ("workflows:\n- help: h", [f"w:2: workflow 1 has no '{key}'" for key in ("name", "image", "commands")]),
        ("workflows:\n- {name: a, image: i, commands: []}", ["w:2: 'commands' of workflow 'a' is empty"]),
        ("workflows:\n- {name: a, image: i, commands: x}", ["w:2: 'commands' of workflow 'a' must be a list, not text"]),
        (
            "workflows:\n- name: a\n  image: i\n  commands:\n  - echo a: b\n  -\n",
            [
                "w:5: entry 1 of 'commands' of workflow 'a' must be text, not a map; text that holds ': ' needs quotes",
                "w:6: entry 2 of 'commands' of workflow 'a' has no value",
            ],
        ),
        ("workflows:\n- {name: a b, image: i, commands: [c]}", ["w:2: 'name' of workflow 'a b' must be letters, digits, '-' and '_', not beginning with '-'; it is 'a b'"]),
        ("workflows:\n- {name: " + "a" * 101 + ", image: i, commands: [c]}", ["w:2: 'name' of workflow '" + "a" * 101 + "' is longer than 100 characters"]),
        ("workflows:\n- {name: global, image: i, commands: [c]}", ["w:2: a workflow can't be called 'global': that section of the configs is every workflow's"]),
        ("workflows:\n- {name: a, image: '', commands: [c]}", ["w:2: 'image' of workflow 'a' is empty"]),
        ("workflows:\n- {name: a, image: a b, commands: [c]}", ["w:2: 'image' of workflow 'a' holds a space or a control character: 'a b'"]),
        ("workflows:\n- {name: a, image: --privileged, commands: [c]}", ["w:2: 'image' of workflow 'a' begins with '-': '--privileged'"]),
        ("workflows:\n- {name: a, image: 'i:$tag', commands: [c]}", ["w:2: undefined variable '$tag' in 'image' of workflow 'a'"]),
        (ONE + "- {name: train, image: i, commands: [c]}", ["w:5: two workflows are called 'train': the first is in line 2"]),
        ("workflows: [&a {name: a, image: i, commands: [c]}, *a]", ["w:1: two workflows are called 'a': the first is in line 1"]),
        ("workflows:\n- &a {<<: *a, name: a, image: i, commands: [c], x: 1}", ["w:2: unknown key 'x' in workflow 'a'"]),
    ],
)  # fmt: skip
def test_other_mistakes(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_a_circle_is_shown() -> None:
    text = "workflows:\n" + "".join(
        f"- name: {name}\n  image: i\n  commands: [c]\n  depends-on: {{workflows: [{needed}]}}\n"
        for name, needed in (("start", "a"), ("a", "b"), ("b", "c"), ("c", "a"))
    )
    assert problems(text) == ["w:9: workflows depend on each other in a circle: a -> b -> c -> a"]


def test_all_mistakes_of_both_files_are_told_in_the_order_of_lines() -> None:
    text = TWO + "  artefacts: [a]\n  env: {A: $zzz}\n- name: b\n  image: i\n"
    assert problems(text, "configs:\n  trian: {a: 1}\n  global: {1: 1}\n") == [
        "w:8: unknown key 'artefacts' in workflow 'b'; did you mean 'artifacts'?",
        "w:9: undefined variable '$zzz' in 'env.A' of workflow 'b'",
        "w:10: workflow 'b' has no 'commands'",
        "w:10: two workflows are called 'b': the first is in line 5",
        "c:2: no workflow is called 'trian'; did you mean 'train'?",
        "c:3: name '1' in 'configs.global' must be letters, digits and '_', not beginning with a digit",
    ]


def test_one_unreadable_file_brings_no_mistakes_of_the_other() -> None:
    assert len(problems(ONE + "  artifacts: [$model]\n", "configs: {global: {model: 'x}}\n")) == 1
    assert len(problems("workflows: 'x\n", "configs: {train: {a: 1}}")) == 1


def test_the_message_is_that_of_the_contract() -> None:
    text = "workflows:\n- name: train\n  image: i\n  commands:\n  - a\n  - b\n  artefacts: [x]\n"
    with pytest.raises(ProjectError) as caught:
        project(text)
    assert str(caught.value) == (
        ".dstack/workflows.yaml:7: unknown key 'artefacts' in workflow 'train'; did you mean 'artifacts'?"
    )
    assert caught.value.exit_code == 2


def test_aliases_of_aliases_take_no_time() -> None:
    text = "x0: &x0 {k: 1}\n" + "".join(
        f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 9)}]}}\n" for n in range(1, 40)
    )
    found = problems(text + ONE.replace("image: i", "<<: *x39\n  image: i"))
    assert "w:43: unknown key 'k' in workflow 'train'" not in found
    assert "w:1: unknown key 'k' in workflow 'train'" in found


@pytest.mark.parametrize("field", Workflow.__struct_fields__)
def test_every_key_has_a_test_of_its_kind(field: str) -> None:
    key = field.replace("_", "-")
    lines = "\n".join(f"  {name}: [[[]]]" for name in {"name", "image", "commands", key})
    assert any(f"'{key}' of" in problem for problem in problems(f"workflows:\n-{lines[1:]}\n"))
