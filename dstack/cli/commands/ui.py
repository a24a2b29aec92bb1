"""`dstack ui`: open the web page."""

from __future__ import annotations

import os
import sys
import webbrowser

import click

from dstack.cli import connect
from dstack.cli.output import show


@click.command("ui")
@click.option("--print", "print_only", is_flag=True, help="Print the page's URL, and open no browser.")
def command(print_only: bool) -> None:
    """Open the web page in your browser.

    The URL signs you in once, within five minutes. Your own server serves the page on a free port of this machine, for
    as long as you use it. A team's server serves it at its URL, where you can also sign in with your token.
    """
    client = connect.connect()
    link = client.page_link()
    url = f"{link.url or client.endpoint.url}{link.path}"
    if print_only:
        show.line(url)
    elif has_browser() and webbrowser.open(url):
        show.say("opened the page in your browser; if you don't see it: dstack ui --print")
    else:
        show.say("there is no browser to open here; open this URL in one, within five minutes:")
        show.line(url)
        if link.url and "SSH_CONNECTION" in os.environ:
            port = link.url.rpartition(":")[2]
            show.say(f"from the machine you came from, type first: ssh -L {port}:127.0.0.1:{port} HOST")


def has_browser() -> bool:
    """Whether a browser that was opened would be seen: Python also opens those that run in a terminal."""
    if sys.platform == "darwin" or "BROWSER" in os.environ:
        return True
    return any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))
