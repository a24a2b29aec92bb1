"""Imports point down only, and each outside library is used in the one place that is named for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("floors")  # so that each file is parsed once

PACKAGE = Path(__file__).parent.parent / "dstack"

FLOORS = {
    "dstack": 0,
    "dstack.errors": 0,
    "dstack.model": 0,
    "dstack.commands": 1,
    "dstack.decide": 1,
    "dstack.render": 1,
    "dstack.hosts": 2,
    "dstack.store": 2,
    "dstack.artifacts": 2,
    "dstack.repo": 2,
    "dstack.inventory": 2,
    "dstack.engine": 3,
    "dstack.server": 4,
    "dstack.cli": 5,
    "dstack.runner": 5,
}
HOME_OF = {
    "asyncssh": ("dstack.hosts",),
    "cryptography": ("dstack.store",),
    "sqlite_utils": ("dstack.store",),
    "sqlite3": ("dstack.store",),
    "boto3": ("dstack.artifacts",),
    "botocore": ("dstack.artifacts",),
    "git": ("dstack.repo",),
    "gitdb": ("dstack.repo",),
    "jinja2": ("dstack.render",),
    "rich": ("dstack.cli.show",),
    "click": ("dstack.cli",),
    "starlette": ("dstack.server",),
    "uvicorn": ("dstack.server",),
}
SLOW = {"asyncio", "asyncssh", "boto3", "git", "jinja2", "sqlite3", "sqlite_utils", "starlette", "uvicorn"}
"""What the CLI never imports when it starts."""
PURE = {"os", "io", "subprocess", "socket", "shutil", "tempfile", "glob", "fcntl", "asyncio", "threading", "time"}
"""Modules that floors 0 and 1 live without."""
OPENS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "iterdir"}


@cache
def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else module


def floor_of(module: str) -> int:
    return FLOORS[place_of(module)]


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Every node of a file, which several tests look at."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Line and module of every import in a file."""
    return list(imported(path))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; name the module in full"
            assert node.module is not None
            if node.module == "dstack":
                for alias in node.names:
                    whole = f"dstack.{alias.name}"
                    yield node.lineno, whole if whole in FLOORS else "dstack"
            else:
                yield node.lineno, node.module


def inside(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_every_module_has_a_floor(path: Path) -> None:
    assert place_of(name_of(path)) in FLOORS


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = name_of(path)
    for line, module in imports(path):
        if module.split(".")[0] != "dstack" or place_of(module) == place_of(here):
            continue
        assert floor_of(module) <= floor_of(here), f"{path}:{line}: {here} imports {module}, which is on a higher floor"
        leaves = floor_of(here) == floor_of(module) == 2
        assert not leaves, f"{path}:{line}: {here} imports {module}: no leaf imports another"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_library_has_one_home(path: Path) -> None:
    here = name_of(path)
    for line, module in imports(path):
        homes = HOME_OF.get(module.split(".")[0])
        assert homes is None or inside(here, homes), f"{path}:{line}: {module} is for {homes} only"


@pytest.mark.parametrize("path", [p for p in modules() if floor_of(name_of(p)) < 2], ids=name_of)
def test_the_pure_floors_do_no_io(path: Path) -> None:
    for line, module in imports(path):
        assert module.split(".")[0] not in PURE, f"{path}:{line}: {module} does I/O; floors 0 and 1 are pure"
    if name_of(path) == "dstack.render":
        return  # reads the templates, which are part of the program
    for node in nodes(path):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in OPENS, f"{path}:{node.lineno}: {called}() does I/O; floors 0 and 1 are pure"


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
