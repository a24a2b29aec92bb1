"""Events: list and follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from dstack.model.api.events import EventQuery
from dstack.server.follow_events import EventFollower
from dstack.server.parts import Parts, Table


@dataclass
class EventRoutes:
    """Endpoints."""

    parts: Parts

    async def events(self, request: Request) -> Any:
        asked = dict(request.query_params)
        follow, after = asked.pop("follow", "0") == "1", int(asked.pop("after", "0"))
        query = msgspec.convert(asked, EventQuery, strict=False)
        follower = EventFollower(self.parts.context, query, after)
        if follow:
            return StreamingResponse(follower.frames(), media_type="application/octet-stream")
        return follower.news()

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [("GET", "/events", self.events)]
