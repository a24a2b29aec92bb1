"""Asks a host what of this server's lies and runs there, and makes the server the owner of its folder."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from dstack.commands.command import Command, Result, done
from dstack.decide import Claim
from dstack.model.job.job import Origin
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext
from dstack.model.text.untrusted import whole
from dstack.render import script


class FoundAttempt(Struct, kw_only=True):
    """An attempt of a job as it lies on a host. `ended`: it has an exit file. `began`: when its commands did, by the
    host's clock, in seconds since the epoch. `record` is what its launch left. `container` is Docker's status of its
    container, "" if there is none."""

    name: str
    claim: Claim = Claim.GONE
    ended: bool = False
    began: int | None = None
    record: bytes = b""
    boot: str | None = None
    daemons: str = ""
    container: str = ""

    @property
    def lies(self) -> bool:
        """Whether it has a folder there. A container without one may be another account's."""
        return self.claim is not Claim.GONE

    @property
    def begun(self) -> bool:
        """Whether its commands may have started, so that they must not start again."""
        return self.claim is Claim.CLAIMED or bool(self.container)

    @property
    def runs(self) -> bool:
        return self.container.startswith("Up")

    @property
    def origin(self) -> Origin | None:
        """The boot and the daemons at its launch."""
        return None if self.boot is None else Origin(self.boot, self.daemons)


class Stock(Struct, kw_only=True):
    """What is on a host. `kept` are the attempts whose artifacts were retained. `silence` is what the container engine
    said instead of listing containers, None if it did list them."""

    attempts: dict[str, FoundAttempt] = {}
    kept: list[str] = []
    silence: str | None = None


def take_stock(context: HostContext, owner: str, epoch: int, known: Sequence[str]) -> Command[Stock]:
    """Ask for all of it in one round trip. `owner` becomes the folder's owner; `known` are the instances that the
    server has had. Raises OtherServerError if the folder belongs to another one whose epoch is not lower."""
    body = script("machine/take_stock", context, owner_line=owner, epoch=epoch, known=tuple(known))
    return Command("asking what is on the machine", body, _stock)


def still_owned(context: HostContext) -> Command[None]:
    """Only check that no other server owns the folder: else OtherServerError is raised."""
    return Command("measuring the latency", script("machine/nothing", context), done)


def _stock(result: Result) -> Stock:
    stock, last = Stock(), FoundAttempt(name="")
    for key, value in result.pairs():
        if key == "attempt":
            name, claim, ended, began = value.split(" ")
            last = FoundAttempt(
                name=name, claim=Claim(claim), ended=ended == "yes", began=whole(began) if began else None
            )
            stock.attempts[name] = last
        elif key == "record":
            last.record = value.encode(errors="surrogateescape")
        elif key == "boot":
            last.boot = value
        elif key == "docker":
            last.daemons = value
        elif key == "kept":
            stock.kept.append(value)
        elif key == "container":
            name, _, status = value.partition(" ")
            name = name.removeprefix(container(""))
            stock.attempts.setdefault(name, FoundAttempt(name=name)).container = status
        elif key == "silence":
            stock.silence = value
    return stock
