"""`webhook-cli quarantine`: bodies that were signed right and can't be read."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.ingest.v1 import ingest_admin_service_pb2, ingest_admin_service_pb2_grpc
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.paging import Limit, PageToken, print_page
from webhook_ops.cli.render import console, moment, print_json, table, text, to_plain
from webhook_ops.cli.since import Since, since

app = typer.Typer(
    no_args_is_help=True, help="Look at events in quarantine: signed right, but not to be read."
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
    """List quarantined events, newest first.

    Example: `webhook-cli quarantine list --tool github --since 1d`
    """
    request = ingest_admin_service_pb2.ListQuarantinedRequest(
        tool=tool, tenant=tenant, since_time=since(not_before), page_size=limit, page_token=page_token
    )

    async def work(door: Door) -> ingest_admin_service_pb2.ListQuarantinedResponse:
        async with door.open("gateway") as channel:
            stub = ingest_admin_service_pb2_grpc.IngestAdminServiceStub(channel)
            return await stub.ListQuarantined(request)

    page = call(ctx, work, as_json=as_json)
    rows = [
        (
            each.quarantined_id,
            each.tenant,
            each.tool,
            each.type,
            moment(each.received_time),
            each.sealed_bytes,
        )
        for each in page.quarantined
    ]
    print_page(
        page,
        rows,
        ("id", "tenant", "tool", "type", "received", "sealed bytes"),
        nothing="Nothing is in quarantine.",
        as_json=as_json,
    )


@app.command()
def show(
    ctx: typer.Context,
    *,
    quarantined_id: Annotated[str, typer.Argument(metavar="ID", help="Such as 1763841234567-0.")],
    payload: Annotated[
        bool, typer.Option("--payload", help="With the body as received; goes on record.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one quarantined event.

    Example: `webhook-cli quarantine show 1763841234567-0 --payload`
    """
    request = ingest_admin_service_pb2.GetQuarantinedRequest(quarantined_id=quarantined_id)

    async def work(
        door: Door,
    ) -> tuple[ingest_admin_service_pb2.Quarantined, WebhookEvent | None]:
        async with door.open("gateway") as channel:
            found = await ingest_admin_service_pb2_grpc.IngestAdminServiceStub(channel).GetQuarantined(
                request
            )
        if not payload:
            return found.quarantined, None
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            asked = security_admin_service_pb2.OpenEventRequest(event=found.event)
            return found.quarantined, (await stub.OpenEvent(asked)).event

    found, event = call(ctx, work, as_json=as_json)
    plain: dict[str, Any] = to_plain(found)
    opened = to_plain(event) if event is not None else {}
    if as_json:
        print_json({"quarantined": plain, "event": opened or None})
        return
    out = console()
    body = opened.pop("payload", "")
    facts = [(field, value) for field, value in {**plain, **opened}.items() if value]
    out.print(table(("field", "value"), facts))
    if body:
        out.print()
        out.print(text(body if isinstance(body, str) else f"base64: {body['base64']}"))
