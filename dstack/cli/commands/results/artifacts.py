"""`dstack artifacts`: list and download the files that runs and jobs stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.output.file_tree import print_files
from dstack.cli.parameters import REF, Noun, json_option, name_of, run_or_job
from dstack.errors import NotFoundError, UsageError
from dstack.model.api.artifacts import ArtifactView, FolderView
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import RunView
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.units import size_words

Stored = ArtifactView | FolderView

ref_argument = click.argument("ref", metavar="RUN_OR_JOB", type=REF)
paths_argument = click.argument("paths", metavar="[PATH...]", nargs=-1)


@click.group("artifacts", cls=Noun)
def command() -> None:
    """List and download the artifacts of runs and jobs."""


@command.command("list")
@ref_argument
@paths_argument
@click.option(
    "--all", "everything", is_flag=True, help="Show every file, even in large folders; default: 20 entries per folder."
)
@json_option
def list_artifacts(ref: str, paths: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """List the stored files and their sizes.

    With PATH, only these files and folders. A terminal shows a tree with the total of each folder. Otherwise, one file
    per line: workflow, path, size in bytes and, for a link, its target, separated by tabs. Only the tree shows empty
    folders.
    """
    client = connect.connect()
    stored: list[Stored] = [*client.artifacts(ref), *client.artifact_folders(ref)]
    chosen = choose(stored, paths) if stored else []
    files, folders = divided(chosen)
    if as_json:
        show.document(files)
    elif not stored:
        show.say(_nothing(run_or_job(client, ref)))
    else:
        print_files(files, folders, everything=everything)
        _say_partial(files)


@command.command("download")
@ref_argument
@paths_argument
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=".",
    help="Destination; default: this folder.",
)
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
@json_option
def download(ref: str, paths: tuple[str, ...], output: Path, force: bool, as_json: bool) -> None:
    """Download the artifacts of a run or job.

    With PATH, only these files and folders. A run's files go to DIR/WORKFLOW/..., a job's to DIR/.... Files and
    folders, empty ones too, get their permissions. Every file is verified by its sha256. Complete files are not
    downloaded again, and an interrupted download resumes. With S3 storage, the files come straight from the bucket.
    """
    from dstack.cli.download import Download, Item

    client = connect.connect()
    target = run_or_job(client, ref)
    stored: list[Stored] = [*client.artifacts(name_of(target)), *client.artifact_folders(name_of(target))]
    if not stored and not as_json:
        show.say(_nothing(target))
        return
    files, folders = divided(choose(stored, paths) if stored else [])
    whole = isinstance(target, RunView)
    items = [Item.of(view, under=view.workflow if whole else None) for view in files]
    modes = {f"{folder.workflow}/{folder.path}" if whole else folder.path: folder.mode for folder in folders}
    done = Download(client, output, modes, force=force).run(items)
    if as_json:
        show.document({"folder": str(output.absolute()), **done._asdict(), "partial": _partial(files)})
        return
    _say_partial(files)
    kept = f"; {done.present} already downloaded" if done.present else ""
    show.say(f"{words.count(done.files, 'file')}, {size_words(done.bytes)}, in {output}{kept}")


@command.command("url")
@ref_argument
@click.argument("path", metavar="PATH")
@json_option
def url(ref: str, path: str, as_json: bool) -> None:
    """Print a temporary URL that lets anyone download a file.

    Requires S3 storage. The URL expires after 12 hours, unless DSTACK_URL_LIFETIME is set on the server.
    """
    client = connect.connect()
    chosen, _ = divided(choose(client.artifacts(ref), (path,)))
    if len(chosen) > 1 or chosen[0].link is not None:
        names = ", ".join(f"{view.workflow}/{view.path}" for view in chosen[:5])
        raise UsageError(f"'{path}' is not a single file; it matches {names}", hint="give the path of one file")
    link = client.artifact_url(chosen[0].job, chosen[0].path)
    if as_json:
        show.document(link)
    else:
        show.line(link.url)


def _partial(views: list[ArtifactView]) -> list[str]:
    """Return the workflows of which only the files of the last sync are stored."""
    return list(dict.fromkeys(view.workflow for view in views if view.partial))


def _say_partial(views: list[ArtifactView]) -> None:
    for workflow in _partial(views):
        show.say(f"{workflow}: incomplete; these are the files of its last sync")


def _nothing(target: RunView | JobView) -> str:
    if target.status.finished:
        return f"{name_of(target)} has no artifacts"
    return f"{name_of(target)} has stored no artifacts yet; it is {target.status.value}"


def divided(stored: Sequence[Stored]) -> tuple[list[ArtifactView], list[FolderView]]:
    """Return the files and the folders."""
    files = [each for each in stored if isinstance(each, ArtifactView)]
    return files, [each for each in stored if isinstance(each, FolderView)]


def choose(views: Sequence[Stored], paths: tuple[str, ...]) -> Sequence[Stored]:
    """Return the files and folders at or below the paths, which may begin with the workflow's name. Raises
    NotFoundError for a path that matches nothing."""
    if not paths:
        return views
    chosen = set[int]()
    for path in paths:
        folder = path.strip("/").removeprefix("./") + "/"
        fitting = {
            index
            for index, view in enumerate(views)
            if f"{view.path}/".startswith(folder) or f"{view.workflow}/{view.path}/".startswith(folder)
        }
        if not fitting:
            near = did_you_mean(path, [view.path for view in views])
            raise NotFoundError(f"no artifact '{path}'{near}", hint="`dstack artifacts list RUN_OR_JOB` shows all")
        chosen |= fitting
    return [view for index, view in enumerate(views) if index in chosen]
