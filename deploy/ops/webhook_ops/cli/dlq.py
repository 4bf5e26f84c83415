"""`webhook-cli dlq`: events that were given up."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.consumer.v1 import consumer_admin_service_pb2, consumer_admin_service_pb2_grpc

from webhook_ops.cli.dlq_redrive import Cause, Fingerprint, OfTenant, Tool, counts, redrive
from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.paging import PageToken, print_way_on
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain

app = typer.Typer(no_args_is_help=True, help="Events that were given up: look at them, put them back.")


app.command()(counts)
app.command()(redrive)


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    tool: Tool = "",
    tenant: OfTenant = "",
    cause: Cause = "",
    fingerprint: Fingerprint = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 50,
    page_token: PageToken = "",
    as_json: Json = False,
) -> None:
    """List dead letters, newest first.

    Example: `webhook-cli dlq list --tool github`
    """
    request = consumer_admin_service_pb2.ListDeadLettersRequest(
        page_size=limit,
        page_token=page_token,
        tool=tool,
        tenant=tenant,
        cause=cause,
        fingerprint=fingerprint,
    )

    async def work(door: Door) -> consumer_admin_service_pb2.ListDeadLettersResponse:
        async with door.open("consumer") as channel:
            stub = consumer_admin_service_pb2_grpc.ConsumerAdminServiceStub(channel)
            return await stub.ListDeadLetters(request)

    page = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(page))
        return
    out = console()
    if not page.dead_letters:
        out.print("No dead letters.")
        return
    rows = [
        (
            letter.dead_letter_id,
            letter.tool,
            letter.type,
            letter.stage,
            letter.cause,
            letter.attempts,
            moment(letter.dead_time),
            letter.fingerprint or NONE,
            letter.detail,
        )
        for letter in page.dead_letters
    ]
    columns = ("id", "tool", "type", "stage", "cause", "attempts", "given up", "fingerprint", "detail")
    out.print(table(columns, rows))
    print_way_on(out, page)


@app.command()
def show(
    ctx: typer.Context,
    *,
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID", help="Such as 1763841234567-0.")],
    payload: Annotated[bool, typer.Option("--payload", help="With the body as received.")] = False,
    as_json: Json = False,
) -> None:
    """Show one dead letter.

    Example: `webhook-cli dlq show 1763841234567-0 --payload`
    """
    request = consumer_admin_service_pb2.GetDeadLetterRequest(
        dead_letter_id=dead_letter_id, include_payload=payload
    )

    async def work(door: Door) -> consumer_admin_service_pb2.GetDeadLetterResponse:
        async with door.open("consumer") as channel:
            stub = consumer_admin_service_pb2_grpc.ConsumerAdminServiceStub(channel)
            return await stub.GetDeadLetter(request)

    answer = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(answer))
        return
    letter = answer.dead_letter
    facts = [(field, value) for field, value in to_plain(letter).items() if value]
    out = console()
    out.print(table(("field", "value"), facts))
    if answer.payload:
        out.print()
        out.print(text(answer.payload.decode("utf-8", "replace")))
