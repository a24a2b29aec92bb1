"""Events: list and follow."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.model.api.events import EventQuery
from dstack.server.follow_events import EventFollower
from dstack.server.parts import Parts, Table


@dataclass
class EventRoutes:
    """Endpoints."""

    parts: Parts

    async def events(self, request: Request) -> Response:
        asked = dict(request.query_params)
        follow, after = asked.pop("follow", "0") == "1", min(int(asked.pop("after", "0")), 2**63 - 1)
        query = msgspec.convert(asked, EventQuery, strict=False)
        follower = EventFollower(self.parts.context, query, after)
        if follow:
            return StreamingResponse(follower.frames(), media_type="application/octet-stream")
        return StreamingResponse(follower.array(), media_type="application/json")

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [("GET", "/events", self.events)]
