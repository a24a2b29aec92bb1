"""Follows a run to its end, with its log and its ports: what `dstack run` and `dstack attach` do."""

from __future__ import annotations

import sys

from dstack.cli.follow import DETACHED, to_the_end
from dstack.cli.output import show
from dstack.cli.output.displays import Display, JsonEvents
from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.progress import ProgressLines
from dstack.cli.output.screen import terminal
from dstack.cli.tunnels import Tunnels
from dstack.client.client import Client
from dstack.model.api.runs import RunView
from dstack.plumbing.file_errors import file_trouble


def attached(client: Client, run: RunView, tunnels: Tunnels, *, as_json: bool, quiet: bool) -> int:
    """Follow the run until it ends or the user detaches, and return the command's exit code."""
    try:
        return _follow(client, run, tunnels, as_json=as_json, quiet=quiet)
    except OSError as error:
        return unseen(run, error)


def _follow(client: Client, run: RunView, tunnels: Tunnels, *, as_json: bool, quiet: bool) -> int:
    display: Display
    if as_json:
        display = JsonEvents()
        display.run(run)
    else:
        if quiet:
            show.line(run.name)
        workflows = [job.workflow for job in run.jobs]
        hidden = terminal(sys.stdout)  # there, a label that stands alone only takes space
        labels = {job.id: job.workflow for job in run.jobs if not (job.cached and hidden)}
        writer = None if quiet else LogWriter(labels)
        display = narrator = ProgressLines(run.jobs, writer, named=run.workflow, quiet=quiet)
        if not quiet:
            show.say(f"{run.name}: {', '.join(workflows)}")
            narrator.begin()
    tunnels.connect(client, run.jobs, run.workflow)
    return to_the_end(client, run.name, display, logs=as_json or not quiet)


def unseen(run: RunView, error: OSError) -> int:
    """Detach from a run whose output can't be written."""
    trouble = file_trouble(error)
    if error.filename != show.STDOUT or trouble is None:
        raise error
    show.leave_closed_output()
    why = "output closed" if isinstance(error, BrokenPipeError) else trouble.message
    show.say(f"{why}; {run.name} keeps running: follow it with `dstack logs -f {run.name}`")
    return DETACHED
