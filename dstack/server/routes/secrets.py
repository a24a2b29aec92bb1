"""Secrets: values that jobs get and logs hide."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from dstack.errors import UsageError
from dstack.model.api.server import DeletedSecret, SecretView, SetSecret
from dstack.model.project.environment import check_name
from dstack.model.text.units import rfc3339
from dstack.server.parts import Parts, Table


@dataclass
class SecretRoutes:
    """Endpoints."""

    parts: Parts

    async def secrets(self, request: Request) -> Any:
        return [SecretView(name=name, set_at=at) for name, at in self.parts.context.store.secrets.names().items()]

    async def set_secret(self, request: Request) -> Any:
        secret = msgspec.json.decode(await request.body(), type=SetSecret)
        check_name(secret.name)
        if not secret.value or "\0" in secret.value:
            raise UsageError(f"the value of '{secret.name}' is empty or contains a NUL character")
        now = rfc3339(time.time())
        self.parts.context.store.secrets.set(secret.name, secret.value, now)
        return SecretView(name=secret.name, set_at=now)

    async def delete_secret(self, request: Request) -> Any:
        name = request.path_params["name"]
        store = self.parts.context.store
        store.secrets.delete(name)
        jobs = [job for job in store.jobs.unfinished() if name in job.definition.needed_secrets]
        return DeletedSecret(missed_by=[f"{job.workflow} of {job.run}" for job in jobs if not job.started_at])

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("GET", "/secrets", self.secrets),
            ("POST", "/secrets", self.set_secret),
            ("DELETE", "/secrets/{name}", self.delete_secret),
        ]
