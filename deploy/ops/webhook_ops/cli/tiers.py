"""`webhook-cli contexts force-transition` and `stats`: where contexts lie, and moving them."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_admin_service_pb2_grpc, context_pb2, context_service_pb2

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.render import NONE, console, moment, print_json, seconds, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

_LONGEST_S = 24 * 3600.0
_SHOWN = 20
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def force_transition(
    ctx: typer.Context,
    *,
    tier: Annotated[Literal["hot", "warm", "cold"], typer.Option("--tier", help="Where to.")],
    context_id: Annotated[str, typer.Option("--id", help="This one alone, important or not.")] = "",
    tool: Annotated[list[str] | None, typer.Option("--tool", help="Only of these tools.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only of these kinds.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="Only with one of these.")] = None,
    min_importance: Annotated[float, typer.Option("--min-importance", min=0, max=1)] = 0.0,
    memory_pressure: Annotated[
        bool, typer.Option("--memory-pressure", help="Stop as soon as Redis is no longer full.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0: all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be moved.")] = False,
    tenant: Annotated[str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Only of this one.")] = "",
    as_json: Json = False,
) -> None:
    """Move contexts to another tier now, the longest unchanged first. Needs an operator's key.

    Pinned contexts stay, and so do those whose importance keeps them where they are. Ctrl-C ends it; what
    has moved has moved.

    Examples:
    - `webhook-cli contexts force-transition --tier warm --dry-run`

    - `webhook-cli contexts force-transition --tier cold --id github:octo/hello:issue:7`
    """
    request = admin_pb2.ForceTransitionRequest(
        tenant=tenant or (DEFAULT_TENANT if context_id else ""),
        tier=context_pb2.Tier.Value(f"TIER_{tier.upper()}"),
        context_id=context_id,
        filter=context_service_pb2.ContextFilter(
            tools=tool or [], kinds=kind or [], labels=label or [], min_importance=min_importance
        ),
        until_pressure_ends=memory_pressure,
        max_contexts=limit,
        dry_run=dry_run,
    )

    async def work(door: Door) -> admin_pb2.ForceTransitionResponse:
        return await _followed(door, request, quiet=as_json)

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
    else:
        _show(told, dry_run=dry_run)
    if told.failed_count:
        raise typer.Exit(1)


async def _followed(
    door: Door, request: admin_pb2.ForceTransitionRequest, *, quiet: bool
) -> admin_pb2.ForceTransitionResponse:
    """All that was told, in one message."""
    whole = admin_pb2.ForceTransitionResponse()
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console(), transient=True, disable=quiet) as progress:
        task = progress.add_task("looking")
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            async for told in stub.ForceTransition(request, timeout=_LONGEST_S):
                transitions = list(whole.transitions) + list(told.transitions)
                whole.CopyFrom(told)
                del whole.transitions[:]
                whole.transitions.extend(transitions)
                progress.update(task, description=f"{told.moved_count} moved, {told.skipped_count} skipped")
    return whole


def _show(told: admin_pb2.ForceTransitionResponse, *, dry_run: bool) -> None:
    out = console()
    failed = [one for one in told.transitions if one.status.code]
    moved = [one for one in told.transitions if not one.status.code]
    shown = (failed + moved)[:_SHOWN]
    rows = [
        (
            one.tenant,
            one.context_id,
            _tier(one.from_tier),
            _tier(one.to_tier),
            size(one.bytes_before),
            NONE if dry_run or one.status.code else size(one.bytes_after),
            one.status.reason,
        )
        for one in shown
    ]
    if rows:
        out.print(table(("tenant", "context", "from", "to", "before", "after", "refused"), rows))
    if len(told.transitions) > len(shown):
        out.print(f"... and {len(told.transitions) - len(shown)} more")
    verb = "would move" if dry_run else "moved"
    before, after = sum(one.bytes_before for one in moved), sum(one.bytes_after for one in moved)
    sizes = size(before) if dry_run else f"{size(before)} became {size(after)}"
    refused = Counter(one.status.reason for one in failed)
    why = f" ({', '.join(f'{count} {reason}' for reason, count in refused.items())})" if refused else ""
    out.print(
        text(
            f"{told.moved_count} {verb}, {sizes}; {told.skipped_count} stay; {told.failed_count} refused{why}"
        )
    )


def stats(
    ctx: typer.Context,
    *,
    tenant: Annotated[str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Only of this one.")] = "",
    as_json: Json = False,
) -> None:
    """Show how many contexts there are and where they lie. Needs an operator's key.

    Example: `webhook-cli contexts stats`
    """

    async def work(door: Door) -> admin_pb2.GetStatsResponse:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            return await stub.GetStats(admin_pb2.GetStatsRequest(tenant=tenant), timeout=_LONGEST_S)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    rows = [_tier_row(one, tier) for one in found.tenants for tier in one.tiers]
    out.print(table(("tenant", "tier", "contexts", "size", "content", "ratio"), rows))
    for one in found.tenants:
        waiting = f"{one.due_count} due, the oldest for {seconds(one.oldest_due_age):.0f} s"
        due = waiting if one.due_count else "none due"
        changed = moment(one.oldest_update_time)
        out.print(
            text(f"{one.tenant}: {one.indexed_count} found by meaning; {due}; unchanged since {changed}")
        )
        if words := _limits(one.quota):
            out.print(text(f"{one.tenant} may keep {words}"))
    limit = f" of {size(found.redis_max_bytes)}" if found.redis_max_bytes else ", no limit"
    out.print(text(f"Redis uses {size(found.redis_used_bytes)}{limit}"))


def _limits(quota: admin_pb2.ContextQuota) -> str:
    words = [f"{quota.max_context_count} contexts"] if quota.max_context_count else []
    if quota.max_bytes:
        words.append(f"{size(quota.max_bytes)} of events, and has {size(quota.used_bytes)}")
    return ", ".join(words)


def _tier_row(tenant: admin_pb2.TenantStats, tier: admin_pb2.TierStats) -> tuple[str, ...]:
    packed = tier.stored_bytes and tier.content_bytes
    return (
        tenant.tenant,
        _tier(tier.tier),
        str(tier.context_count),
        size(tier.stored_bytes),
        size(tier.content_bytes) if packed else NONE,
        f"{tier.content_bytes / tier.stored_bytes:.1f}" if packed else NONE,
    )


def _tier(tier: context_pb2.Tier.ValueType) -> str:
    return context_pb2.Tier.Name(tier).removeprefix("TIER_").lower() if tier else NONE


def size(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"
