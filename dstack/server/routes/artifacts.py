"""The artifacts of jobs: list, read, link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.artifacts.store import ArtifactStore
from dstack.model.api import wire
from dstack.model.api.artifacts import ArtifactView, LinksRequest
from dstack.model.job.manifest import PARTIAL
from dstack.server.links import link, links
from dstack.server.parts import Parts, Table
from dstack.store.lookup import job_named, jobs_named


@dataclass
class ArtifactRoutes:
    """Endpoints."""

    parts: Parts

    @property
    def storage(self) -> ArtifactStore:
        return self.parts.context.artifacts.current

    async def artifacts(self, request: Request) -> Any:
        _, jobs, _ = jobs_named(self.parts.context.store, request.path_params["ref"])
        views: list[ArtifactView] = []
        for job in jobs:
            source = self.parts.context.store.jobs.require(job.source)
            manifest = await asyncio.to_thread(self.storage.manifest, source.run, source.workflow)
            for file in manifest.files if manifest else ():
                views.append(
                    ArtifactView(
                        job=job.id,
                        workflow=job.workflow,
                        path=file.path,
                        size=file.size,
                        mode=file.mode,
                        sha256=file.sha256,
                        link=file.link,
                        partial=manifest is not None and manifest.status == PARTIAL,
                    )
                )
        return views

    async def artifact(self, request: Request) -> Response:
        job = job_named(self.parts.context.store, request.path_params["ref"])
        source = self.parts.context.store.jobs.require(job.source)
        path = parse_qs(request.url.query, errors="surrogateescape")["path"][0]
        offset = int(request.query_params.get("offset", "0"))
        opened = self.storage.open(source.run, source.workflow, path, offset)
        first = await anext(opened, b"")  # a storage error can still become an error response
        return StreamingResponse(prefixed(first, opened), media_type="application/octet-stream")

    async def artifact_url(self, request: Request) -> Any:
        job = job_named(self.parts.context.store, request.path_params["ref"])
        return await link(self.parts.context, job, request.query_params["path"])

    async def artifact_urls(self, request: Request) -> Any:
        job = job_named(self.parts.context.store, request.path_params["ref"])
        return await links(self.parts.context, job, wire.decode(await request.body(), LinksRequest).paths)

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("GET", "/artifacts/{ref}", self.artifacts),
            ("GET", "/artifacts/{ref}/file", self.artifact),
            ("GET", "/artifacts/{ref}/url", self.artifact_url),
            ("POST", "/artifacts/{ref}/urls", self.artifact_urls),
        ]


async def prefixed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the first piece, which was already read, then the rest."""
    yield first
    async for piece in rest:
        yield piece
