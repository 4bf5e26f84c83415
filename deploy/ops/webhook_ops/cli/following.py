"""Streams that are followed until Ctrl-C, across restarts of the service that sends them."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import typer
from webhook_shared.redis import Backoff

from webhook_ops.cli.door import Door, Refused, call

#: A little longer than a service lets a stream last; it then ends the stream, and we go on with the token.
_LONGEST_S = 3700.0
#: While the service is away.
_AGAIN_WITHIN_S = 5.0

# Requests and responses of every such RPC have a resume token; protobuf gives them no type in common.
Response = TypeVar("Response", bound=Any)
Follow = Callable[..., AsyncIterable[Response]]
"""Of a stub."""


def follow(
    ctx: typer.Context,
    service: str,
    method: Callable[[grpc.aio.Channel], Follow[Response]],
    request: Any,
    show: Callable[[Response, int | None], int],
    *,
    count: int,
    what: str,
    as_json: bool,
) -> None:
    """Show what comes until there is enough; at Ctrl-C, say how to go on.

    Args:
        ctx: Of the command.
        service: "gateway".
        method: The streaming RPC on a channel to it.
        request: Its `resume_token` is moved on with each response.
        show: Shows one response, at most so many things of it, and tells how many there were.
        count: End after so many; 0 means never.
        what: "what is accepted", for people.
        as_json: As of `call`.
    """

    async def shown(door: Door) -> None:
        left = count
        async with aclosing(_responses(door, service, method, request, what)) as responses:
            async for response in responses:
                left -= show(response, left if count else None)
                if count and left <= 0:
                    return

    try:
        call(ctx, shown, as_json=as_json)
    except KeyboardInterrupt:
        if request.resume_token:
            sys.stderr.write(f"go on with --from {request.resume_token}\n")


async def _responses(
    door: Door, service: str, method: Callable[[grpc.aio.Channel], Follow[Response]], request: Any, what: str
) -> AsyncGenerator[Response]:
    """For ever; `request` keeps the token to go on with."""
    backoff = Backoff(base_s=0.2, cap_s=_AGAIN_WITHIN_S)
    ready = False
    while True:
        try:
            async with door.open(service) as channel:
                async for response in method(channel)(request, timeout=_LONGEST_S):
                    request.resume_token = response.resume_token
                    if not ready:
                        sys.stderr.write(f"{what} from here on is shown; Ctrl-C ends\n")
                        sys.stderr.flush()
                    ready = True
                    backoff.reset()
                    yield response
        except Refused as refused:
            # Before it has ever worked, waiting would only hide what is wrong.
            if not ready or refused.error.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            await backoff.wait()
