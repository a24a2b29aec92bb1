"""Imports point down only, and each library is used only in the place named for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dstack"

FLOORS = {
    "dstack": 0,
    "dstack.errors": 0,
    "dstack.model": 0,
    "dstack.commands": 1,
    "dstack.scheduling": 1,
    "dstack.decide": 1,
    "dstack.render": 1,
    "dstack.plumbing": 2,
    "dstack.hosts": 3,
    "dstack.store": 3,
    "dstack.artifacts": 3,
    "dstack.snapshot": 3,
    "dstack.mirror": 3,
    "dstack.inventory": 3,
    "dstack.notify": 3,
    "dstack.client": 3,
    "dstack.executors": 4,
    "dstack.engine": 5,
    "dstack.server": 6,
    "dstack.cli": 7,
    "dstack.runner": 7,
}
"""Plumbing lies below the leaves, which import nothing of each other; so do the client and the rest of that floor."""
LEAVES = 3
ROOMS = {
    "dstack.model": (
        "dstack.model.text",
        "dstack.model.runner",
        "dstack.model.metrics",
        "dstack.model.triggers",
        "dstack.model.project",
        "dstack.model.code",
        "dstack.model.job",
        "dstack.model.sweep",
        "dstack.model.notify",
        "dstack.model.api",
    ),
    "dstack.engine": (
        "dstack.engine.fleet",
        "dstack.engine.retention",
        "dstack.engine.transfer",
        "dstack.engine.lifecycle",
        "dstack.engine.reconcile",
        "dstack.engine.submission",
        "dstack.engine.sweeps",
        "dstack.engine.notify",
        "dstack.engine.triggers",
    ),
}
"""Inside these, a folder imports those before it and never those behind it."""
FORBIDDEN = {
    "dstack.cli": ("dstack.server", "dstack.engine", "dstack.store", "dstack.mirror", "dstack.artifacts"),
    "dstack.engine": ("dstack.commands.job", "dstack.executors.docker"),
}
"""What a floor does not import although it lies below: the command line talks to the server by HTTP, and the engine
knows no executor but by the Protocol."""
MOST_FILES = 15
HOME_OF = {
    "anyio": ("dstack.engine", "dstack.hosts", "dstack.server"),
    "asyncssh": ("dstack.hosts",),
    "cryptography": ("dstack.store",),
    "sqlite_utils": ("dstack.store",),
    "sqlite3": ("dstack.store",),
    "boto3": ("dstack.artifacts.s3",),
    "botocore": ("dstack.artifacts.s3",),
    "cronsim": ("dstack.model.triggers",),
    "git": ("dstack.mirror",),
    "gitdb": ("dstack.mirror",),
    "regex": ("dstack.model.metrics",),
    "jinja2": ("dstack.render", "dstack.server.web.html"),
    "markupsafe": ("dstack.server.web",),
    "rich": ("dstack.cli.output",),
    "optuna": ("dstack.engine.sweeps",),
    "click": ("dstack.cli",),
    "starlette": ("dstack.server",),
    "uvicorn": ("dstack.server",),
}
SLOW = {
    *("anyio", "asyncio", "asyncssh", "boto3", "git", "jinja2", "optuna", "regex", "sqlite3", "sqlite_utils"),
    *("starlette", "uvicorn"),
}
"""What the CLI never imports when it starts."""
PURE = {"os", "io", "subprocess", "socket", "shutil", "tempfile", "glob", "fcntl", "asyncio", "threading", "time"}
"""Modules that floors 0 and 1 live without."""
OPENS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "iterdir"),
    *("stat", "lstat", "glob", "rglob", "mkdir", "unlink", "touch", "symlink_to", "cwd", "home", "expanduser"),
    *("now", "utcnow", "today"),
}
"""Methods that touch the disk or the clock, of modules that are pure otherwise (pathlib, datetime)."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """Return the room that a module belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else module


def floor_of(module: str) -> int:
    return FLOORS[part_of(module)]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Return the line and module of every import in a file."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; name the module in full"
            assert node.module is not None
            if node.module.split(".")[0] == "dstack":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield node.lineno, whole if _is_module(whole) else node.module
            else:
                yield node.lineno, node.module


@cache
def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def inside(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_every_module_has_a_floor() -> None:
    assert [name_of(path) for path in modules() if part_of(name_of(path)) not in FLOORS] == []


def test_imports_point_down() -> None:
    wrong = []
    for path in modules():
        here = name_of(path)
        for line, module in imports(path):
            if module.split(".")[0] != "dstack" or part_of(module) == part_of(here):
                continue
            if floor_of(module) > floor_of(here):
                wrong.append(f"{path}:{line}: {here} imports {module}, which is on a higher floor")
            elif floor_of(module) == floor_of(here) == LEAVES:
                wrong.append(f"{path}:{line}: {here} imports {module}: no leaf imports another")
            elif inside(module, FORBIDDEN.get(part_of(here), ())):
                wrong.append(f"{path}:{line}: {here} imports {module}, which is not for it")
    assert not wrong, "\n".join(wrong)


def test_folders_inside_a_floor_stand_on_each_other() -> None:
    wrong = []
    for path in modules():
        here = name_of(path)
        for line, module in imports(path):
            for rooms in ROOMS.values():
                mine = next((at for at, room in enumerate(rooms) if inside(here, (room,))), None)
                theirs = next((at for at, room in enumerate(rooms) if inside(module, (room,))), None)
                if mine is not None and theirs is not None and theirs > mine:
                    wrong.append(f"{path}:{line}: {here} imports {module}, whose folder stands on its own")
    assert not wrong, "\n".join(wrong)


def test_no_folder_shows_too_many_files() -> None:
    folders = {path.parent for path in modules()}
    full = {folder: len(list(folder.glob("*.py"))) - 1 for folder in folders}
    assert {str(folder): count for folder, count in full.items() if count > MOST_FILES} == {}


def test_a_class_name_exists_once() -> None:
    homes: dict[str, list[str]] = {}
    for path in modules():
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name_of(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_each_library_has_one_home() -> None:
    wrong = []
    for path in modules():
        here = name_of(path)
        for line, module in imports(path):
            homes = HOME_OF.get(module.split(".")[0])
            if homes is not None and not inside(here, homes):
                wrong.append(f"{path}:{line}: {module} is for {homes} only")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [p for p in modules() if floor_of(name_of(p)) < 2], ids=name_of)
def test_the_pure_floors_do_no_io(path: Path) -> None:
    for line, module in imports(path):
        assert module.split(".")[0] not in PURE, f"{path}:{line}: {module} does I/O; floors 0 and 1 are pure"
    if name_of(path) == "dstack.render":
        return  # reads the templates, which are part of the program
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in OPENS, f"{path}:{node.lineno}: {called}() is not pure; floors 0 and 1 are"


def test_the_cli_starts_without_the_servers_libraries() -> None:
    ask = "import sys, dstack.cli; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = {module.split(".")[0] for module in answer.stdout.split()}
    assert not loaded & SLOW, "these make every command slower; import them where they are used"


def test_the_runner_uses_the_standard_library_alone() -> None:
    for path in modules():
        if inside(name_of(path), ("dstack.runner",)):
            for line, module in imports(path):
                outside = module.split(".")[0] not in sys.stdlib_module_names and module != "dstack"
                assert not outside, f"{path}:{line}: {module} is not in the standard library"
