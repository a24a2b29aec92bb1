"""Runners: list, add, check, change, drain, remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from dstack.engine.fleet.runners import FRESH
from dstack.model.api.runners import AddRunner, Drain
from dstack.server.parts import Parts, Table


@dataclass
class RunnerRoutes:
    """Endpoints."""

    parts: Parts

    async def runners(self, request: Request) -> Any:
        return await self.parts.runner_service.list(fresh=float(request.query_params.get("fresh", FRESH)))

    async def add_runner(self, request: Request) -> Any:
        return await self.parts.runner_service.add(msgspec.json.decode(await request.body(), type=AddRunner))

    async def remove_runner(self, request: Request) -> Any:
        await self.parts.runner_service.remove(
            request.path_params["name"], force=request.query_params.get("force") == "1"
        )
        return {}

    async def check_runner(self, request: Request) -> Any:
        return await self.parts.runner_service.check(request.path_params["name"])

    async def change_runner(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=AddRunner)
        return await self.parts.runner_service.change(request.path_params["name"], wish)

    async def drain_runner(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=Drain)
        return self.parts.runner_service.drain(request.path_params["name"], wish.reason)

    async def resume_runner(self, request: Request) -> Any:
        return self.parts.runner_service.resume(request.path_params["name"])

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("GET", "/runners", self.runners),
            ("POST", "/runners", self.add_runner),
            ("DELETE", "/runners/{name}", self.remove_runner),
            ("POST", "/runners/{name}/check", self.check_runner),
            ("PUT", "/runners/{name}", self.change_runner),
            ("POST", "/runners/{name}/drain", self.drain_runner),
            ("POST", "/runners/{name}/resume", self.resume_runner),
        ]
