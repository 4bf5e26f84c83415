"""`webhook-cli conflicts`: events that came under the id of another one with another body."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.ingest.v1 import ingest_admin_service_pb2, ingest_admin_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.paging import print_way_on
from webhook_ops.cli.render import console, moment, print_json, table, to_plain
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
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    page_token: Annotated[str, typer.Option("--page-token", help="Go on from the page before.")] = "",
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
    if as_json:
        print_json(to_plain(page))
        return
    out = console()
    if not page.conflicts:
        out.print(
            "Nothing is in conflict." if not page.next_page_token else "None here; there are more pages."
        )
    else:
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
        out.print(table(("event", "came first", "tenant", "tool", "type", "received"), rows))
    print_way_on(out, page)
