from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.model.code.selection import rule, select, unmatched_warnings
from dstack.model.code.tree import TreeFile

TREE = [
    ".dstack/workflows.yaml", "README.md", "conf/a.yaml", "conf/deep/er/b.yaml", "conf/deep/c.yml", "data[1].txt",
    "data1.txt", "src/__init__.py", "src/main.py", "src/sub/x.py", "srcs/other.py", "train.py", "été.txt",
]  # fmt: skip


def files(*paths: str) -> list[TreeFile]:
    return [TreeFile(path, "100644", f"id of {path}") for path in paths]


def chosen(*include: str, project: str = "", tree: list[str] = TREE) -> list[str]:
    return [file.path for file in select(files(*tree), project, include)[0]]


def test_a_range_of_one_character_is_that_character() -> None:
    assert chosen("[a-a]", tree=["-", "a", "b"]) == ["a"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("train.py", ["train.py"]),
        ("./train.py", ["train.py"]),
        ("train.py/", []),
        ("src", ["src/__init__.py", "src/main.py", "src/sub/x.py"]),
        ("src/", ["src/__init__.py", "src/main.py", "src/sub/x.py"]),
        ("./src//sub/", ["src/sub/x.py"]),
        (".", [path for path in TREE if not path.startswith(".dstack/")]),
        ("**", [path for path in TREE if not path.startswith(".dstack/")]),
        ("*.py", ["train.py"]),
        ("**/*.py", ["src/__init__.py", "src/main.py", "src/sub/x.py", "srcs/other.py", "train.py"]),
        ("src/*.py", ["src/__init__.py", "src/main.py"]),
        ("src/*", ["src/__init__.py", "src/main.py", "src/sub/x.py"]),
        ("src*", ["src/__init__.py", "src/main.py", "src/sub/x.py", "srcs/other.py"]),
        ("s*/", ["src/__init__.py", "src/main.py", "src/sub/x.py", "srcs/other.py"]),
        ("*/main.py", ["src/main.py"]),
        ("conf/**/*.yaml", ["conf/a.yaml", "conf/deep/er/b.yaml"]),
        ("conf/**", ["conf/a.yaml", "conf/deep/c.yml", "conf/deep/er/b.yaml"]),
        ("**/er", ["conf/deep/er/b.yaml"]),
        ("src/????.py", ["src/main.py"]),
        ("data[1].txt", ["data1.txt", "data[1].txt"]),
        ("data[!1].txt", []),
        ("data[0-9].txt", ["data1.txt"]),
        ("data[^a-z].txt", ["data1.txt"]),
        ("data[[]1].txt", ["data[1].txt"]),
        ("conf[/]a.yaml", []),
        ("conf?a.yaml", []),
        ("[", []),
        ("*.TXT", []),
        ("?t?.txt", ["été.txt"]),
        ("*.*", ["README.md", "data1.txt", "data[1].txt", "train.py", "été.txt"]),
    ],
)
def test_entries(entry: str, expected: list[str]) -> None:
    assert chosen(entry) == sorted(expected)


def test_each_file_once_and_entries_that_name_nothing() -> None:
    found, unmatched = select(files(*TREE), "", ("train.py", "*.py", "no.py", "src/no/"))
    assert [file.path for file in found] == ["train.py"]
    assert unmatched == ("no.py", "src/no/")


def test_no_entry_is_no_file() -> None:
    assert select(files(*TREE), "", ()) == ([], ())


def test_all_files_are_all_but_the_definitions() -> None:
    found, unmatched = select(files(*TREE), "", None)
    assert [file.path for file in found] == sorted(TREE[1:])
    assert unmatched == ()


def test_paths_are_relative_to_the_project() -> None:
    tree = ["a.py", "apps/x/.dstack/workflows.yaml", "apps/x/.dstackx", "apps/x/m.py", "apps/y/n.py", "apps/xy/o.py"]
    assert [file.path for file in select(files(*tree), "apps/x", None)[0]] == [
        "../../a.py", "../xy/o.py", "../y/n.py", ".dstackx", "m.py",
    ]  # fmt: skip
    assert chosen("*.py", project="apps/x", tree=tree) == ["m.py"]
    assert chosen("**", project="apps/x/", tree=tree) == [".dstackx", "m.py"]
    (file,), _ = select(files(*tree), "apps/x", ("m.py",))
    assert file == TreeFile("m.py", "100644", "id of apps/x/m.py")


