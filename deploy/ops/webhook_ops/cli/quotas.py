"""`webhook-cli quotas`: what tenants may keep, and how near they are to it."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_admin_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.render import NONE, console, print_json, table, to_plain
from webhook_ops.cli.tiers import size

_LONGEST_S = 600.0


def quotas(
    ctx: typer.Context,
    *,
    tenant: Annotated[str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Only of this one.")] = "",
    as_json: Json = False,
) -> None:
    """Show how much each tenant keeps of what it may. Needs an operator's key.

    The limits are webhook.context_quotas. What there is no room for is among the dead letters, cause quota;
    raise the limit, then `webhook-cli dlq redrive --cause quota`.

    Example: `webhook-cli quotas --tenant default`
    """

    async def work(door: Door) -> admin_pb2.GetStatsResponse:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            return await stub.GetStats(admin_pb2.GetStatsRequest(tenant=tenant), timeout=_LONGEST_S)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        rows = [
            {"tenant": one.tenant, "context_count": one.context_count, **to_plain(one.quota)}
            for one in found.tenants
        ]
        print_json({"tenants": rows})
        return
    heads = ("tenant", "contexts", "of", "size", "of")
    console().print(table(heads, [_row(one) for one in found.tenants]))


def _row(one: admin_pb2.TenantStats) -> tuple[str, ...]:
    limits = one.quota
    lying = limits.used_bytes if limits.max_bytes else sum(tier.stored_bytes for tier in one.tiers)
    return (
        one.tenant,
        str(one.context_count),
        str(limits.max_context_count) if limits.max_context_count else NONE,
        size(lying),
        size(limits.max_bytes) if limits.max_bytes else NONE,
    )
