"""A machine that prints what it likes is its own trouble, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dstack.engine.fleet import runners, sampling
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.hosts.pool import Pool
from dstack.model.api import wire
from dstack.model.api.runners import RunnerView
from dstack.model.paths import ServerLayout
from dstack.model.runner.runner import Address, Runner
from dstack.store.store import Store
from tests.unit.hosts.conftest import play

GARBAGE = "\\377\\033[31m\\302\\233 \\342\\200\\256 x"
TOOLS = {
    "all say garbage and succeed": f"printf '{GARBAGE}\\n'; printf '{GARBAGE}\\n' >&2",
    "all say garbage and fail": f"printf '{GARBAGE}\\n'; printf '{GARBAGE}\\n' >&2; exit 1",
    "all have a name of garbage": f"printf '0, {GARBAGE}, 81559, GPU-{GARBAGE}, 535, Disabled\\n'",
    "all count to 5000 digits": "printf '0, GPU, '; printf '%05000d' 7; printf ', GPU-1, 535, Disabled\\n'",
    "all print without end": "exec yes",
    "all answer with JSON": 'printf \'[{"gpu": 1e999}, {"gpu": 0, "vram": {"size": {"value": 1e999}}}]\\n\'',
}
NAMES = ("docker", "nvidia-smi", "amd-smi", "rocm-smi", "git", "uname", "df", "getconf", "id", "date")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(ServerLayout(tmp_path / "home"))) as store:
        for name in ("bad", "good"):
            store.runners.add(Runner(name=name, address=Address(), root=str(tmp_path / name)))
        yield store


@pytest.mark.parametrize("says", TOOLS)
@pytest.mark.parametrize("names", [NAMES, ("docker",), ("nvidia-smi",)], ids=["all", "docker", "nvidia-smi"])
def test_programs_that_print_anything(
    store: Store, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], says: str
) -> None:
    for room, limit in ((runners, "PROBE_TIMEOUT"), (sampling, "TIMEOUT")):
        monkeypatch.setattr(room, limit, 1.0 if "yes" in TOOLS[says] else 30.0)
    for name in names:
        (tools / name).write_text(f"#!/bin/sh\n{TOOLS[says]}\n")
        (tools / name).chmod(0o755)

    async def look() -> None:
        fleet = Fleet(store, pool := Pool(), lambda: None)
        try:
            await fleet.check("bad")
            await Sampler(store, fleet).look("bad")
            views.append(fleet.view(store.runners.require("bad")))
        finally:
            await pool.close_all()

    views: list[RunnerView] = []
    play(look)
    seen = views[0]

    assert wire.decode(wire.encode(seen), RunnerView) == seen
    assert not [char for char in f"{seen}" if char in "\x1b\x9b\u202e" or "\ud800" <= char <= "\udfff"]
    with closing(Store(ServerLayout(tmp_path / "home"))) as again:
        assert again.runners.all() == store.runners.all()
