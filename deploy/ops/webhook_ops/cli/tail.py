"""`webhook-cli tail`: what is accepted, as it comes."""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer
from webhook.ingest.v1 import ingest_service_pb2, ingest_service_pb2_grpc

from webhook_ops.cli.door import Json, Tenant
from webhook_ops.cli.following import follow
from webhook_ops.cli.render import console, moment, text, to_plain


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

    def show(response: ingest_service_pb2.TailEventsResponse, most: int | None) -> int:
        _print(response, as_json=as_json, most=most)
        return len(response.events)

    follow(
        ctx,
        "gateway",
        lambda channel: ingest_service_pb2_grpc.IngestServiceStub(channel).TailEvents,
        request,
        show,
        count=count,
        what="what is accepted",
        as_json=as_json,
    )


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
