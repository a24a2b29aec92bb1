"""The exact error messages for project files. `w` stands for workflows.yaml, `c` for configs.yaml."""

# ruff: noqa: E501 - a mistake and its message are one row

from __future__ import annotations

import pytest
import yaml

from dstack.errors import ProjectError
from dstack.model.project import nodes
from dstack.model.project.workflow import Workflow
from tests.unit.model.project.projects import problems, project

ONE = "workflows:\n- name: train\n  image: i\n  commands: [c]\n"
"""A workflow without a mistake; what follows it is line 5."""
TWO = ONE + "- name: b\n  image: i\n  commands: [c]\n"

SYNTAX = [
    ("", "w:1: the file is empty; start it with 'workflows:'"),
    ("# only this\n", "w:1: the file is empty; start it with 'workflows:'"),
    ("- a\n", "w:1: the file must be a map; start it with 'workflows:'"),
    ("\nhello\n", "w:2: the file must be a map; start it with 'workflows:'"),
    ("workflows:\n\t- name: a\n", "w:2: invalid YAML: a line is indented with a tab; use spaces"),
    (ONE + "---\na: 1\n", "w:5: a second YAML document starts here; keep only one document in this file"),
    (ONE + "  help: a\0b\n", "w:5: YAML does not allow the character U+0000; save the file as UTF-8 text"),
    (ONE + "  help: \udcff\n", "w:5: YAML does not allow the character U+DCFF; save the file as UTF-8 text"),
    (ONE + "  help: a: b\n", "w:5: invalid YAML: mapping values are not allowed"),
    (ONE + "  help: `x`\n", "w:5: invalid YAML: found character"),
    (ONE + "  artifacts: [*.pt]\n", "w:5: invalid YAML: "),
    (ONE + "  help: 'a\n", "(while scanning a quoted scalar that starts on line 5)"),
    (ONE + "  env: {A: *b}\n", "w:5: invalid YAML: found undefined alias"),
]

