"""`webhook-cli restore`: contexts back from the cold store when Redis is lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_admin_service_pb2_grpc
from webhook_shared.errors import Unavailable

from webhook_ops.cli.door import Door, Json, Refused, call
from webhook_ops.cli.render import NONE, console, print_json, table, text, to_plain
from webhook_ops.cli.tiers import size

_LONGEST_S = 7 * 24 * 3600.0
_LONGEST_SILENCE_S = 300.0
"""A portion takes seconds. Who is silent for longer hangs; whoever repeats the command asks anew."""
_SHOWN = 20
_KEPT = 10_000
"""Of what is told one by one; the counts cover all."""
_WORDS = {
    admin_pb2.RESTORE_OUTCOME_RESTORED: ("restored", "would be restored"),
    admin_pb2.RESTORE_OUTCOME_JOINED: ("joined", "would be joined"),
    admin_pb2.RESTORE_OUTCOME_DELETED: ("deleted since", "deleted since"),
    admin_pb2.RESTORE_OUTCOME_FAILED: ("not usable", "not usable"),
}


def restore(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    resume: Annotated[str, typer.Option("--resume", help="Go on behind this token of a run before.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Only of this one.")] = "",
    as_json: Json = False,
) -> None:
    """Bring contexts back from the cold store into a Redis that has lost them. Needs an operator's key.

    Nothing that Redis has is replaced: what it lacks is added. Running it again does no harm. What is
    damaged is named, and does not end it; the exit code is 1 then. An interrupted run prints the token to go
    on with.

    Examples:
    - `webhook-cli restore --dry-run`

    - `webhook-cli restore --tenant default --json`
    """
    whole = admin_pb2.RestoreResponse(resume_token=resume)
    request = admin_pb2.RestoreRequest(tenant=tenant, dry_run=dry_run, resume_token=resume)

    async def work(door: Door) -> None:
        await _follow(door, request, whole, quiet=as_json)

    try:
        call(ctx, work, as_json=as_json)
    finally:
        if not whole.done and whole.resume_token:
            sys.stderr.write(f"not finished; go on with --resume {whole.resume_token}\n")
    if as_json:
        print_json(to_plain(whole))
    else:
        _show(whole, dry_run=dry_run)
    if whole.counts.failed:
        raise typer.Exit(1)


async def _follow(
    door: Door, request: admin_pb2.RestoreRequest, whole: admin_pb2.RestoreResponse, *, quiet: bool
) -> None:
    """Gather all that is told in one message; of what is told one by one, failures before all else."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console(), transient=True, disable=quiet) as progress:
        task = progress.add_task("looking")
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            async for told in _heard(stub.Restore(request, timeout=_LONGEST_S)):
                failed = [one for one in told.restorations if one.reason]
                others = [one for one in told.restorations if not one.reason]
                room = _KEPT - len(whole.restorations)
                whole.restorations.extend((failed + others)[: max(room, 0)])
                whole.counts.CopyFrom(told.counts)
                whole.resume_token, whole.done = told.resume_token, told.done
                progress.update(task, description=_summary(told.counts, dry_run=request.dry_run))


async def _heard(call: AsyncIterable[admin_pb2.RestoreResponse]) -> AsyncIterator[admin_pb2.RestoreResponse]:
    """What is told, for as long as something is.

    Raises:
        Refused: UNAVAILABLE/PEER_SILENT: nothing has been for too long; one may go on with the token.
    """
    messages = aiter(call)
    while True:
        try:
            async with asyncio.timeout(_LONGEST_SILENCE_S):
                told = await anext(messages, None)
        except TimeoutError:
            silent = Unavailable("PEER_SILENT", "the context store says nothing any more")
            raise Refused("context", silent) from None
        if told is None:
            return
        yield told


def _show(whole: admin_pb2.RestoreResponse, *, dry_run: bool) -> None:
    out = console()
    told = sorted(whole.restorations, key=lambda one: not one.reason)
    rows = [
        (
            one.tenant or NONE,
            one.context_id or one.object_name,
            str(one.event_count) if one.context_id else NONE,
            _WORDS[one.outcome][dry_run] if one.outcome in _WORDS else NONE,
            one.reason,
        )
        for one in told[:_SHOWN]
    ]
    if rows:
        out.print(table(("tenant", "context or object", "events", "", "reason"), rows))
    if len(told) > len(rows):
        out.print(f"... and more: {len(told) - len(rows)}; --json shows {_KEPT:,}")
    out.print(text(_summary(whole.counts, dry_run=dry_run)))


def _summary(counts: admin_pb2.RestoreCounts, *, dry_run: bool) -> str:
    verb = "would be restored" if dry_run else "restored"
    return (
        f"{counts.restored} {verb}, {counts.joined} joined with what Redis has ({size(counts.bytes)}); "
        f"{counts.present} were there, {counts.deleted} deleted since, {counts.failed} not usable"
    )
