"""Prints every text that dstack shows to people: help, messages, hints, reasons and log lines, grouped by folder.

The help comes from the commands themselves. The rest is read from the source with `ast`, so a text is found wherever it
is built. `{...}` is the expression that fills a gap. Without line numbers, moving code within a folder changes nothing.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dstack.cli.root import dstack  # noqa: E402

PACKAGE, TEMPLATES = ROOT / "dstack", ROOT / "templates"
SHOWS = re.compile(
    r"(say|line|warn|warning|complain|confirm|ask|print|echo|tell_user|table|list_table|fields|show|progress"
    r"|info|error|exception|explain|finish|\w*(Error|Finding|Failure\w*|Lost|Failed|Finished|Unknown))$"
)
"""Functions and classes whose arguments a person reads, even if they are a single word."""
NOT_PROSE = re.compile(
    r"(execute|executemany|rows|row|scalar|select|compile|sub|search|match|fullmatch|findall|startswith|endswith|strftime"
    r"|option|argument|version_option)$"
)
"""Functions whose arguments no person reads; click's are part of the help."""
MACHINE = re.compile(
    r"(SELECT|INSERT|DELETE|UPDATE|CREATE|ALTER|PRAGMA|DROP|WITH|ref:) |[^\s|]\|[^\s|]|\(\?|\\[sdSw]|^\^"
)
"""SQL, regular expressions and git's files."""
GAP = re.compile(r"\{(?:[^{}]|\{[^{}]*\})*\}")
PROSE = re.compile(r"[\w'\0][,:;.)]* +[^\w\s]*[A-Za-z]|[A-Za-z]{2}[,:;.)]* \0")
"""Two words, or a word and a gap (NUL)."""
SCRIPT = re.compile(r"""^[^#\n]*?(?:echo|printf)[^"'\n]*(["'])((?:[\w.,:'$(){}/*-]+ ){3,}.*?)\1""", re.MULTILINE)
"""A sentence that a host's script prints."""


def main() -> None:
    """Print everything."""
    for path, command in commands(dstack, "dstack"):
        print(f"== {path} --help\n\n{help_of(command, path)}\n")
    rooms: dict[str, set[str]] = defaultdict(set)
    for source in sorted(PACKAGE.rglob("*.py")):
        rooms[str(source.parent.relative_to(ROOT))] |= set(Texts().of(ast.parse(source.read_text())))
    for template in sorted(TEMPLATES.rglob("*.sh.j2")):
        rooms[str(template.parent.relative_to(ROOT))] |= {text for _, text in SCRIPT.findall(template.read_text())}
    for room, texts in sorted(rooms.items()):
        if texts:
            print(f"== {room}\n\n" + "\n".join(sorted(texts)) + "\n")


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, with what a person types."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


def help_of(command: click.Command, path: str) -> str:
    """The text, and a line for each option: not what click makes of them, which depends on its version."""
    context = click.Context(command, info_name=path)
    lines = [
        f"usage: {path} {' '.join(command.collect_usage_pieces(context))}",
        "",
        inspect.cleandoc(command.help or "").replace("\b\n", ""),
        "",
    ]
    for option in command.params:
        if isinstance(option, click.Option):
            names = ", ".join([*option.opts, *option.secondary_opts])
            lines.append(f"{names}{f' {option.metavar}' if option.metavar else ''}: {option.help}")
    return "\n".join(lines).strip()


class Texts(ast.NodeVisitor):
    """Collects the texts of one file."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._shown = False

    def of(self, tree: ast.AST) -> list[str]:
        """Every text in the file that a person may read, docstrings left out."""
        self.visit(tree)
        return self._found

    def visit(self, node: ast.AST) -> None:
        """Take a text whole; look for texts in everything else."""
        text = text_of(node)
        if text is None:
            super().visit(node)
        elif self._read(GAP.sub("\0", text)) and not MACHINE.search(text):
            self._found.append(re.sub(r"[\0-\x1f]", lambda control: repr(control[0])[1:-1], text.strip()))

    def _read(self, text: str) -> bool:
        """Whether a person reads the text."""
        return bool(PROSE.search(text) or (self._shown and re.search("[A-Za-z]{2}", text)))

    def visit_keyword(self, node: ast.keyword) -> None:
        """A colour is not shown."""
        if node.arg != "style":
            self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A text that stands alone is a docstring."""
        if text_of(node.value) is None:
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The annotation counts where it describes a value: msgspec's Meta."""
        if not isinstance(node.annotation, ast.Constant):
            self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """What is passed to a function is shown, or not, or may be."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if NOT_PROSE.match(name):
            return
        before, self._shown = self._shown, bool(SHOWS.match(name))
        self.generic_visit(node)
        self._shown = before

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The condition is not shown."""
        self.visit(node.body)
        self.visit(node.orelse)

    def visit_Compare(self, node: ast.Compare) -> None:
        """What is compared is not shown."""


def text_of(node: ast.AST) -> str | None:
    """The text that a literal, an f-string or a sum of them gives; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or gap(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        if left is not None or right is not None:
            return (gap(node.left) if left is None else left) + (gap(node.right) if right is None else right)
    return None


def gap(node: ast.AST) -> str:
    """`{expression}`. Texts within it are written as they are shown: Python's versions quote f-strings differently."""
    shown = Plain().visit(node.value if isinstance(node, ast.FormattedValue) else node)
    return "{" + ast.unparse(shown).replace("\n", " ") + "}"


class Plain(ast.NodeTransformer):
    """Replaces f-strings by the text that they show."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        """A literal."""
        return ast.Constant(text_of(node))


if __name__ == "__main__":
    main()
