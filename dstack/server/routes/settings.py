"""The server itself: status, key, settings, and the secrets, which jobs get and logs hide."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dstack import __version__
from dstack.engine.engine import Engine
from dstack.engine.supervisor import Trouble
from dstack.errors import ErrorCode, UsageError
from dstack.hosts.trust import own_key
from dstack.model.api.runners import ServerKey
from dstack.model.api.server import (
    API,
    ChangeIdentity,
    DeletedSecret,
    DiskSpace,
    SecretView,
    ServerConfig,
    ServerStatus,
    SetSecret,
    TaskTrouble,
)
from dstack.model.api.tokens import CreatedToken, NewToken
from dstack.model.project.environment import check_name, check_sizes
from dstack.model.text.units import rfc3339
from dstack.plumbing.space import space
from dstack.server.roles import check_storage
from dstack.server.routes.notify import owner
from dstack.server.views import shown


@dataclass
class SettingsRoutes:
    engine: Engine
    url: str
    started: float = field(default_factory=time.time)

    def status(self) -> ServerStatus:
        return ServerStatus(
            pid=os.getpid(),
            url=self.url,
            version=__version__,
            api=API,
            started_at=rfc3339(self.started),
            runs=len({job.run for job in self.engine.store.jobs.unfinished()}),
            home=str(self.engine.context.layout.home),
            disk=shown(space(self.engine.context.layout.state), DiskSpace),
            troubles=[trouble_view(name, trouble) for name, trouble in self.engine.context.tasks.current().items()],
            id=self.engine.store.identity.id,
            epoch=self.engine.store.identity.epoch,
            damaged=self.engine.store.damaged.all(),
            notify=[target for target in self.engine.store.notify_targets.all() if target.dead],
        )

    def identity(self, wish: ChangeIdentity) -> ServerStatus:
        """Part from a server that is a copy of this one, or of which this one is a copy."""
        self.engine.reconciler.part(new=wish.new)
        self.engine.poke()
        return self.status()

    async def key(self) -> ServerKey:
        key = await asyncio.to_thread(own_key, self.engine.context.layout.identity)
        server = self.engine.store.identity.id
        await self.engine.store.database.synced()  # machines will know the server by it
        return ServerKey(key=key, server=server)

    def config(self) -> ServerConfig:
        artifacts = self.engine.context.artifacts
        return ServerConfig(
            storage=artifacts.url,
            endpoint_url=without_login(artifacts.endpoint) or None,
            max_gpus_per_user=self.engine.scheduler.max_gpus_per_user,
            notify=[target.url for target in self.engine.store.notify_targets.of(owner())],
        )

    async def configure(self, wish: ServerConfig) -> ServerConfig:
        if wish.storage is not None:
            check_storage(wish.storage)
            await self.engine.context.artifacts.use(wish.storage, wish.endpoint_url or "")
        if wish.max_gpus_per_user is not None:
            limit = str(wish.max_gpus_per_user) if wish.max_gpus_per_user >= 0 else ""
            self.engine.store.settings.set("max-gpus-per-user", limit)
            self.engine.poke()
        return self.config()

    def secrets(self) -> list[SecretView]:
        return [SecretView(name=name, set_at=at) for name, at in self.engine.store.secrets.names().items()]

    def set_secret(self, secret: SetSecret) -> SecretView:
        check_name(secret.name)
        if not secret.value or "\0" in secret.value:
            raise UsageError(f"the value of '{secret.name}' is empty or contains a NUL character")
        check_sizes({secret.name: secret.value})
        now = rfc3339(time.time())
        self.engine.store.secrets.set(secret.name, secret.value, now)
        return SecretView(name=secret.name, set_at=now)

    def delete_secret(self, name: str) -> DeletedSecret:
        self.engine.store.secrets.delete(name)
        jobs = [job for job in self.engine.store.jobs.unfinished() if name in job.definition.needed_secrets]
        return DeletedSecret(missed_by=[f"{job.workflow} of {job.run}" for job in jobs if not job.started_at])

    def create_token(self, wish: NewToken) -> CreatedToken:
        return self.engine.store.tokens.create(wish.name, wish.role)


def trouble_view(name: str, trouble: Trouble) -> TaskTrouble:
    """Return a task's trouble as users see it."""
    return TaskTrouble(
        task=name,
        count=trouble.count,
        since=rfc3339(trouble.since),
        reason=trouble.words,
        code=getattr(trouble.error, "code", ErrorCode.INTERNAL),
    )


def without_login(url: str) -> str:
    """Return a URL as everybody may see it."""
    login, at, _ = urlsplit(url).netloc.rpartition("@")
    return url.replace(login + at, "", 1)
