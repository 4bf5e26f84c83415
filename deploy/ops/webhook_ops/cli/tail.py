"""`webhook-cli tail`: what is accepted, as it comes."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import grpc
import orjson
import typer
from webhook.ingest.v1 import ingest_service_pb2, ingest_service_pb2_grpc
from webhook_shared.redis import Backoff

from webhook_ops.cli.door import Door, Json, Refused, Tenant, call
from webhook_ops.cli.render import console, moment, text, to_plain

#: A little longer than the gateway lets a stream last; it then ends the stream, and we go on with the token.
_LONGEST_S = 3700.0
#: While the gateway is away.
_AGAIN_WITHIN_S = 5.0


def tail(
    ctx: typer.Context,
    *,
    tenant: Tenant = "",
    tool: Annotated[list[str] | None, typer.Option("--tool", help="Only this one; may be repeated.")] = None,
    resume: Annotated[str, typer.Option("--from", help="The token of an earlier tail; else from now.")] = "",
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many; 0: at Ctrl-C.")] = 0,
    as_json: Json = False,
) -> None:
    """Show what the gateways accept, one line per event. Needs an operator's key.

    Goes on by itself when a gateway restarts, and says where something is missing.

    Examples:
    - `webhook-cli tail --tool github`

    - `webhook-cli tail --json | jq .event_id`
    """
    request = ingest_service_pb2.TailEventsRequest(tenant=tenant, tools=tool or [], resume_token=resume)

    async def shown(door: Door) -> None:
        left = count
        async with aclosing(_responses(door, request)) as responses:
            async for response in responses:
                _print(response, as_json=as_json, most=left if count else None)
                left -= len(response.events)
                if count and left <= 0:
                    return

    try:
        call(ctx, shown, as_json=as_json)
    except KeyboardInterrupt:
        if request.resume_token:
            sys.stderr.write(f"go on with --from {request.resume_token}\n")


async def _responses(
    door: Door, request: ingest_service_pb2.TailEventsRequest
) -> AsyncGenerator[ingest_service_pb2.TailEventsResponse]:
    """For ever; `request` keeps the token to go on with."""
    backoff = Backoff(base_s=0.2, cap_s=_AGAIN_WITHIN_S)
    ready = False
    while True:
        try:
            async with door.open("gateway") as channel:
                stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
                async for response in stub.TailEvents(request, timeout=_LONGEST_S):
                    request.resume_token = response.resume_token
                    if not ready:
                        sys.stderr.write("what is accepted from here on is shown; Ctrl-C ends\n")
                    ready = True
                    backoff.reset()
                    yield response
        except Refused as refused:
            # Before it has ever worked, waiting would only hide what is wrong.
            if not ready or refused.error.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            await backoff.wait()


def _print(response: ingest_service_pb2.TailEventsResponse, *, as_json: bool, most: int | None) -> None:
    if response.gap:
        sys.stderr.write("some events before these are missing here\n")
    out = console()
    for event in response.events[:most]:
        if as_json:
            sys.stdout.write(orjson.dumps(to_plain(event)).decode() + "\n")
            continue
        kept_aside = "  kept aside: unusable" if event.quarantined else ""
        line = f"{moment(event.received_time)}  {event.event_id}  {event.tenant}  {event.tool}  {event.type}"
        out.print(text(f"{line}{f'  {event.traceparent}' if event.traceparent else ''}{kept_aside}"))
    sys.stdout.flush()
