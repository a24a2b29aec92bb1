"""`dstack why` and `dstack usage` about real jobs: one that failed, one that ran again, and one that waits."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.project import single
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def why(cli: Cli, run: str) -> dict[str, Any]:
    done = cli("why", run, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    job: dict[str, Any] = answer["jobs"][0]
    return job


def test_why_and_usage(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    # given one run that is done, and the same with another command, which fails
    folder = single(tmp_path / "p", busybox, "echo first")
    assert cli("run", "job", "--name", "before", cwd=folder).returncode == 0
    text = (folder / ".dstack" / "workflows.yaml").read_text()
    failing = 'for i in $(seq 30); do echo "line $i"; done; exit 3'
    (folder / ".dstack" / "workflows.yaml").write_text(text.replace("echo first", failing))
    (folder / "new.txt").write_text("new")
    assert cli("run", "job", "--name", "broken", cwd=folder).returncode == 3

    failed = why(cli, "broken")
    shown = cli("why", "broken").stdout

    # then the answer has what changed, what it printed, where it ran and what to do
    assert (failed["status"], failed["reason_code"], failed["exit_code"]) == ("failed", "exit-code", 3)
    assert failed["compared_with"] == "before"
    assert [change["input"] for change in failed["changes"]] == ["commands", "file new.txt"]
    assert failed["changes"][0]["before"] == '["echo first\\n"]'
    assert failed["log"] == "\n".join(f"line {number}" for number in range(11, 31))
    assert (failed["placed"]["runner"], failed["placed"]["code"]) == ("box", "only-choice")
    assert "dstack logs broken" in [advice["command"] for advice in failed["advice"]]
    for words in ("job (", "failed, exit code 3 (exit-code)", "commands changed", "new.txt added", "    line 30\n"):
        assert words in shown

    # and a job that waits behind another one says who is in its way, and one that nobody can take says so
    waits = single(tmp_path / "w", busybox, "sleep 600", more="resources: {cpu: 1}\nstop-grace: 1s")
    cpus = json.loads(cli("runners", "--json").stdout)[0]["cpus"]
    (waits / ".dstack" / "workflows.yaml").write_text(
        (waits / ".dstack" / "workflows.yaml").read_text().replace("cpu: 1", f"cpu: {cpus}")
    )
    for name in ("holds", "waits"):
        assert cli("run", "job", "--name", name, "-d", cwd=waits).returncode == 0
    until(lambda: why(cli, "waits")["runners"], "it waits for a runner", 60)
    waiting = why(cli, "waits")
    assert [(each["runner"], each["code"]) for each in waiting["runners"]] == [("box", "runner-busy")]
    assert [holder["run"] for holder in waiting["runners"][0]["holders"]] == ["holds"]
    assert any(advice["text"].endswith("holds ends") for advice in waiting["advice"])
    assert cli("run", "job", "--name", "lost", "--runner", "gone", "--wait-for-runner", "-d", cwd=waits).returncode == 0
    until(lambda: why(cli, "lost")["runners"], "it waits for a runner", 60)
    assert why(cli, "lost")["runners"][0]["code"] == "no-matching-runner"
    assert cli("hold", "lost").returncode == 0
    until(lambda: why(cli, "lost")["reason_code"] == "held", "it is held", 60)
    assert "dstack release lost" in cli("why", "lost").stdout

    # usage counts what ran
    assert cli("stop", "--all", "--abort", "-y").returncode == 0
    used = json.loads(cli("usage", "--by", "workflow", "--by", "runner", "--json").stdout)
    ran = [each for each in used if each["runner"] == "box"]
    assert [(each["workflow"], each["attempts"]) for each in ran] == [("job", 3)]
    assert ran[0]["cpu_hours"] > 0
    assert "CPU-HOURS" in cli("usage").stdout
    assert cli("usage", "--since", "x").returncode == 2
    assert cli("why", "nothing").returncode == 2
