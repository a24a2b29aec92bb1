"""The documentation's links work and its commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest

from dstack.cli.root import dstack
from dstack.model.project.nodes import SourceFile
from dstack.model.project.project import parse

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [*PAGES, *sorted(path for path in (ROOT / "inventory").rglob("*") if path.is_file())]

LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"`(dstack [^`]*)`|^(?: {4}|(?: {4})?\$ |.*: # )(dstack [a-z].*)$", re.MULTILINE)


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in LINK.findall(page.read_text()):
            if "://" not in target and not target.startswith("#"):
                yield page, target.split("#")[0]


def commands() -> Iterator[tuple[str, str]]:
    """Return every command line in the documentation: in backticks, or as a line of an example."""
    for page in EXAMPLES:
        for quoted, line in COMMAND.findall(page.read_text()):
            for part in re.split(r" && | \| ", quoted or line):
                if part.startswith("dstack "):
                    yield page.name, part.split("  #")[0].rstrip(".,:;")


@pytest.mark.parametrize(("page", "target"), list(links()), ids=lambda value: getattr(value, "name", value))
def test_a_link_leads_to_a_file(page: Path, target: str) -> None:
    assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize(("page", "line"), list(dict.fromkeys(commands())))
def test_a_command_exists(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = dstack
    path = ["dstack"]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None and path == ["dstack", "sweep"]:  # the name of a workflow
            break
        if found is None and takes_a_name(command) and not re.fullmatch("[a-z]+", words[0]):
            break
        assert found is not None, f"{page}: '{line}': {' '.join(path)} has no command '{words[0]}'"
        path.append(words.pop(0))
        command = found
    unknown = [word for word in options(words) if word not in known(command)]
    if path in (["dstack", "run"], ["dstack", "sweep"]):
        unknown = unknown[:0] if names_a_workflow(words) else unknown
    assert not unknown, f"{page}: '{line}': {' '.join(path)} has no option {unknown[0]}"


def takes_a_name(command: click.Group) -> bool:
    return any(isinstance(parameter, click.Argument) for parameter in command.params)


def names_a_workflow(words: list[str]) -> bool:
    """Whether a command names a workflow, so that the options after it may be variables."""
    return bool(words) and not words[0].startswith("-")


def options(words: list[str]) -> list[str]:
    own = takewhile(lambda word: word != "--", words)
    return [word.split("=")[0] for word in own if re.match(r"--?[A-Za-z]", word)]


def known(command: click.Command) -> set[str]:
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"-h", "--help"} | ({"--version"} if command is dstack else set())


def examples(page: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readmes_workflow_is_valid() -> None:
    (workflows,) = examples(ROOT / "README.md")
    assert list(parse(SourceFile("workflows.yaml", workflows), None).workflows) == ["train"]


def test_the_guides_project_is_valid() -> None:
    workflows, configs = examples(ROOT / "docs" / "guide.md")
    project = parse(SourceFile("workflows.yaml", workflows), SourceFile("configs.yaml", configs))
    assert list(project.workflows) == ["prepare", "train"]
    assert project.shared.keys() == {"torch"}


def test_the_sweeps_project_is_valid() -> None:
    (workflows,) = examples(ROOT / "docs" / "sweeps.md")
    configs = "configs:\n  train: {optimizer: adam, lr: 0.1, layers: 2, dropout: 0}\n"
    project = parse(SourceFile("workflows.yaml", workflows), SourceFile("configs.yaml", configs))
    assert project.workflows["train"].sweep is not None


def test_the_reference_of_project_files_is_valid() -> None:
    workflows, configs = examples(ROOT / "docs" / "project-files.md")
    workflows += "  - {name: encode-dataset, image: busybox, commands: [sh]}\n"
    project = parse(SourceFile("workflows.yaml", workflows), SourceFile("configs.yaml", configs))
    assert list(project.workflows) == ["train", "encode-dataset"]
