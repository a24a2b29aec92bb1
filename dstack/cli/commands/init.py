"""`dstack init`: create a starter project."""

from __future__ import annotations

from pathlib import Path

import click

from dstack.cli.output import show
from dstack.cli.parameters import json_option
from dstack.cli.project import load
from dstack.errors import ConflictError, DstackError
from dstack.model.project.files import CONFIGS, WORKFLOWS
from dstack.plumbing.file_errors import naming


@click.command("init")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@json_option
def command(force: bool, as_json: bool) -> None:
    """Create a starter .dstack/ in this folder.

    It has three small workflows, with comments that explain them.
    """
    files = starter()
    project = [f".dstack/{name}" for name in (*WORKFLOWS, *CONFIGS)]
    there = [name for name in (*files, *project) if Path(name).exists()]
    if there and not force:
        raise ConflictError(
            f"{there[0]} exists already; nothing was changed",
            hint="check it with `dstack validate`, or overwrite it with --force",
        )
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with naming(Path(name)):
            Path(name).write_bytes(content)
        if not as_json:
            show.line(name)
    workflows = list(load().workflows)
    if as_json:
        show.document({"files": list(files), "workflows": workflows})
        return
    last = workflows[-1]
    show.say(f"next: `dstack run --help` lists the workflows; `dstack run {last} --local` runs them on this machine")


def starter() -> dict[str, bytes]:
    """Return the starter's files by name. They are inside an installed package, but beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "templates" / "init", package.parent / "templates" / "init"):
        if folder.is_dir():
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    raise DstackError(f"the starter's files are missing from {package}", hint="reinstall dstack")
