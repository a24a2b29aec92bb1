"""Slows down who guesses tokens, and logs refused requests once per peer with a count."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dstack.errors import ErrorCode, TryAgainError
from dstack.server.access import OPEN
from dstack.server.endpoints import problem_response

HOOK = re.compile(r"POST (/v1)?/hooks/[^/]+")
"""Requests whose signature counts as a token."""
TRIES = 20
"""Wrong tokens that a peer may send at once."""
PAUSE = 3.0
"""Seconds after which it may try one more."""
REPORT = 600.0
"""Seconds between two lines of the log about one peer."""
MOST_PEERS = 1000
MOST_TOKENS = 64
"""How many accepted tokens are remembered per peer."""

SIGN_IN = "POST /login"
"""The form of the web page that sends a token in its body."""
SIGNING_IN = hashlib.sha256(b"sign-in").digest()

log = logging.getLogger("dstack.server")


@dataclass
class Peer:
    """What is known about one address. `accepted` are hashes of tokens that worked: they are never held up by others
    at the same address. Times are monotonic, in seconds."""

    tries: float = TRIES
    seen: float = 0.0
    reported: float | None = None
    unreported: int = 0
    accepted: set[bytes] = field(default_factory=set)

    def refill(self, now: float) -> None:
        self.tries = min(TRIES, self.tries + (now - self.seen) / PAUSE)
        self.seen = now


@dataclass
class Throttle:
    """Refuses further tokens of a peer that sent too many wrong ones. Requests over the unix socket pass."""

    app: ASGIApp
    peers: OrderedDict[str, Peer] = field(default_factory=OrderedDict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if scope["type"] != "http" or scope["server"] is None or scope["server"][1] is None or not client:
            await self.app(scope, receive, send)
            return
        name = network(client[0])
        route = f"{scope['method']} {scope['path']}"
        given = b"sign-in" if route == SIGN_IN else dict(scope["headers"]).get(b"authorization")
        needed, hook = not OPEN.fullmatch(route), HOOK.fullmatch(route) is not None
        token = hashlib.sha256(given).digest() if given and needed else None
        peer = self.peer(name)
        if (hook or (token and token not in peer.accepted)) and peer.tries < 1:
            self.report(name, peer)
            message = "too many wrong tokens were sent from this address"
            hint = "check the token, wait a minute, and try again: dstack config --token -"
            await problem_response(TryAgainError(message, hint=hint, code=ErrorCode.TOO_MANY))(scope, receive, send)
            return

        async def watched(answer: Message) -> None:
            if answer["type"] == "http.response.start":
                self.note(name, peer, token, refused=answer["status"] == 401)
                peer.tries -= hook and answer["status"] == 401
            await send(answer)

        await self.app(scope, receive, watched)

    def peer(self, name: str) -> Peer:
        """Return what is known about a peer. Beyond a thousand, the one seen first is forgotten."""
        peer = self.peers.setdefault(name, Peer(seen=time.monotonic()))
        self.peers.move_to_end(name)
        if len(self.peers) > MOST_PEERS:
            self.peers.popitem(last=False)
        peer.refill(time.monotonic())
        return peer

    def note(self, name: str, peer: Peer, token: bytes | None, *, refused: bool) -> None:
        """Remember how a request with this token, or without one, was answered."""
        if refused:
            self.report(name, peer)
        if token is None:
            return
        if not refused:
            if token != SIGNING_IN and len(peer.accepted) < MOST_TOKENS:
                peer.accepted.add(token)
        else:
            peer.tries -= 1
            peer.accepted.discard(token)

    def report(self, name: str, peer: Peer) -> None:
        """Log a refused request, or count it if one of this peer was logged a short while ago."""
        peer.unreported += 1
        now = time.monotonic()
        if peer.reported is not None and now - peer.reported < REPORT:
            return
        what = "a request" if peer.reported is None else f"{peer.unreported} more requests"
        log.warning("refused %s from %s without a valid token", what, name)
        peer.reported, peer.unreported = now, 0


def network(host: str) -> str:
    """Return what counts as one peer: an IPv4 address, or a /64 network of IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a proxy may name its clients as it likes
        return host[:100]
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
