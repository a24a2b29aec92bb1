"""`dstack completion`: shell completion, including workflows, their variables and recent runs."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from dstack.cli import project
from dstack.cli.output import show
from dstack.errors import DstackError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the shell completion script.

    Install it with:

    \b
    bash: dstack completion bash > ~/.local/share/bash-completion/completions/dstack
    zsh:  dstack completion zsh > "${fpath[1]}/_dstack"
    fish: dstack completion fish > ~/.config/fish/completions/dstack.fish
    """
    from dstack.cli.root import dstack

    kind = get_completion_class(shell)
    assert kind is not None
    show.line(kind(dstack, {}, "dstack", "_DSTACK_COMPLETE").source())


def complete_run(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Complete workflows and, after a workflow, its variables."""
    try:
        loaded = project.load()
    except DstackError:
        return []
    named = next((word for word in ctx.args if word in loaded.workflows), None)
    if named is None:
        fitting = [each for each in loaded.workflows.values() if each.name.startswith(incomplete)]
        return [CompletionItem(each.name, help=each.help) for each in fitting]
    names = [f"--{name}" for name in project.values(loaded, named)]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
