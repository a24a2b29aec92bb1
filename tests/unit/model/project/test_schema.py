from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dstack.model.project.schema import document, schema
from dstack.model.project.workflow import ConfigsFile, WorkflowsFile
from tests.unit.model.project.projects import ROOT, STARTER

FOLDERS = [ROOT / "docs" / "schemas", STARTER / "schemas"]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_files_are_current(folder: Path) -> None:
    hint = "run scripts/schemas"
    assert (folder / "workflows.schema.json").read_text() == document(WorkflowsFile), hint
    assert (folder / "configs.schema.json").read_text() == document(ConfigsFile), hint


@pytest.mark.parametrize("name", ["workflows", "configs"])
def test_the_starter_files_name_their_schema(name: str) -> None:
    first = (STARTER / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema=schemas/{name}.schema.json"
    assert (STARTER / "schemas" / f"{name}.schema.json").is_file()


def test_every_key_is_there_and_none_besides() -> None:
    definitions = schema(WorkflowsFile)["$defs"]
    assert definitions["Workflow"]["required"] == ["name", "image", "commands"]
    assert set(definitions["DependsOn"]["properties"]) == {"repo", "config", "workflows"}
    for definition in definitions.values():
        assert definition["additionalProperties"] is False


def test_a_text_may_look_like_a_number_and_a_key_is_left_out_rather_than_null() -> None:
    workflow = schema(WorkflowsFile)["$defs"]["Workflow"]["properties"]
    assert workflow["commands"]["items"]["type"] == ["string", "number", "boolean"]
    assert workflow["help"]["type"] == "string"
    assert "null" not in json.dumps(schema(WorkflowsFile))
    assert "x-scalar" not in json.dumps([schema(WorkflowsFile), schema(ConfigsFile)])


@pytest.mark.parametrize("kind", [WorkflowsFile, ConfigsFile])
def test_what_a_pattern_expects_completes_a_sentence(kind: Any) -> None:
    """The sentence is "'VALUE' is not ...", so the description that editors show would not fit."""
    patterns = list(with_patterns(msgspec.json.schema(kind)))

    assert patterns
    for found in patterns:
        assert re.match("an? [^;]+; (write|use) ", found.get("x-expected", "")), found


def with_patterns(schema: Any) -> Iterator[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict) and isinstance(schema.get("pattern"), str):
        yield schema
    for each in inner:
        yield from with_patterns(each)


def test_the_page_about_project_files_names_every_key() -> None:
    page = (ROOT / "docs" / "project-files.md").read_text()
    keys = set(properties(schema(WorkflowsFile)["$defs"]))
    assert {key for key in keys if key not in page} == set()


def properties(definitions: dict[str, Any]) -> list[str]:
    return [key for definition in definitions.values() for key in definition["properties"]]
