"""`webhook-cli claim-pending`: what workers hold and are silent about."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from webhook.consumer.v1 import consumer_admin_service_pb2 as admin_pb2
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import ConsumerAdminServiceStub

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.render import console, print_json, text, to_plain


def claim_pending(
    ctx: typer.Context,
    *,
    idle_time: Annotated[
        dt.timedelta,
        typer.Option("--idle-time", parser=lifetime, metavar="DURATION", help="Silent for at least so long."),
    ],
    stage: Annotated[str, typer.Option("--stage", help="Only of this stage: events or enrichment.")] = "",
    as_json: Json = False,
) -> None:
    """Have entries taken over at once whose worker has been silent for so long. Needs an operator's key.

    The workers do that by themselves after `webhook.consumer.claim_idle_time`; this is for when that is set
    long. Less than a third of it is refused: living workers may be silent for as long.

    Example: `webhook-cli claim-pending --idle-time 5m`
    """
    request = admin_pb2.ClaimPendingRequest(stage=stage)
    idle = Duration()
    idle.FromTimedelta(idle_time)
    request.idle_time.CopyFrom(idle)

    async def work(door: Door) -> admin_pb2.ClaimPendingResponse:
        async with door.open("consumer") as channel:
            return await ConsumerAdminServiceStub(channel).ClaimPending(request)

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
        return
    for one in told.stages:
        console().print(text(f"{one.stage}: {one.claimed_count} entries will be taken over"))
