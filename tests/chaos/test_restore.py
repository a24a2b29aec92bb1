"""An older state is put back while the machine that has the job does not answer: the other machine does not get it."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.world import Machine, Site, World
from tests.e2e.project import single
from tests.environment.waiting import until
from tests.images import BUSYBOX


def job(site: Site, run: str) -> dict[str, str]:
    found: dict[str, str] = site.ask("runs", run)["jobs"][0]
    return found


def test_a_restored_state_runs_nothing_twice(world: World, tmp_path: Path) -> None:
    told, go = world.witness / "told", world.witness / "go"
    commands = "echo begun $run_name >>/witness/told; while [ ! -e /witness/go ]; do sleep 0.1; done"
    folder = single(tmp_path / "p", BUSYBOX, commands, more=f"mounts: ['{world.witness}:/witness']")
    with world.fresh("folder") as site:
        # Given a backup from before the placement of a job, which runs on one machine since
        site.must("runners", "drain", "machine1", "machine2")
        assert site.home.run("run", "job", "--name", "once", "-d", cwd=folder).returncode == 0
        file = str(site.home.path / "backup")
        site.must("server", "backup", file)
        site.must("runners", "resume", "machine1", "machine2")
        until(lambda: job(site, "once")["status"] == "running", "it runs", 60)
        has = next(machine for machine in site.machines if machine.name == job(site, "once")["runner"])

        # When the backup is put back while that machine does not answer
        cut_off(has)
        site.must("server", "restore", file, "-y")
        site.must("runners", "resume", "machine1", "machine2")

        # Then the job waits and says why; what is submitted now goes to the other machine
        until(lambda: job(site, "once")["reason_code"] == "restored", "it waits for the machine", 60)
        assert has.name in job(site, "once")["reason"]
        assert site.home.run("run", "job", "--name", "fresh", "-d", cwd=folder).returncode == 0
        until(lambda: job(site, "fresh")["status"] == "running", "the new one runs", 60)
        assert job(site, "once")["status"] == "queued"

        # And once the machine answers, the job is followed to its end
        has.link.accept()
        until(lambda: job(site, "once")["status"] == "running", "it is adopted", 90)
        assert job(site, "once")["runner"] == has.name
        go.touch()
        for run in ("once", "fresh"):
            assert site.home.run("wait", run).returncode == 0
        assert sorted(told.read_text().splitlines()) == ["begun fresh", "begun once"]


def cut_off(machine: Machine) -> None:
    """Let no connection to the machine through."""
    machine.link.refuse()
    machine.link.cut()
