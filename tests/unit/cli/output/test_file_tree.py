"""What `dstack artifacts list` shows."""

from __future__ import annotations

import json
from pathlib import Path

from dstack.cli.output.file_tree import lines, tree
from dstack.model.api.artifacts import ArtifactView
from tests.unit.cli.conftest import Cli, command
from tests.unit.cli.fake_server import State
from tests.unit.cli.terminal import type_into

JOB = "0123456789ab"


def view(path: str, size: int = 10, link: str | None = None, workflow: str = "train") -> ArtifactView:
    return ArtifactView(job=JOB, workflow=workflow, path=path, size=size, mode=0o644, sha256="", link=link)


def test_a_tree_has_the_totals_of_folders() -> None:
    views = [
        view("out/step-10/w", 2_000_000),
        view("out/step-9/w", 1_000_000),
        view("log", 5),
        view("out/latest", 0, "step-10"),
        view("a", workflow="prepare"),
    ]

    assert tree(views, everything=False) == [
        ("3 MB", "train: 4 files"),
        ("5 B", "├── log"),
        ("3 MB", "└── out/"),
        ("0 B", "    ├── latest -> step-10"),
        ("1 MB", "    ├── step-9/"),
        ("1 MB", "    │   └── w"),
        ("2 MB", "    └── step-10/"),
        ("2 MB", "        └── w"),
        ("10 B", "prepare: 1 file"),
        ("10 B", "└── a"),
    ]
    assert tree(views[2:3], everything=False, ascii_only=True)[1] == ("5 B", "`-- log")


def test_a_folder_of_many_files_is_cut_unless_all_are_asked_for() -> None:
    views = [view(f"many/{number}", 100) for number in range(5000)] + [view("other")]

    shown = tree(views, everything=False)

    assert len(shown) == 23
    assert shown[2] == ("100 B", "│   ├── 0")
    assert shown[20] == ("100 B", "│   ├── 18")
    assert shown[21] == ("498.1 kB", "│   └── and 4981 files more (--all shows them)")
    assert shown[22] == ("10 B", "└── other")
    assert len(tree(views, everything=True)) == 5003


def test_a_hundred_thousand_files() -> None:
    views = [view(f"d{number % 300}/f{number}") for number in range(100_000)]

    assert len(tree(views, everything=True)) == 100_301


def test_lines_for_scripts() -> None:
    assert list(lines([view("a b\tc\nd\\e", 7), view("l", 0, "a b"), view("\x1b[2J")])) == [
        "train\ta b\\tc\\nd\\\\e\t7",
        "train\tl\t0\ta b",
        "train\t\\x1b[2J\t10",
    ]


def test_a_terminal_gets_the_tree_and_a_script_the_lines(
    cli: Cli, state: State, server: str, environment: dict[str, str], folder: Path
) -> None:
    state.artifacts += [view("out/model.bin", 102_400), view("out/red\x1b[31m", 3), view("empty", 0)]
    known = {**environment, "DSTACK_SERVER_URL": server, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}

    shown, code = type_into(command("artifacts", "list", "brave-otter-7"), [], cwd=folder, environment=known)
    plain = cli("artifacts", "list", "brave-otter-7", "out/")

    assert code == 0
    assert "102.4 kB  train: 3 files\r\n" in shown
    assert "102.4 kB  └── out/\r\n" in shown
    assert "\x1b[31m" not in shown
    assert plain.stdout == b"train\tout/model.bin\t102400\ntrain\tout/red\\x1b[31m\t3\n"
    assert [each["path"] for each in json.loads(cli("artifacts", "list", "brave-otter-7", "out", "--json").stdout)] == [
        "out/model.bin",
        "out/red\x1b[31m",
    ]
    missed = cli("artifacts", "list", "brave-otter-7", "out/modl.bin")
    assert missed.returncode == 2
    assert b"did you mean 'out/model.bin'?" in missed.stderr
