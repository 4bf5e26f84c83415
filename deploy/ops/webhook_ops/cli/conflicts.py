"""`webhook-cli conflicts`: events that came under the id of another one with another body."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.ingest.v1 import ingest_admin_service_pb2, ingest_admin_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.paging import Limit, PageToken, print_page
from webhook_ops.cli.render import moment
from webhook_ops.cli.since import Since, since

app = typer.Typer(
    no_args_is_help=True, help="Look at events whose senders call them the same, and that are not."
)


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    tool: Annotated[str, typer.Option("--tool", help="Only of this tool.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Only of this tenant.")] = "",
    not_before: Since = "",
    limit: Limit = 50,
    page_token: PageToken = "",
    as_json: Json = False,
) -> None:
    """List events in conflict, newest first. Both of a pair were taken, and nothing needs to be done.

    Example: `webhook-cli conflicts list --tool acme-ci --since 1d`
    """
    request = ingest_admin_service_pb2.ListConflictsRequest(
        tool=tool, tenant=tenant, since_time=since(not_before), page_size=limit, page_token=page_token
    )

    async def work(door: Door) -> ingest_admin_service_pb2.ListConflictsResponse:
        async with door.open("gateway") as channel:
            stub = ingest_admin_service_pb2_grpc.IngestAdminServiceStub(channel)
            return await stub.ListConflicts(request)

    page = call(ctx, work, as_json=as_json)
    rows = [
        (
            each.event_id,
            each.first_event_id,
            each.tenant,
            each.tool,
            each.type,
            moment(each.received_time),
        )
        for each in page.conflicts
    ]
    print_page(
        page,
        rows,
        ("event", "came first", "tenant", "tool", "type", "received"),
        nothing="Nothing is in conflict.",
        as_json=as_json,
    )
