"""Renders templates to scripts. Every value is quoted for sh unless it is marked as `Safe`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined

from dstack.model.paths import HostLayout, container
from dstack.model.runner.host_context import HostContext, folder_name

FOLDERS = (Path(__file__).parent / "templates" / "host", Path(__file__).parent.parent / "templates" / "host")
"""The templates' folders: in the wheel, and in a checkout."""


class Safe(str):
    """Text that is already sh. Each use is a reviewed exception."""

    __slots__ = ()


def quote(value: object) -> str:
    """Quote any value as one word of POSIX sh; a tuple as one word per item. Only for sh: tcsh and fish quote
    differently. Raises ValueError for a NUL, which no argument can contain, and TypeError for a value that is neither
    text nor an integer."""
    if isinstance(value, Safe):
        return str(value)
    if isinstance(value, tuple):
        return " ".join(quote(item) for item in value)
    if isinstance(value, Undefined):
        return str(value)  # raises, and names what is missing
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"a script can't contain {value!r}: pass text or an integer")
    text = str(value)
    if "\0" in text:
        raise ValueError("a value that contains a NUL byte can't be passed to a program")
    return "'" + text.replace("'", "'\\''") + "'"


def script(template: str, context: HostContext | None, attempt: str | None = None, **values: object) -> str:
    """Render the prelude and `templates/host/<template>.sh.j2` as one function, which runs once all of it was read.
    With a `context`, the script can use `server` and what `templates/host/lib/prelude.sh.j2` defines: `$base`,
    `$machine`, `dk`. With an `attempt`, `folder` and `name` are its folder and its container."""
    if context is not None:
        values["server"] = context.layout.server
    if attempt is not None:
        values |= {"folder": HostLayout.job(folder_name(attempt)), "name": container(attempt)}
    return _templates().get_template("lib/prelude.sh.j2").render(body=f"{template}.sh.j2", context=context, **values)


def text(template: str, **values: object) -> str:
    """Render `templates/host/<template>.sh.j2` without the prelude."""
    return _templates().get_template(f"{template}.sh.j2").render(**values)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    """Comments are `<# #>`, because sh's `${#name}` contains `{#`."""
    return Environment(
        loader=FileSystemLoader(FOLDERS),
        finalize=quote,
        undefined=StrictUndefined,
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701, finalize quotes for the shell
    )
