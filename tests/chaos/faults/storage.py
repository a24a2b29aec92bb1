"""What goes wrong with the storage."""

from __future__ import annotations

from tests.chaos.faults.fault import STORAGE, Fault


class OnStorage(Fault):
    """Something is wrong with S3."""

    needs = "s3"
    explains = STORAGE


class S3Refuses(OnStorage):
    """S3 answers every request with an error: too much to do (503), broken (500), or the access was revoked (403)."""

    def begin(self) -> None:
        code = self.random.choice(["SlowDown", "InternalError", "AccessDenied", "InvalidAccessKeyId"])
        self.site.world.proxy.refuse = lambda request: code

    def end(self) -> None:
        self.site.world.proxy.refuse = lambda request: None


class S3Cuts(OnStorage):
    """S3's answers break off."""

    def begin(self) -> None:
        after = self.random.choice([0, 10, 1000])
        self.site.world.proxy.cut = lambda request: after

    def end(self) -> None:
        self.site.world.proxy.cut = lambda request: None


class S3Slow(OnStorage):
    """S3 takes and gives 50 kB per second."""

    def begin(self) -> None:
        self.site.world.s3_link.speed = self.site.world.s3_link.sent = 50_000

    def end(self) -> None:
        self.site.world.s3_link.speed = self.site.world.s3_link.sent = None


class S3Frozen(OnStorage):
    """S3 does not answer."""

    breaks = "s3"

    def begin(self) -> None:
        self.site.world.s3.freeze()

    def end(self) -> None:
        self.site.world.s3.thaw()


class S3Down(OnStorage):
    """S3 is not running."""

    breaks = "s3"

    def begin(self) -> None:
        self.site.world.s3.kill()

    def end(self) -> None:
        self.site.world.s3.start()
