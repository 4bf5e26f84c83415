"""The same answer to the same webhook on three interfaces: ASGI, RSGI, and the gateway's own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from webhook_gateway.answers import Answer, plain
from webhook_gateway.edge.connection import Timeouts
from webhook_gateway.edge.request import Request
from webhook_gateway.edge.server import serving
from webhook_gateway.limits import Crowd, Room

BODY = b'{"event_id":"0198-aaaa","status":"accepted"}'
LIMIT_BYTES = 25 * 2**20


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, answer 202."""
    if scope["type"] != "http":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    more = True
    parts = []
    while more:
        message = await receive()
        parts.append(message["body"])
        more = message.get("more_body", False)
    b"".join(parts)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def rsgi(scope: Any, protocol: Any) -> None:
    """Read the body, answer 202."""
    b"".join([chunk async for chunk in protocol])
    protocol.response_bytes(202, [("content-type", "application/json")], BODY)


class Accepting:
    """The gateway's handler without the gateway."""

    def opened(self, request: Request) -> Answer | None:
        """Let every body come."""
        request.body_limit_bytes = LIMIT_BYTES
        return None

    def received(self, request: Request) -> asyncio.Future[Any]:
        """A future that the next turn of the loop completes."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        return future

    def answer(self, request: Request, result: Any) -> Answer:
        """Answer 202."""
        return ACCEPTED

    def answered(self, request: Request, answer: Answer) -> None:
        """Keep count of nobody."""


ACCEPTED = plain(202, BODY)


async def own(port: str) -> None:
    """Serve until killed."""
    timeouts = Timeouts(header_s=5, body_s=10, keep_alive_s=75)
    crowd, room = Crowd(10_000, 10_000), Room(2**30)
    async with serving(
        f"127.0.0.1:{port}", Accepting(), timeouts=timeouts, crowd=crowd, room=room, drain_s=1
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(own(sys.argv[1]))
