"""Reads and checks the project files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace
from yaml import MappingNode

from dstack.errors import ProjectError
from dstack.model.project.checks import triggers as trigger_checks
from dstack.model.project.checks import workflows as checks
from dstack.model.project.decode import Decoder
from dstack.model.project.environment import no_effect, reserved_notes, variable_warnings
from dstack.model.project.graph import closure, walk
from dstack.model.project.nodes import Report, SourceFile, compose, line
from dstack.model.project.workflow import ConfigsFile, Trigger, Values, Workflow, WorkflowsFile

T = TypeVar("T", bound=Struct)


class Project(Struct, frozen=True):
    """What `.dstack/` defines. `workflows` are in file order; `shared` has the global variables; `own` has an entry for
    every workflow. `warnings` and `notes` are sentences for the user; a run repeats only the warnings. `problems` are
    what a run must change with its variables: the values in the configs make an image invalid."""

    workflows: dict[str, Workflow]
    shared: Values = {}
    own: dict[str, Values] = {}
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    triggers: tuple[Trigger, ...] = ()


def parse(workflows: SourceFile, configs: SourceFile | None) -> Project:
    """Read the project files. `configs` is None if there is no such file. Raises ProjectError with every problem in
    both files, each as `path:LINE: what is wrong`."""
    report = Report(workflows.path)
    definitions = _read(workflows, "workflows", WorkflowsFile, report)
    found = definitions.workflows if definitions else ()

    config_report = Report(configs.path if configs else "")
    sections = _read(configs, "configs", ConfigsFile, config_report) if configs else None
    own = {name: values or {} for name, values in ((sections and sections.configs) or {}).items()}
    unreadable = bool(config_report) and not own

    checks.configs(config_report, own, [workflow.name for workflow in found])
    shared = own.pop(checks.GLOBAL, {})
    checks.workflows(report, found)
    triggers = definitions.triggers if definitions else ()
    if triggers:
        trigger_checks.triggers(report, triggers, found, shared, {} if unreadable else own)
    if not unreadable:
        checks.variables(report, found, shared, own)
    if report or config_report:
        raise ProjectError([*report.problems, *config_report.problems])

    by_name = {workflow.name: workflow for workflow in found}
    project = Project(by_name, shared, {name: own.get(name, {}) for name in by_name}, triggers=triggers)
    checks.images(report, found, shared, own)
    order, _ = walk({workflow.name: workflow.needs.names for workflow in found}, by_name)
    warned = _warnings(project, [by_name[name] for name in order if name in by_name])
    reserved = dict.fromkeys(reserved_notes(name for values in (shared, *project.own.values()) for name in values))
    return replace(project, warnings=warned, notes=tuple(reserved), problems=tuple(report.problems))


def _read(source: SourceFile, key: str, kind: type[T], report: Report) -> T | None:
    """Return the file's content; None for a file that is empty or invalid. Only the configs may be empty."""
    node = compose(source, report)
    if node is None:
        if not report and kind is WorkflowsFile:
            report.add(1, f"the file is empty; start it with '{key}:'")
        return None
    if not isinstance(node, MappingNode):
        report.add(line(node), f"the file must be a map; start it with '{key}:'")
        return None
    return Decoder(report).decode(node, kind)


def warnings(project: Project, workflow: str) -> tuple[str, ...]:
    """Return warnings about the workflow and everything it depends on, one sentence per name."""
    return _warnings(project, closure(project.workflows, workflow))


def _warnings(project: Project, workflows: Iterable[Workflow]) -> tuple[str, ...]:
    notes = dict.fromkeys(variable_warnings(project.shared))
    for each in workflows:
        notes.update(dict.fromkeys(variable_warnings(project.own.get(each.name, {}))))
        notes.update({f"'{name}' {why}": None for name in each.env if (why := no_effect(name))})
    return tuple(notes)
