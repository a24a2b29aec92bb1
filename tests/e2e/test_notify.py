"""Messages from the installed product: set up, tried, and sent once although the server is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e.project import single
from tests.environment.product import Home, servers
from tests.environment.sinks import WebSink
from tests.environment.waiting import until


def test_a_message_is_sent_although_the_server_is_killed(dstack_home: Home, tmp_path: Path) -> None:
    # given
    project = single(tmp_path / "p", "busybox", "true", more="notify: [stopped]")
    sink = WebSink(moods=[200, 503, 503])
    dstack_home.serve()
    with sink.serving() as address:
        added = dstack_home.run("config", "--notify", f"http://{address}/s3cr3t")
        tried = dstack_home.run("notify", "test")

        # when
        submitted = dstack_home.run("run", "job", "-d", "-q", "--wait-for-runner", "--timeout", "1", cwd=project)
        until(lambda: len(sink.got) == 2, "the first try", 60)
        (server,) = servers(dstack_home.dstack)
        os.kill(server, signal.SIGKILL)
        until(lambda: not servers(dstack_home.dstack), "the server is gone", 60)
        dstack_home.serve_again()
        until(lambda: len(sink.got) >= 4, "the third try", 90)
        listed = until(lambda: nothing_waits(dstack_home), "the message is recorded as sent", 60)

    # then
    assert "needs this key, which is not shown again: whsec_" in added.stderr
    assert "s3cr3t" not in added.stderr + tried.stdout
    assert tried.stdout == f"http://{address}/***: sent: 200 OK: ok\n"
    bodies = [json.loads(got.body) for got in sink.got[1:]]
    assert {body["id"] for body in bodies} == {sink.got[1].headers["webhook-id"]}
    assert (bodies[0]["type"], bodies[0]["data"]["run"]) == ("run.stopped", submitted.stdout.strip())
    assert listed[0]["failures"] == 0


def nothing_waits(home: Home) -> list[dict[str, Any]]:
    """Return the targets once nothing waits for them."""
    targets: list[dict[str, Any]] = json.loads(home.run("notify", "list", "--json").stdout)
    return [] if any(target["waiting"] for target in targets) else targets
