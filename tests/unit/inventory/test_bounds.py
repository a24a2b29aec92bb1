"""Inventories of any size are read in a time in proportion to it, or refused; whatever is in them is no crash."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.inventory import ini
from dstack.inventory.read import read
from dstack.inventory.runners import machines

LAUGHS = "a: &a0 {k: 1}\n" + "".join(f"b{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}\n" for n in range(1, 20))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("hosts", "x[1:9999999]\n", r"hosts:1: '.*' stands for 9,999,999 hosts; an inventory may have 10,000$"),
        ("hosts", "x[1:999][1:999]\n", r"hosts:1: '.*' stands for 998,001 hosts; an inventory may have 10,000$"),
        ("hosts", f"x[1:{'9' * 5000}]\n", r"hosts:1: 'x\[1:9.*' has 5,00. characters; a host's name may have 1,000$"),
        ("hosts", f"x[1:{'9' * 50}]\n", r"hosts:1: '.*' is not a valid range; its numbers may have 9 digits$"),
        ("hosts", "x[1:1]" * 150 + "\n[1:2\n", "hosts:2: "),
        ("hosts", "x[1:6000]\ny[1:6000]\n", "hosts:2: an inventory may have 10,000 hosts; split it"),
        ("hosts", "".join(f"[g{n}]\n" for n in range(2000)), "hosts:999: an inventory may have 1,000 groups"),
        ("hosts", "#" * 5_000_001, "hosts has more than 5,000,000 bytes; split it into several files$"),
        ("h.yaml", "all: {hosts: {'x[1:9999999]': }}", "h.yaml: .* stands for 9,999,999 hosts"),
        ("h.yaml", LAUGHS, "h.yaml: it has more than 500,000 values, those that aliases .* repeat included$"),
        ("h.yaml", "all: &a {children: {x: *a}}", "h.yaml: it has more than 500,000 values"),
        ("h.yaml", "all: " + "[" * 900 + "]" * 900, "h.yaml: lists and maps are nested too deeply$"),
        ("h.yaml", "all: " + "[" * 10**5, "h.yaml:1: invalid YAML: exceeded maximum nesting depth$"),
    ],
    ids=range(13),
)
def test_what_is_over_a_bound_is_said(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(UsageError, match=why):
        read(tmp_path / name)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    name = "x" * 300
    (tmp_path / "hosts").write_text(f"[{name}]\n{name} ansible_host=lab1\n")

    assert [each.address.host for each in machines(read(tmp_path / "hosts"), "hosts").requests] == ["lab1"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("x ansible_port=" + "9" * 5000, "ansible_port must be a whole number up to 65535"),
        ("x ansible_port=65536", "ansible_port must be a whole number up to 65535, not '65536'"),
        ("x ansible_port=\u0661", "ansible_port must be a whole number up to 65535"),
        ("x ansible_ssh_args='-p x'", "x is not a valid port; write a number from 1 to 65535"),
        ("x ansible_ssh_args='-p " + "9" * 5000 + "'", "9999.* is not a valid port; write"),
        ("x dstack_gpus=1025", "dstack_gpus must be a whole number up to 1024, not '1025'"),
        ("x dstack_gpus=-1", "dstack_gpus must be a whole number up to 1024, not '-1'"),
        ("x dstack_max_jobs=1000001", "dstack_max_jobs must be a whole number up to 1000000, not '1000001'"),
    ],
)
def test_numbers_have_bounds(line: str, why: str) -> None:
    found = machines(ini.read(line, "hosts"), "hosts")

    assert found.requests == []
    assert re.match(why, found.skipped["x"])


def test_how_many_jobs_share_a_machine() -> None:
    (found,) = machines(ini.read("x dstack_max_jobs=2", "hosts"), "hosts").requests

    assert found.max_jobs == 2


def test_a_priority_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[g]\nx\n[g:vars]\nansible_group_priority=[1]\n")

    why = machines(read(tmp_path / "hosts"), "hosts").skipped["x"]

    assert "ansible_group_priority of the group 'g' must be a whole number" in why


@pytest.mark.parametrize("value", ["(" * 5000, "-" * 9000 + "1", "{[]:1}", "9" * 5000])
def test_values_that_python_can_not_read_are_text(value: str) -> None:
    assert ini.read(f"x a={value}\n", "hosts").hosts["x"]["a"] == value


def test_a_long_chain_and_a_wide_net_of_groups() -> None:
    def took(depth: int) -> float:
        net = [f"[g{n}:children]\ng{n + 1}\nh{n + 1}\n[h{n}:children]\ng{n + 1}\nh{n + 1}" for n in range(depth)]
        text = "\n".join(["x", *net, f"[g{depth}]\nx[1:500]\n[h{depth}]\nx[1:500]"])
        started = time.process_time()
        assert len(machines(ini.read(text, "hosts"), "hosts").requests) == 501
        return time.process_time() - started

    assert took(200) < 12 * took(50) + 0.5
