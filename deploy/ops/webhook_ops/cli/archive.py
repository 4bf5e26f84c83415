"""`webhook-cli archive`: events that have been processed, kept sealed for a while."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.consumer.v1 import archive_service_pb2, archive_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.paging import PageToken, print_way_on
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain
from webhook_ops.cli.since import Since, Until, since
from webhook_ops.cli.tiers import size

app = typer.Typer(no_args_is_help=True, help="Look at events that have been processed.")

Tool = Annotated[str, typer.Option("--tool", help="Only of this tool.")]
Type = Annotated[str, typer.Option("--type", help="Only of this type, as the sender names it.")]
Tenant = Annotated[str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Only of this tenant.")]


def filter_of(
    *, event_id: str, tool: str, kind: str, tenant: str, not_before: str, before: str
) -> archive_service_pb2.ArchiveFilter:
    """What the options of a command admit."""
    return archive_service_pb2.ArchiveFilter(
        event_id=event_id,
        tool=tool,
        type=kind,
        tenant=tenant,
        received_from=since(not_before),
        received_until=since(before),
    )


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    event_id: Annotated[str, typer.Option("--id", help="Only this event.")] = "",
    tool: Tool = "",
    kind: Type = "",
    tenant: Tenant = "",
    not_before: Since = "",
    before: Until = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 50,
    page_token: PageToken = "",
    as_json: Json = False,
) -> None:
    """List processed events by the time they were received, newest first. Needs an operator's key.

    Example: `webhook-cli archive list --tool github --since 2h`
    """
    request = archive_service_pb2.ListArchivedEventsRequest(
        page_size=limit,
        page_token=page_token,
        filter=filter_of(
            event_id=event_id, tool=tool, kind=kind, tenant=tenant, not_before=not_before, before=before
        ),
    )

    async def work(door: Door) -> archive_service_pb2.ListArchivedEventsResponse:
        async with door.open("consumer") as channel:
            return await archive_service_pb2_grpc.ArchiveServiceStub(channel).ListArchivedEvents(request)

    page = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(page))
        return
    out = console()
    if not page.events and not page.next_page_token:
        out.print("The archive has no such event.")
        return
    rows = [
        (
            event.event_id,
            event.tenant,
            event.tool,
            event.type,
            moment(event.received_time),
            size(event.size_bytes),
            event.segment or NONE,
        )
        for event in page.events
    ]
    out.print(table(("event", "tenant", "tool", "type", "received", "size", "segment"), rows))
    print_way_on(out, page)


@app.command()
def show(
    ctx: typer.Context,
    *,
    event_id: Annotated[str, typer.Argument(metavar="ID", help="An event's id.")],
    payload: Annotated[bool, typer.Option("--payload", help="With the body as received.")] = False,
    as_json: Json = False,
) -> None:
    """Show one processed event. Needs an operator's key.

    Example: `webhook-cli archive show 019ab8f0-6a2c-7d11-9c3e-0242ac120002 --payload`
    """
    request = archive_service_pb2.GetArchivedEventRequest(event_id=event_id, include_payload=payload)

    async def work(door: Door) -> archive_service_pb2.GetArchivedEventResponse:
        async with door.open("consumer") as channel:
            return await archive_service_pb2_grpc.ArchiveServiceStub(channel).GetArchivedEvent(request)

    answer = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(answer))
        return
    facts = [(field, value) for field, value in to_plain(answer.event).items() if value]
    out = console()
    out.print(table(("field", "value"), facts))
    if answer.payload:
        out.print()
        out.print(text(answer.payload.decode("utf-8", "replace")))