def test_definitions_of_another_project_count() -> None:
    tree = ["sub/.dstack/workflows.yaml", "x"]
    assert [file.path for file in select(files(*tree), "", None)[0]] == tree


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repo")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for path in TREE:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    return root


def by_git(repository: Path, pathspec: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", pathspec], cwd=repository, capture_output=True, text=True, check=True
    )
    return {path for path in listed.stdout.split("\0") if path and not path.startswith(".dstack/")}


NAMES = sorted({part for path in TREE for part in path.split("/")} | {"", ".", "no"})


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: path[:1] not in ("", "/"))
)
def test_files_and_folders_are_those_of_git(repository: Path, entry: str) -> None:
    assert set(chosen(entry)) >= by_git(repository, f":(literal){entry}")
    if "[" not in entry:
        assert set(chosen(entry)) == by_git(repository, f":(literal){entry}")


PATTERNS = st.text(alphabet="*?[]!-/acms1.py", min_size=1, max_size=8).filter(
    lambda text: text[0] != "/" and not set(text.split("/")) & {"", ".", ".."} and "**" not in text
)


@settings(max_examples=150)
@given(PATTERNS)
def test_patterns_name_all_that_git_would(repository: Path, entry: str) -> None:
    assert set(chosen(entry)) >= by_git(repository, f":(glob){entry}")


@pytest.mark.parametrize("entry", ["data", "data/", "data/raw", "data/raw/", "data/*", "d*", "**/raw", "**", "data/**"])
def test_an_empty_folder_is_named_as_what_is_in_it(entry: str) -> None:
    assert chosen(entry, tree=["data/raw/", "other/", "x.py"])[:1] == ["data/raw/"]
    assert chosen(entry, project="sub", tree=["sub/data/raw/", "sub/other/", "data/raw/"])[:1] == ["data/raw/"]


@pytest.mark.parametrize("entry", ["*.py", "raw", "data/raw/x", "data/raw/*.py", "rest"])
def test_an_empty_folder_is_nothing_else(entry: str) -> None:
    assert chosen(entry, tree=["data/raw/"]) == []


def test_folders_outside_of_the_project() -> None:
    found, _ = select(files("./", "a/", "sub/", "sub/.dstack/", "sub/b/"), "sub", None)
    assert [file.path for file in found] == [".././", "../a/", "./", "b/"]


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("*a" * 15 + "*b", "a" * 200),
        ("**/a/" * 12 + "b", "a/" * 100 + "c"),
        ("**/*a*/" * 10 + "b", "aa/" * 60 + "c"),
        ("?*" * 30 + "b", "a" * 200),
    ],
)
def test_no_pattern_takes_long(entry: str, path: str) -> None:
    started = time.process_time()

    assert not rule(entry)(path)
    assert rule(entry)(f"{path[:-1]}b") in (True, False)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("entry", "path", "fits"),
    [
        ("*a*b", "aab", True),
        ("*a*b", "aaba", False),
        ("*ab*ab", "ab", False),
        ("**/a/**/a", "a", False),
        ("**/a/**/a", "b/a/c/a/d", True),
        ("**/a/*/b/", "a/a/x/b/c", True),
        ("**/a/*/b/", "a/a/x/b", False),
        ("**/", "a", False),
        ("**/", "a/b", True),
    ],
)
def test_patterns_with_several_stars(entry: str, path: str, fits: bool) -> None:
    assert rule(entry)(path) is fits


@pytest.mark.parametrize(
    ("entry", "near"),
    [
        ("scr/", "src/"),
        ("src/modle", "src/model/"),
        ("srcs", "src/"),
        ("requirement.txt", "requirements.txt"),
        ("scr/**/*.py", "src/"),
        ("conf/trian.yaml", "conf/train.yaml"),
        ("*.yml", None),
        ("nothing-like-it", None),
    ],
)
def test_an_entry_that_matches_nothing_names_the_nearest_path(entry: str, near: str | None) -> None:
    tree = files("sub/src/main.py", "sub/src/model/net.py", "sub/requirements.txt", "sub/conf/train.yaml", "scr")

    warnings = unmatched_warnings("train", [entry], tree, "sub")

    hint = f"; did you mean '{near}'?" if near else ""
    assert warnings == [f"train: include '{entry}' matches no file{hint}"]
