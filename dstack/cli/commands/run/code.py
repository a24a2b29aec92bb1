"""Takes the code of a run or a sweep from the working tree, and sends it with the smallest pack that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dstack.cli import project
from dstack.cli.commands.run.sent import say_what_is_sent, warn_of_secrets
from dstack.errors import MissingBaseError

if TYPE_CHECKING:
    from dstack.model.project.workflow import Variables, Workflow
    from dstack.snapshot.take import Taken

T = TypeVar("T")


@contextmanager
def taken_code(
    workflows: Sequence[Workflow], variables: Mapping[str, Variables], limit: int, *, say: bool, warn: bool
) -> Iterator[Taken]:
    """Yield the working tree as these workflows get it. Once it was sent, `say` what was in it beyond the commit, and
    `warn` of secrets. Raises UsageError if it is larger than `limit` bytes, or a link is in the way of an artifact."""
    from dstack.snapshot.take import take

    depths, root = {each.fetch_depth for each in workflows}, project.find_root()
    with take(root, limit=limit, depths=depths) as taken:
        _refuse_links(workflows, variables, taken)
        yield taken
        if say:
            say_what_is_sent(taken, root)
        if warn:
            warn_of_secrets(taken, root)


def send(taken: Taken, submit: Callable[[Path], T]) -> T:
    """Submit with the smallest pack first, and then with one for the commits that the server has."""
    try:
        return submit(taken.pack())
    except MissingBaseError as missing:
        commits = missing.known
    with suppress(MissingBaseError):
        if commits:
            return submit(taken.pack(commits))
    return submit(taken.full_pack())


def _refuse_links(workflows: Sequence[Workflow], variables: Mapping[str, Variables], taken: Taken) -> None:
    """Raise UsageError, before anything is sent, if a link is in the way of an artifact."""
    from dstack.model.job.script import expanded
    from dstack.model.project.artifact_links import inside, refuse_links

    links = inside(taken.links, taken.snapshot.project)
    known = {each.name: expanded(each, variables[each.name], "job", "run") for each in workflows} if links else {}
    for workflow in known.values():
        refuse_links(workflow, [known[name] for name in workflow.needs.names], links)