TABLE = [
    # keys
    ("artefacts: [a]", "w:5: unknown key 'artefacts' in workflow 'train'; did you mean 'artifacts'?"),
    ("depends_on: {}", "w:5: unknown key 'depends_on' in workflow 'train'; did you mean 'depends-on'?"),
    ("zzz: 1", "w:5: unknown key 'zzz' in workflow 'train'"),
    ("image: j", "w:5: duplicate key 'image' in workflow 'train'; it is already on line 3"),
    ("[a]: b", "w:5: a key in workflow 'train' is a list or a map; a key must be text"),
    ("<<: x", "w:5: '<<' in workflow 'train' can only merge a map or a list of maps"),
    (
        "depends-on: {repo: {includes: [a]}}",
        "w:5: unknown key 'includes' in 'depends-on.repo' in workflow 'train'; did you mean 'include'?",
        "w:5: 'depends-on.repo' in workflow 'train' is missing the required key 'include'",
    ),
    # kinds
    ("help:", "w:5: 'help' in workflow 'train' has no value; add one or remove the key"),
    ("help: [a]", "w:5: 'help' in workflow 'train' must be text, not a list"),
    ("help: !x a", "w:5: 'help' in workflow 'train' has the YAML tag '!x', which is not supported; remove the tag"),
    ("help: !!binary aaaa", "w:5: 'help' in workflow 'train' has the YAML tag 'tag:yaml.org,2002:binary', which is not supported; remove the tag"),
    ('help: "a\\0"', "w:5: 'help' in workflow 'train' contains a NUL character; remove it"),
    ("artifacts: a", "w:5: 'artifacts' in workflow 'train' must be a list, not text"),
    ("artifacts: [[a]]", "w:5: entry 1 of 'artifacts' in workflow 'train' must be a map or text, not a list"),
    ("artifacts: [{optional: true}]", "w:5: entry 1 of 'artifacts' in workflow 'train' is missing the required key 'path'"),
    (
        "artifacts: [{path: a, optional: yes}]",
        "w:5: 'optional' in entry 1 of 'artifacts' in workflow 'train' must be true or false, not 'yes'",
    ),
    ("resources: {gpu: two}", "w:5: 'resources.gpu' in workflow 'train' must be a whole number from 0 to 1024, not 'two'"),
    ("resources: {gpu: -1}", "w:5: 'resources.gpu' in workflow 'train' must be a whole number from 0 to 1024, not '-1'"),
    ("resources: {gpu: 1_0}", "w:5: 'resources.gpu' in workflow 'train' must be a whole number from 0 to 1024, not '1_0'"),
    ("user: a b", "w:5: 'user' in workflow 'train': 'a b' is not a valid user; write a uid, a user name, or 'image' for the image's own user"),
    ("secrets: [a-b]", "w:5: entry 1 of 'secrets' in workflow 'train': 'a-b' is not a valid name; use letters, digits and '_', and don't start with a digit"),
    ("max-duration: 6 hours", "w:5: 'max-duration' in workflow 'train': '6 hours' is not a duration; write 30s, 10m, 1h30m or 2d"),
    ("stop-grace: soon", "w:5: 'stop-grace' in workflow 'train': 'soon' is not a duration; write 30s, 10m, 1h30m or 2d"),
    ("resources: {memory: lots}", "w:5: 'resources.memory' in workflow 'train': 'lots' is not a size; write 512MB, 16GB or 1TB"),
    ("resources: {memory: 16}", "w:5: 'resources.memory' in workflow 'train': '16' has no unit; write a unit, such as 16GB"),
    ("resources: {disk: 1.5}", "w:5: 'resources.disk' in workflow 'train': '1.5' has no unit; write a unit, such as 1.5GB"),
    ("resources: {shm-size: 8}", "w:5: 'resources.shm-size' in workflow 'train': '8' has no unit; write a unit, such as 8GB"),
    ("resources: {gpu: {memory: 40}}", "w:5: 'resources.gpu.memory' in workflow 'train': '40' has no unit; write a unit, such as 40GB"),
    ("resources: {memory: 16B}", "w:5: 'resources.memory' in workflow 'train': '16B' is less than Docker's minimum of 6 MB; write 6MB or more"),
    ("resources: {memory: 5m}", "w:5: 'resources.memory' in workflow 'train': '5m' is less than Docker's minimum of 6 MB; write 6MB or more"),
    ("resources: {shm-size: 999999TB}", "w:5: 'resources.shm-size' in workflow 'train': '999999TB' is more than any machine has; write a smaller size, such as 16GB"),
    ("max-duration: 6", "w:5: 'max-duration' in workflow 'train': '6' has no unit; write a unit, such as 6h, 6m or 6s"),
    ("stop-grace: 1.5", "w:5: 'stop-grace' in workflow 'train': '1.5' has no unit; write a unit, such as 1.5h, 1.5m or 1.5s"),
    ("artifacts: [a, {path: b, sync: 5}]", "w:5: 'sync' in entry 2 of 'artifacts' in workflow 'train': '5' has no unit; write a unit, such as 5h, 5m or 5s"),
    ("max-duration: 1h\n  signal: {before: 60}", "w:6: 'signal.before' in workflow 'train': '60' has no unit; write a unit, such as 60h, 60m or 60s"),
    ("max-duration: 9999d", "w:5: 'max-duration' in workflow 'train': '9999d' is too long; write at most 3650d"),
    ("max-duration: 0s", "w:5: 'max-duration' in workflow 'train' leaves no time to run; write a longer one, or remove it for no limit"),
    ("max-duration: 6 hours\n  signal: {before: 5m}", "w:5: 'max-duration' in workflow 'train': '6 hours' is not a duration; write 30s, 10m, 1h30m or 2d"),
    ("max-duration: 6h\n  signal: {before: 5 minutes}", "w:6: 'signal.before' in workflow 'train': '5 minutes' is not a duration; write 30s, 10m, 1h30m or 2d"),
    ("resources: {cpu: four}", "w:5: 'resources.cpu' in workflow 'train': 'four' is not a number of CPUs; write a number such as 4 or 0.5"),
    ("resources: {gpu: {vendor: intel}}", "w:5: 'resources.gpu.vendor' in workflow 'train': 'intel' is not a supported GPU vendor; write nvidia or amd"),
    ("max-duration: 1h\n  signal: {name: KILL, before: 5m}", "w:6: 'signal.name' in workflow 'train': 'KILL' is not a supported signal; write USR1, USR2, HUP or INT"),
    ("max-duration: 1h\n  signal: {before: soon}", "w:6: 'signal.before' in workflow 'train': 'soon' is not a duration; write 30s, 10m, 1h30m or 2d"),
    ("max-duration: 1h\n  signal: {name: INT}", "w:6: 'signal' in workflow 'train' is missing the required key 'before'"),
    ("resources: {memory: 1.2.3}", "w:5: 'resources.memory' in workflow 'train': '1.2.3' is not a size; write 512MB, 16GB or 1TB"),
    ("retry: {attempts: 2, on: [lots]}", "w:5: entry 1 of 'retry.on' in workflow 'train': 'lots' is not a cause for a retry; write lost, error, out-of-memory, or an exit code from 1 to 255"),
    ("depends-on:", "w:5: 'depends-on' in workflow 'train' has no value; add one or remove the key"),
    # dependencies
    (
        "depends-on: {workflows: [trian]}",
        "w:5: workflow 'train' depends on unknown workflow 'trian'; did you mean 'train'?",
    ),
    ("depends-on: {workflows: [zzz]}", "w:5: workflow 'train' depends on unknown workflow 'zzz'"),
    ("depends-on: {workflows: [train]}", "w:5: workflow 'train' depends on itself; remove it from its own 'depends-on'"),
    (
        "depends-on: {config: [modle]}",
        "w:5: unknown variable 'modle' in 'depends-on.config' in workflow 'train'; did you mean 'model'?",
    ),
    # texts with variables
    ("artifacts: [$modle]", "w:5: undefined variable '$modle' in entry 1 of 'artifacts' in workflow 'train'; did you mean '$model'?"),
    ("env: {A: '${zzz}'}", "w:5: undefined variable '$zzz' in 'env.A' in workflow 'train'; define it in configs.yaml, or write '$$zzz' for a literal '$zzz'"),
    ("env: {A: '${a-b}'}", "w:5: '${a-b}' in 'env.A' in workflow 'train' is not a valid variable; write ${name}, or $$ for a dollar sign"),
    ("depends-on: {repo: {include: [$zzz]}}", "w:5: undefined variable '$zzz' in entry 1 of 'depends-on.repo.include' in workflow 'train'; define it in configs.yaml, or write '$$zzz' for a literal '$zzz'"),
    ("artifacts: [$DSTACK_GPUS]", "w:5: '$DSTACK_GPUS' can't be used in entry 1 of 'artifacts' in workflow 'train': it has no value before the job has a runner"),
    # paths
    ("artifacts: [/a]", "w:5: entry 1 of 'artifacts' in workflow 'train' is the absolute path '/a'; write a path inside the project's folder"),
    ("artifacts: [a/../../b]", "w:5: entry 1 of 'artifacts' in workflow 'train' contains '..': 'a/../../b'; write a path inside the project's folder"),
    ("artifacts: ['']", "w:5: entry 1 of 'artifacts' in workflow 'train' is empty; add a value"),
    ("artifacts: [' ']", "w:5: entry 1 of 'artifacts' in workflow 'train' is empty; write a path inside the project's folder"),
    ("artifacts: [./]", "w:5: entry 1 of 'artifacts' in workflow 'train' is the whole project; name a file or folder in it"),
    ("artifacts: [a/.git/b]", "w:5: entry 1 of 'artifacts' in workflow 'train' is 'a/.git/b', but .git is not part of the project's files; remove this entry"),
    ("artifacts: [./.dstack]", "w:5: entry 1 of 'artifacts' in workflow 'train' is './.dstack', but .dstack is for dstack's own files; remove this entry"),
    ("artifacts: ['*.pt']", "w:5: entry 1 of 'artifacts' in workflow 'train' is the pattern '*.pt'; name the folder that contains the files"),
    ('artifacts: ["a\\nb"]', "w:5: entry 1 of 'artifacts' in workflow 'train' contains a control character; remove it"),
    ("artifacts: [models/124M, ./models/]", "w:5: artifacts 'models/124M' and './models/' in workflow 'train' overlap; keep only the outer one"),
    (
        "artifacts: [., a, a/b]",
        "w:5: entry 1 of 'artifacts' in workflow 'train' is the whole project; name a file or folder in it",
        "w:5: artifacts 'a' and 'a/b' in workflow 'train' overlap; keep only the outer one",
    ),
    ("artifacts: [a, a/]", "w:5: artifacts 'a' and 'a/' in workflow 'train' overlap; keep only the outer one"),
    ("depends-on: {repo: {include: [../a]}}", "w:5: entry 1 of 'depends-on.repo.include' in workflow 'train' contains '..': '../a'; write a path inside the project's folder"),
    ("depends-on: {repo: {include: [.dstack/]}}", "w:5: entry 1 of 'depends-on.repo.include' in workflow 'train' is '.dstack/', but .dstack is for dstack's own files; remove this entry"),
    # caches
    ("cache: [.cache]", "w:5: entry 1 of 'cache' in workflow 'train' is the relative path '.cache'; write an absolute path in the container, such as /root/.cache/pip"),
    ("cache: [~/.cache]", "w:5: entry 1 of 'cache' in workflow 'train' is '~/.cache'; write the full path in the container, such as /root/.cache"),
    ("cache: [//./]", "w:5: entry 1 of 'cache' in workflow 'train' is '/'; name a folder in the container"),
    ("cache: [/workflow/]", "w:5: entry 1 of 'cache' in workflow 'train' is '/workflow/', but /workflow is for the project's files; choose another folder"),
    ("cache: [/workflow/a]", "w:5: entry 1 of 'cache' in workflow 'train' is '/workflow/a', but /workflow is for the project's files; choose another folder"),
    ("cache: [/.dstack/x]", "w:5: entry 1 of 'cache' in workflow 'train' is '/.dstack/x', but /.dstack is for dstack's own files; choose another folder"),
    ("cache: [/a/../workflow]", "w:5: entry 1 of 'cache' in workflow 'train' contains '..': '/a/../workflow'; write the path without it"),
    ("cache: ['/a,b']", "w:5: entry 1 of 'cache' in workflow 'train' contains a comma, a quote or a control character, which Docker does not allow in mounts; remove it"),
    ("cache: [/usr]", "w:5: entry 1 of 'cache' in workflow 'train' is '/usr', which is a system folder in the container; choose another folder"),
    ("cache: [/proc/x]", "w:5: entry 1 of 'cache' in workflow 'train' is '/proc/x', which is a system folder in the container; choose another folder"),
    ("cache: [/a, /a/b]", "w:5: caches '/a' and '/a/b' in workflow 'train' overlap; keep only the outer one"),
    ("cache: [/a/$modle]", "w:5: undefined variable '$modle' in entry 1 of 'cache' in workflow 'train'; did you mean '$model'?"),
    # mounts
    ("mounts: [/data]", "w:5: entry 1 of 'mounts' in workflow 'train' must be SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw, not '/data'"),
    ("mounts: ['/data:/data:z']", "w:5: entry 1 of 'mounts' in workflow 'train' must be SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw, not '/data:/data:z'"),
    ("mounts: ['data:/data']", "w:5: entry 1 of 'mounts' in workflow 'train' has a path that is not absolute: 'data:/data'; start it with /"),
    ("mounts: ['/data/../etc:/data']", "w:5: entry 1 of 'mounts' in workflow 'train' contains '..': '/data/../etc:/data'; write the path without it"),
    ("mounts: ['/data:/']", "w:5: entry 1 of 'mounts' in workflow 'train' would hide the image's own files: '/data:/'; mount to another folder"),
    ("mounts: ['/data:/workflow/a']", "w:5: entry 1 of 'mounts' in workflow 'train' has a target in /workflow, which dstack uses itself: '/data:/workflow/a'; mount to another folder"),
    ("mounts: ['/data://.dstack/']", "w:5: entry 1 of 'mounts' in workflow 'train' has a target in /.dstack, which dstack uses itself: '/data://.dstack/'; mount to another folder"),
    ("mounts: ['/a,b:/data']", "w:5: entry 1 of 'mounts' in workflow 'train' contains a comma, a quote, a backslash or a control character; remove it from '/a,b:/data'"),
    ("mounts: ['/a:/data', '/b:/data/:ro']", "w:5: entry 2 of 'mounts' in workflow 'train' has the target /data, which another mount or cache uses"),
    ("mounts: ['/a:/b', '$zzz:/data']", "w:5: undefined variable '$zzz' in entry 2 of 'mounts' in workflow 'train'; define it in configs.yaml, or write '$$zzz' for a literal '$zzz'"),
    ("mounts: ['/a:/$DSTACK_RUNNER']", "w:5: '$DSTACK_RUNNER' can't be used in entry 1 of 'mounts' in workflow 'train': it has no value before the job has a runner"),
    ("cache: [/data]\n  mounts: ['/a:/data/']", "w:6: entry 1 of 'mounts' in workflow 'train' has the target /data, which another mount or cache uses"),
    # environment
    ("env: {A-B: 1}", "w:5: 'A-B' in 'env' in workflow 'train' is not a valid name; use letters, digits and '_', and don't start with a digit"),
    ("env: {UID: 1}", "w:5: 'env.UID' in workflow 'train' can't be set because shells reserve the name; rename it"),
    ("env: {A: }", "w:5: 'env.A' in workflow 'train' has no value; add one"),
]  # fmt: skip


