"""Output of vendors' tools and engines on real machines, replayed to the scripts that read it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from dstack.commands.command import Command, Result
from dstack.commands.machine.probe import probe
from dstack.commands.machine.sample import Sample, sample
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.metrics import GpuUse
from dstack.model.runner.runner import Address, Facts, Gpu, Runner
from tests.environment import needs

RECORDED = Path(__file__).parents[3] / "data" / "recorded"
TOOLS = ("nvidia-smi", "amd-smi", "rocm-smi")


def recorded(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((RECORDED / f"{name}.yaml").read_text())
    assert all(case["source"] for case in found)
    return found


def replay(folder: Path, case: dict[str, Any]) -> dict[str, str]:
    """Return an environment in which each tool prints its recorded output."""
    for tool in TOOLS:
        if tool in case:
            write(folder / tool, case[tool])
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def write(path: Path, answers: list[dict[str, Any]]) -> None:
    text = '#!/bin/sh\ncase "$*" in\n'
    for answer in answers:
        prints, errors, asked = (shlex.quote(answer.get(key, "")) for key in ("prints", "errors", "asked"))
        told = f"printf %s {prints}; printf %s {errors} >&2; exit {answer.get('exit', 0)}"
        text += f"*{asked}*) {told} ;;\n"
    path.write_text(f"{text}esac\n")
    path.chmod(0o755)


def run(command: Command[Any], environment: dict[str, str]) -> Any:
    done = subprocess.run(["sh", "-c", command.script], env=environment, capture_output=True, check=False)
    return command.parse(Result(done.returncode, done.stdout, done.stderr))


def gpu(fields: dict[str, Any]) -> Gpu:
    return Gpu(**{**fields, **({"mig": tuple(fields["mig"])} if "mig" in fields else {})})


def use(fields: dict[str, Any]) -> GpuUse:
    return GpuUse(**{**fields, "others": tuple(fields.get("others", ()))})


@pytest.mark.parametrize("case", recorded("nvidia") + recorded("amd"), ids=lambda case: case["machine"])
def test_gpus(case: dict[str, Any], tmp_path: Path) -> None:
    environment = replay(tmp_path, case)

    facts: Facts = run(probe("~/.dstack-host", "true"), environment)

    assert list(facts.gpus) == [gpu(fields) for fields in case.get("gpus", [])]
    about = [finding for finding in facts.findings if finding.name in ("gpu-driver", "gpu-mig", "gpu-lost")]
    assert [finding.what for finding in about] == case.get("findings", [])
    assert [finding.fix for finding in about][:1] == ([case["fix"]] if "fix" in case else [])
    if "given" in case:
        assert list(Runner(name="m", address=Address(), facts=facts).gpu_indexes) == case["given"]
    assert list(facts.used) == case.get("used", [])
    assert [f.what for f in facts.findings if f.name == "gpu-amd"] == ([case["refused"]] if "refused" in case else [])
    sampled: Sample = run(sample(HostContext(HostLayout("~/.dstack-host", "", "s"), "true")), environment)
    assert list(sampled.gpus) == [use(fields) for fields in case.get("uses", [])]


@pytest.mark.parametrize("case", recorded("engines"), ids=lambda case: case["engine"])
def test_engines(case: dict[str, Any], tmp_path: Path) -> None:
    with engine(case, tmp_path) as words:
        facts: Facts = run(probe("~/.dstack-host", words), {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})

    found = [finding for finding in facts.findings if finding.name.startswith("docker-")]
    assert [finding.name for finding in found] == ([case["finding"]] if "finding" in case else [])
    assert "fix" not in case or [finding.fix for finding in found] == [case["fix"]]
    assert facts.docker == case.get("version", "")
    lingers = Path(f"/var/lib/systemd/linger/{facts.user}").exists() or not shutil.which("loginctl")
    assert ("lingering" in [f.name for f in facts.findings]) == (case.get("rootless", False) and not lingers)


@contextmanager
def engine(case: dict[str, Any], folder: Path) -> Iterator[str]:
    """Return a docker command line that answers as recorded: Docker's program with a recorded API, or a stand-in."""
    if "info" in case:
        if not shutil.which("docker"):
            needs.missing("docker is not installed; install it: apt-get install docker.io")
        with api(folder / "s", case["info"]) as words:
            yield words
    elif "podman" in case:
        errors = case.get("errors", "")
        jobs = {"asked": "ps", "errors": case.get("refuses", errors), "exit": 125 if "refuses" in case else 0}
        info = {"asked": "info", "prints": case.get("prints", ""), "errors": errors}
        write(folder / "podman", [{"asked": "--version", "prints": case["podman"]}, jobs, info])
        yield "podman"
    else:
        client = {"asked": "--version", "prints": case["client"]}
        refused = {"asked": "ps", "prints": case.get("refuses", ""), "exit": 1 if "refuses" in case else 0}
        write(folder / "docker", [client, refused])
        yield "docker"


@contextmanager
def api(socket: Path, info: dict[str, Any]) -> Iterator[str]:
    """Docker's API on a socket, with this answer to /info and no containers."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps(info if self.path.endswith("/info") else []).encode()
            self.send_response(200)
            self.send_header("Api-Version", "1.41")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def address_string(self) -> str:
            return "docker"

        def log_message(self, *args: object) -> None: ...

    class Serving(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Serving(str(socket), Answer) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"docker -H unix://{socket}"
        finally:
            serving.shutdown()
            thread.join()
