"""`dstack init`: a starter project."""

from __future__ import annotations

from pathlib import Path

import click

from dstack.cli import show
from dstack.cli.project import CONFIGS, WORKFLOWS, load
from dstack.errors import ConflictError, DstackError

FOLDER = "init"
"""The folder among the templates that holds the starter."""


@click.command("init")
@click.option("--force", is_flag=True, help="Replace the files of the starter that are there.")
def command(force: bool) -> None:
    """Make a starter .dstack/ in this folder. It holds three small workflows, each explained."""
    files = starter()
    there = [name for name in files if Path(name).exists()]
    if not there:
        there = [f".dstack/{name}" for name in (*WORKFLOWS, *CONFIGS) if (Path(".dstack") / name).exists()]
    if there and not force:
        raise ConflictError(f"{there[0]} is there already; nothing was changed", hint="dstack validate checks it")
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
        show.line(name)
    last = list(load(Path.cwd()).workflows)[-1]
    show.say(f"next: `dstack run --help` lists the workflows; `dstack run {last} --local` runs them on this machine")


def starter() -> dict[str, bytes]:
    """The starter's files by name. They lie in the package when it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "templates" / FOLDER, package.parent / "templates" / FOLDER):
        if folder.is_dir():
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    raise DstackError(f"the starter's files are missing from {package}", hint="install dstack again")