CONFIGS = [
    ("configs: {trian: {a: 1}}", "c:1: no workflow is named 'trian'; did you mean 'train'?"),
    ("configs: {globl: {a: 1}}", "c:1: no workflow is named 'globl'; did you mean 'global'?"),
    ("configs: {train: {a: [1]}}", "c:1: 'configs.train.a' must be text, not a list"),
    ("configs:\n  train:\n    a:\n      b: 1", "c:3: 'configs.train.a' must be text, not a map; put text that contains ': ' in quotes"),
    ("configs: {train: {2a: 1}}", "c:1: '2a' in 'configs.train' is not a valid name; use letters, digits and '_', and don't start with a digit"),
    ("configs: {train: {a-b: 1}}", "c:1: 'a-b' in 'configs.train' is not a valid name; use letters, digits and '_', and don't start with a digit"),
    ('configs: {train: {"a\\n": 1}}', "c:1: 'a\n' in 'configs.train' is not a valid name; use letters, digits and '_', and don't start with a digit"),
    ("configs: {train: {a: 1, A: 2}}", "c:1: 'a' and 'A' differ only in case; rename one"),
    ("configs:\n  global: {lr: 1}\n  train: {LR: 2}", "c:3: 'lr' and 'LR' differ only in case; rename one"),
    ("configs:\n  train: {LR: 2}\n  global: {lr: 1}", "c:2: 'lr' and 'LR' differ only in case; rename one"),
    ("configs: {train: {a: 1, a: 2}}", "c:1: duplicate key 'a' in 'configs.train'; it is already on line 1"),
    ('configs: {train: {a: "\\0"}}', "c:1: 'configs.train.a' contains a NUL character; remove it"),
    ("config: {train: {a: 1}}", "c:1: unknown key 'config' in the file; did you mean 'configs'?", "c:1: the file is missing the required key 'configs'"),
    ("- a", "c:1: the file must be a map; start it with 'configs:'"),
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
    assert problem.startswith("w:1: invalid YAML: ")


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
        ("workflows: []", ["w:1: 'workflows' is empty; add at least one entry"]),
        ("workflows:", ["w:1: 'workflows' has no value; add one"]),
        ("workflow: []", ["w:1: unknown key 'workflow' in the file; did you mean 'workflows'?", "w:1: the file is missing the required key 'workflows'"]),
        ("workflows: [a]", ["w:1: entry 1 of 'workflows' must be a map, not text"]),
        ("workflows:\n- help: h", [f"w:2: workflow 1 is missing the required key '{key}'" for key in ("name", "image", "commands")]),
        ("workflows:\n- {name: a, image: i, commands: []}", ["w:2: 'commands' in workflow 'a' is empty; add at least one entry"]),
        ("workflows:\n- {name: a, image: i, commands: x}", ["w:2: 'commands' in workflow 'a' must be a list, not text"]),
        (
            "workflows:\n- name: a\n  image: i\n  commands:\n  - echo a: b\n  -\n",
            [
                "w:5: entry 1 of 'commands' in workflow 'a' must be text, not a map; put text that contains ': ' in quotes",
                "w:6: entry 2 of 'commands' in workflow 'a' has no value; add one",
            ],
        ),
        ("workflows:\n- {name: a b, image: i, commands: [c]}", ["w:2: 'name' in workflow 'a b': 'a b' is not a valid workflow name; use letters, digits, '-' and '_', and don't start with '-'"]),
        ("workflows:\n- {name: " + "a" * 101 + ", image: i, commands: [c]}", ["w:2: 'name' in workflow '" + "a" * 101 + "' is longer than 100 characters; shorten it"]),
        ("workflows:\n- {name: global, image: i, commands: [c]}", ["w:2: a workflow can't be named 'global', which means all workflows in the configs; rename it"]),
        ("workflows:\n- {name: a, image: '', commands: [c]}", ["w:2: 'image' in workflow 'a' is empty; add a value"]),
        ("workflows:\n- {name: a, image: a b, commands: [c]}", ["w:2: 'image' in workflow 'a' contains a space or a control character; remove it from 'a b'"]),
        ("workflows:\n- {name: a, image: --privileged, commands: [c]}", ["w:2: 'image' in workflow 'a' starts with '-': '--privileged'; write the name of a Docker image"]),
        ("workflows:\n- {name: a, image: Lab/Py, commands: [c]}", ["w:2: 'image' in workflow 'a' is 'Lab/Py', which can't be the name of an image: names are in lower case; write 'lab/py'"]),
        ("workflows:\n- {name: a, image: 'docker://x', commands: [c]}", ["w:2: 'image' in workflow 'a' starts with 'docker://': 'docker://x'; write the image's name alone, such as x"]),
        ("workflows:\n- {name: a, image: 'i:$tag', commands: [c]}", ["w:2: undefined variable '$tag' in 'image' in workflow 'a'; define it in configs.yaml, or write '$$tag' for a literal '$tag'"]),
        (ONE + "- {name: train, image: i, commands: [c]}", ["w:5: two workflows are named 'train'; rename this one or the one on line 2"]),
        ("workflows: [&a {name: a, image: i, commands: [c]}, *a]", ["w:1: two workflows are named 'a'; rename this one or the one on line 1"]),
        ("workflows:\n- &a {<<: *a, name: a, image: i, commands: [c], x: 1}", ["w:2: unknown key 'x' in workflow 'a'"]),
    ],
)  # fmt: skip
def test_other_mistakes(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_a_cycle_is_shown() -> None:
    text = "workflows:\n" + "".join(
        f"- name: {name}\n  image: i\n  commands: [c]\n  depends-on: {{workflows: [{needed}]}}\n"
        for name, needed in (("start", "a"), ("a", "b"), ("b", "c"), ("c", "a"))
    )
    assert problems(text) == ["w:9: workflows depend on each other in a cycle: a -> b -> c -> a; remove one dependency"]


def test_all_mistakes_of_both_files_are_told_in_the_order_of_lines() -> None:
    text = TWO + "  artefacts: [a]\n  env: {A: $zzz}\n- name: b\n  image: i\n"
    assert problems(text, "configs:\n  trian: {a: 1}\n  global: {1: 1}\n") == [
        "w:8: unknown key 'artefacts' in workflow 'b'; did you mean 'artifacts'?",
        "w:9: undefined variable '$zzz' in 'env.A' in workflow 'b'; define it in configs.yaml, or write '$$zzz' for a literal '$zzz'",
        "w:10: workflow 'b' is missing the required key 'commands'",
        "w:10: two workflows are named 'b'; rename this one or the one on line 5",
        "c:2: no workflow is named 'trian'; did you mean 'train'?",
        "c:3: '1' in 'configs.global' is not a valid name; use letters, digits and '_', and don't start with a digit",
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
    assert any(f"'{key}' in" in problem for problem in problems(f"workflows:\n-{lines[1:]}\n"))
