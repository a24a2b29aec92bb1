"""The server itself: status, key, configuration, shutdown."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from dstack import __version__
from dstack.hosts.own_key import own_key
from dstack.model.api.runners import ServerKey
from dstack.model.api.server import API, ServerConfig, ServerStatus
from dstack.model.text.units import rfc3339
from dstack.server.parts import Parts, Table


@dataclass
class SettingsRoutes:
    """Endpoints."""

    parts: Parts

    async def status(self, request: Request) -> ServerStatus:
        unfinished = {job.run for job in self.parts.context.store.jobs.unfinished()}
        return ServerStatus(
            pid=os.getpid(),
            url=self.parts.url,
            version=__version__,
            api=API,
            started_at=rfc3339(self.parts.started),
            runs=len(unfinished),
            home=str(self.parts.context.layout.home),
        )

    async def key(self, request: Request) -> Any:
        layout, settings = self.parts.context.layout, self.parts.context.store.settings
        return ServerKey(key=await asyncio.to_thread(own_key, layout.identity), server=settings.server_id)

    async def config(self, request: Request) -> Any:
        if request.method == "POST":
            wish = msgspec.json.decode(await request.body(), type=ServerConfig)
            if wish.storage is not None:
                await self.parts.context.artifacts.use(wish.storage, wish.endpoint_url or "")
            if wish.max_gpus_per_user is not None:
                limit = str(wish.max_gpus_per_user) if wish.max_gpus_per_user >= 0 else ""
                self.parts.context.store.settings.set("max-gpus-per-user", limit)
                self.parts.engine.poke()
        return ServerConfig(
            storage=self.parts.context.artifacts.url,
            endpoint_url=self.parts.context.artifacts.endpoint or None,
            max_gpus_per_user=self.parts.engine.scheduler.max_gpus_per_user,
        )

    async def shutdown(self, request: Request) -> Any:
        self.parts.quit()
        return {}

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("GET", "/status", self.status),
            ("GET", "/key", self.key),
            ("GET", "/config", self.config),
            ("POST", "/config", self.config),
            ("POST", "/shutdown", self.shutdown),
        ]
