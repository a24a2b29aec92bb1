"""Words that other programs use for what dstack does, and the commands that do it. They are no aliases: the answer
teaches the one name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from dstack.cli import project
from dstack.errors import DstackError, UsageError
from dstack.model.text.suggest import did_you_mean, nearest

KNOWN = {
    "list the runs": ("ps ls list history squeue qstat", "dstack runs"),
    "see what runs and waits": ("status queue st", "dstack runs -w"),
    "see the machines and what is free": (
        "top htop nodes node hosts machines fleet fleets instances sinfo gpus pool servers nvidia-smi offer",
        "dstack runners",
    ),
    "add a machine": ("add join register up", "dstack runners add HOST"),
    "submit a workflow": ("apply submit sbatch qsub launch execute start exp repro train srun", "dstack run WORKFLOW"),
    "stop a run": ("cancel kill scancel qdel abort terminate down", "dstack stop RUN"),
    "delete a run": ("rm delete remove del", "dstack runs delete RUN"),
    "see one run in full": ("show describe inspect get info", "dstack runs RUN"),
    "print the log": ("log tail output stdout", "dstack logs -f RUN"),
    "open a shell in a running job": ("ssh shell bash sh enter connect", "dstack exec RUN"),
    "forward a port of a running job": ("port-forward forward tunnel ports proxy jupyter", "dstack attach RUN -p PORT"),
    "follow a run again": ("follow watch reattach fg", "dstack attach RUN"),
    "download artifacts": (
        "cp pull download fetch get-artifacts scp rsync files results",
        "dstack artifacts download RUN",
    ),
    "run it again": ("rerun retry repeat restart resubmit", "dstack run --from RUN"),
    "learn why a run waits or failed": ("explain debug diagnose reason", "dstack why RUN"),
    "see GPU-hours": ("cost costs billing sacct sreport accounting stats", "dstack usage"),
    "compare code": ("diff", "dstack runs RUN --diff"),
    "check a machine": ("doctor ping test", "dstack runners check NAME"),
    "check the project's files": ("lint check verify compile", "dstack validate"),
    "start a project": ("new create setup bootstrap", "dstack init"),
    "list the workflows": ("workflows workflow tasks task targets pipelines", "dstack run --help"),
    "remove what is no longer needed": ("clean gc cleanup purge vacuum", "dstack prune"),
    "set a server and a token": ("login auth connect-server context set-url", "dstack config --url URL --token -"),
    "set a secret": ("secret env-set", "dstack secrets set NAME"),
    "make a token": ("token tokens users user", "dstack server token create NAME"),
    "start a server for a team": ("serve daemon", "dstack server start --host HOST --port PORT"),
    "see what happened": ("audit activity journal", "dstack events"),
    "see the version": ("version", "dstack --version"),
}
"""What a word is for: the words, and the command."""
ANSWERS = {word: (purpose, command) for purpose, (words, command) in KNOWN.items() for word in words.split()}


def answer(words: Sequence[str], commands: Sequence[str]) -> UsageError:
    """Return the error for a command that does not exist, with what to type instead."""
    word, rest = words[0], words[1:]
    message = f"unknown command '{word}'"
    if word == "help":
        return UsageError(message, hint=help_hint(rest, commands))
    if word in workflows():
        return UsageError(f"{message}; it is a workflow of this project", hint=f"dstack run {word}")
    near = did_you_mean(word, commands)
    meant = word if word in ANSWERS or near else nearest(word, ANSWERS)
    if meant in ANSWERS:
        purpose, command = ANSWERS[meant]
        return UsageError(message, hint=f"to {purpose}: {command}")
    return UsageError(f"{message}{near}", hint="dstack --help")


def help_hint(words: Sequence[str], commands: Sequence[str]) -> str:
    """Return how to get the help that `dstack help WORDS` would show."""
    if not words:
        return "dstack --help"
    meant = words[0] if words[0] in commands else nearest(words[0], commands)
    if meant is None:
        return ANSWERS[words[0]][1] if words[0] in ANSWERS else "dstack --help"
    return " ".join(["dstack", meant, *(words[1:] if meant == words[0] else ()), "--help"])


def workflows() -> list[str]:
    """Return the workflows of this folder's project; none if there is no project, or one with errors."""
    with suppress(DstackError):
        return list(project.load(say=lambda warning: None).workflows)
    return []
