"""A workflow as its author wrote it in `.dstack/workflows.yaml`: the types, and with them the JSON Schema."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="letters, digits, '-' and '_'")]
Count = Annotated[int, Meta(ge=0)]


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """Base of what a project file holds: keys in kebab-case, none unknown."""


class Artifact(Definition, frozen=True, kw_only=True):
    """A file or folder that the workflow makes, relative to the folder that holds `.dstack`."""

    path: str
    optional: bool = False


class RepoDependency(Definition, frozen=True, kw_only=True):
    """The files of the repository that the workflow's result depends on."""

    include: tuple[str, ...]


class DependsOn(Definition, frozen=True, kw_only=True):
    """What the result depends on. A part that is left out: all files, all variables, no workflow."""

    repo: RepoDependency | None = None
    config: tuple[str, ...] | None = None
    workflows: tuple[str, ...] = ()


class Resources(Definition, frozen=True, kw_only=True):
    """What the workflow asks of a machine."""

    gpu: Count = 0


class Workflow(Definition, frozen=True, kw_only=True):
    """One workflow of the project, as written: variables are not replaced yet."""

    name: Name
    image: str
    commands: tuple[str, ...]
    help: str | None = None
    depends_on: DependsOn = DependsOn()
    artifacts: tuple[Artifact | str, ...] = ()
    env: dict[str, str] = {}
    user: str = "root"
    resources: Resources = Resources()

    @property
    def outputs(self) -> tuple[Artifact, ...]:
        """The artifacts in their long form."""
        return tuple(Artifact(path=a) if isinstance(a, str) else a for a in self.artifacts)


Values = dict[str, str | None]
"""Variables by name: the text that the user wrote, None for YAML's null. In the order of the file."""


class Variables(Struct, frozen=True):
    """A workflow's variables with the command line's overrides applied."""

    shared: Values = {}
    own: Values = {}

    @property
    def all(self) -> Values:
        """Shared and own ones together; its own win."""
        return {**self.shared, **self.own}
