"""`dstack completion`: print the script that completes words in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dstack.cli.output import show


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the shell completion script.

    Install it with one of these, then open a new shell:

    \b
    bash: echo 'eval "$(dstack completion bash)"' >> ~/.bashrc
    zsh:  echo 'autoload -Uz compinit && compinit && eval "$(dstack completion zsh)"' >> ~/.zshrc
    fish: mkdir -p ~/.config/fish/completions && dstack completion fish > ~/.config/fish/completions/dstack.fish
    """
    from dstack.cli.root import dstack

    kind = get_completion_class(shell)
    assert kind is not None
    show.line(kind(dstack, {}, "dstack", "_DSTACK_COMPLETE").source())
