"""Measures the web page: python scripts/lib/bench_web.py RUNS. A server of its own has that many runs, 200 machines
with 8 GPUs, 500 running and 500 queued jobs, and a log of 10 GB; then 50 tabs are opened, and it is measured again."""

from __future__ import annotations

import http.client
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dstack.model.job.status import Status
from dstack.store.database import encoded
from tests.unit.server.web import demo
from tests.unit.server.web.served import Served
from tests.unit.server.world import TOKEN, World
from tests.unit.store.test_store import job, run

MACHINES, BUSY, QUEUED, TABS = 200, 500, 500, 50
LOG = 10 * 10**9
ROUNDS = 7
PAGES = (
    "/",
    "/runs",
    "/runs?before=50000",
    "/runs?status=failed",
    "/runs?status=done&user=ann&q=7-8",
    "/runs?sort=rate",
    "/runs/busy-0",
    "/runs/busy-0/log",
    "/runs/busy-0/log?at=5000000000",
    "/runs/busy-0/events",
    "/compare?runs=old-1,old-2,old-3",
    "/runners",
    "/runners/m-7",
    "/events",
)


def fill(world: World, runs: int) -> None:
    """Write all of it in one transaction."""
    store = world.store
    for number in range(MACHINES):
        store.runners.add(demo.machine(f"m-{number}", 8))
    demo.conditions(world, troubled=False)
    with store.database.transaction():
        for number in range(runs):
            name, user = f"old-{number}", ("ann", "bob", "cy")[number % 3]
            status = Status.FAILED if number % 50 == 0 else Status.DONE
            old = run(name, user=user)
            ended = job(f"{number:012x}", name, status=status, exit_code=0, finished_at="2026-01-01T01:00:00.000Z")
            row = (name, old.workflow, user, encoded(old))
            store.database.execute("INSERT INTO runs (name, workflow, user, data) VALUES (?, ?, ?, ?)", row)
            store.database.execute(
                "INSERT INTO jobs (id, run, workflow, status, key, data) VALUES (?, ?, ?, ?, ?, ?)",
                (ended.id, name, ended.workflow, status.value, "k", encoded(ended)),
            )
            store.events.add(f"job.{status.value}", run=name, job=ended.id)
        for number in range(BUSY + QUEUED):
            add_unfinished(world, number)
    path = store.logs.layout.log(f"{2**40:012x}")
    with path.open("wb") as log:
        log.truncate(LOG)
        log.seek(0, 2)
        log.write(b"\nthe end\n")


def add_unfinished(world: World, number: int) -> None:
    busy = number < BUSY
    name = f"busy-{number}" if busy else f"queued-{number}"
    world.store.runs.add(run(name))
    placed = {"status": Status.RUNNING, "runner": f"m-{number % MACHINES}", "gpus": (number // MACHINES,)}
    world.store.jobs.add(job(f"{2**40 + number:012x}", name, **(placed if busy else {})))


def serve(folder: Path, runs: int, said: Connection) -> None:
    """Serve until told to stop; tell the port, and the memory in MB whenever asked."""
    made = Served(folder)
    made.do(lambda world: fill(world, runs))
    said.send(made.port)
    while said.recv():
        status = Path("/proc/self/status").read_text()
        said.send(int(status.split("VmRSS:")[1].split()[0]) / 1000)
    made.close()


def measured(port: int, path: str) -> tuple[float, float, int]:
    """Return the seconds to the first byte and to the end of a page, the medians of some rounds, and its bytes."""
    first, whole, size = [], [], 0
    for _ in range(ROUNDS):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        begin = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", "Accept": "text/html"})
        response = connection.getresponse()
        first.append(time.perf_counter() - begin)
        size = len(response.read())
        whole.append(time.perf_counter() - begin)
        assert response.status == 200, (path, response.status)
        connection.close()
    return statistics.median(first), statistics.median(whole), size


@contextmanager
def tabs(port: int) -> Iterator[None]:
    """Keep this many tabs open, as browsers do."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}
    open_ones = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(TABS)]
    for number, connection in enumerate(open_ones):
        connection.request("GET", ("/", "/runs", "/runs/busy-0/log", "/runners")[number % 4], headers=headers)
        connection.getresponse().readline()
    yield
    for connection in open_ones:
        connection.close()


def main(runs: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(Path(folder), runs, theirs))
        server.start()
        port = ours.recv()
        print(f"{runs:,} runs, {MACHINES} machines, {BUSY} running and {QUEUED} queued jobs, a log of 10 GB")
        report(port, "no tab open")
        ours.send(True)
        before = ours.recv()
        with tabs(port):
            report(port, f"{TABS} tabs open")
            time.sleep(20)  # how much memory they take once they have been open for a while
            ours.send(True)
            after = ours.recv()
        print(f"memory of the server: {before:.0f} MB, with {TABS} tabs {after:.0f} MB")
        ours.send(False)
        server.join()


def report(port: int, title: str) -> None:
    print(f"\n{title + ':':42} first byte    whole page")
    for path in PAGES:
        first, whole, size = measured(port, path)
        print(f"  {path:40} {first * 1000:7.0f} ms {whole * 1000:9.0f} ms {size / 1000:9.0f} kB")


if __name__ == "__main__":
    main(int(sys.argv[1]))
