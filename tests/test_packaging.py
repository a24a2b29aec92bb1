"""The built wheel is complete, and runs in a clean environment without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

Installed = Callable[..., "subprocess.CompletedProcess[str]"]


def pip(*arguments: str | Path, python: str | Path = sys.executable) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for part in ("dstack", "templates", "inventory"):
        shutil.copytree(ROOT / part, folder / "source" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, folder / "source")
    # The build backend is among the development dependencies.
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Runs a console script in a clean environment with the wheel and its dependencies, from another folder."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    shutil.copytree(Path(metadata.distribution("pip").locate_file("pip")), packages / "pip")  # 6 s less than ensurepip
    pip("install", "--no-compile", wheel, python=folder / "venv" / "bin" / "python")
    project = folder / "project"
    project.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment = {**kept, "HOME": str(folder), "DSTACK_HOME": str(folder / "home")}

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = folder / "venv" / "bin" / name
        return subprocess.run(
            [program, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_the_wheel_holds_every_template_and_inventory(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("templates", "dstack/templates"), ("inventory", "dstack/inventories")):
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files, f"{folder}/ is empty"
        assert {f"{inside}/{file}" for file in files} <= held
    assert "dstack/py.typed" in held


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    outside = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    (information,) = outside - {"dstack"}
    assert information.endswith(".dist-info")


def test_it_runs_in_a_clean_environment(installed: Installed) -> None:
    assert installed("dstack", "--version").stdout.startswith("dstack")
    for command in (("init",), ("validate",)):
        done = installed("dstack", *command)
        assert done.returncode == 0, done.stderr
    help_text = installed("dstack-runner", "--help")
    assert help_text.returncode == 0, help_text.stderr
