"""What goes wrong between the server and a machine."""

from __future__ import annotations

from tests.chaos.faults.fault import UNREACHABLE, Fault


class OnConnection(Fault):
    """Something is wrong with the way to a machine, or with its sshd."""

    explains = UNREACHABLE
    one_machine = True


class SshReset(OnConnection):
    """All connections to a machine break."""

    def begin(self) -> None:
        self.machine.link.cut()


class SshFrozen(OnConnection):
    """Connections to a machine neither pass bytes nor end."""

    def begin(self) -> None:
        self.machine.link.frozen = True

    def end(self) -> None:
        self.machine.link.frozen = False


class SshRefused(OnConnection):
    """Nothing listens on the machine's SSH port, and open connections break."""

    def begin(self) -> None:
        self.machine.link.refuse()
        self.machine.link.cut()

    def end(self) -> None:
        self.machine.link.accept()


class SshSlow(OnConnection):
    """The connection to a machine passes 30 kB per second."""

    def begin(self) -> None:
        self.machine.link.speed = self.machine.link.sent = 30_000

    def end(self) -> None:
        self.machine.link.speed = self.machine.link.sent = None


class SshLossy(OnConnection):
    """Every fifth packet is lost: what follows waits until it has been sent again. Some connections break of it."""

    def begin(self) -> None:
        chance = self.random
        self.machine.link.stall = lambda: chance.uniform(0.2, 1) if chance.random() < 0.2 else 0.0

    def end(self) -> None:
        if self.random.random() < 0.3:
            self.machine.link.cut()
        self.machine.link.stall = lambda: 0.0


class SshdRestarted(OnConnection):
    """sshd is stopped for a while. Its open connections break, or stay as they do at `systemctl restart ssh`."""

    breaks = "sshd"

    def begin(self) -> None:
        if self.random.random() < 0.5:
            self.machine.sshd.cut()
        self.machine.sshd.close()

    def end(self) -> None:
        self.machine.sshd.start()


class SshdKilled(OnConnection):
    """kill -9 of sshd and of all that it serves."""

    breaks = "sshd"

    def begin(self) -> None:
        self.machine.sshd.kill()

    def end(self) -> None:
        self.machine.sshd.start()


class SshHangs(OnConnection):
    """sshd accepts connections and says nothing, and the open ones break."""

    breaks = "sshd"

    def begin(self) -> None:
        self.machine.sshd.freeze()
        self.machine.link.cut()

    def end(self) -> None:
        self.machine.sshd.thaw()
