"""`webhook-cli replay`: processed events once more."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn
from webhook.consumer.v1 import archive_service_pb2, archive_service_pb2_grpc

from webhook_ops.cli.archive import Tenant, Tool, Type, filter_of
from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.render import NONE, console, print_json, table, text, to_plain
from webhook_ops.cli.since import Since, Until

_LONGEST_S = 24 * 3600.0
_SHOWN = 50
_Kind = archive_service_pb2.ReplayChange
_SAID = {
    _Kind.REPLAY_CHANGE_APPEND: "would be added to its context",
    _Kind.REPLAY_CHANGE_CREATE: "would make its context",
    _Kind.REPLAY_CHANGE_REVIVE: "would bring its deleted context back",
    _Kind.REPLAY_CHANGE_PRESENT: "is there; nothing would change",
    _Kind.REPLAY_CHANGE_PRESENT_DIFFERENT: "is there and stays, though today's rules read it otherwise",
    _Kind.REPLAY_CHANGE_REFUSED: "would be refused",
    _Kind.REPLAY_CHANGE_UNREADABLE: "can't be read",
}
_UNCHANGED = (_Kind.REPLAY_CHANGE_PRESENT,)


def replay(
    ctx: typer.Context,
    *,
    event_id: Annotated[str, typer.Argument(metavar="ID", help="This event alone.")] = "",
    tool: Tool = "",
    kind: Type = "",
    tenant: Tenant = "",
    not_before: Since = "",
    before: Until = "",
    everything: Annotated[bool, typer.Option("--all", help="All that the archive has.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    rate: Annotated[int, typer.Option("--rate", min=1, max=100_000, help="Most events per second.")] = 500,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0: all.")] = 0,
    replay_id: Annotated[
        str, typer.Option("--replay-id", help="Go on with a replay that was cut off; a UUID.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Queue processed events once more, the oldest first. Needs an operator's key.

    Contexts that have an event keep it as it is; those that lack it get it, and those that were deleted
    come back. Ctrl-C ends it; with the same --replay-id it goes on where it was, and queues nothing twice.

    Examples:
    - `webhook-cli replay 019ab8f0-6a2c-7d11-9c3e-0242ac120002`

    - `webhook-cli replay --tool github --since 2h --until 1h --dry-run`
    """
    if not (everything or any((event_id, tool, kind, tenant, not_before, before))):
        fail("say which events: an id, a filter, or --all", Exit.USAGE, reason="USAGE", as_json=as_json)
    request = archive_service_pb2.ReplayEventsRequest(
        filter=filter_of(
            event_id=event_id, tool=tool, kind=kind, tenant=tenant, not_before=not_before, before=before
        ),
        replay_id=replay_id or str(uuid.uuid4()),
        dry_run=dry_run,
        max_events_per_second=rate,
        max_events=limit,
        everything=everything,
    )
    if not dry_run and not as_json:
        # Before anything can go wrong.
        sys.stderr.write(f"replay {request.replay_id}\n")

    async def work(door: Door) -> archive_service_pb2.ReplayEventsResponse:
        return await _followed(door, request, quiet=as_json)

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
    elif dry_run:
        _show(told)
    else:
        already = f", {told.skipped_count} had been queued by it before" if told.skipped_count else ""
        console().print(text(f"{told.queued_count} queued{already}"))


async def _followed(
    door: Door, request: archive_service_pb2.ReplayEventsRequest, *, quiet: bool
) -> archive_service_pb2.ReplayEventsResponse:
    """All that was told, in one message."""
    whole = archive_service_pb2.ReplayEventsResponse()
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console(), transient=True, disable=quiet) as progress:
        task = progress.add_task("looking")
        async with door.open("consumer") as channel:
            stub = archive_service_pb2_grpc.ArchiveServiceStub(channel)
            async for told in stub.ReplayEvents(request, timeout=_LONGEST_S):
                effects = [*whole.effects, *told.effects]
                whole.CopyFrom(told)
                del whole.effects[:]
                whole.effects.extend(effects)
                verb = "looked at" if request.dry_run else "queued"
                progress.update(task, description=f"{told.queued_count} {verb}")
    return whole


def _show(told: archive_service_pb2.ReplayEventsResponse) -> None:
    out = console()
    changed = [effect for effect in told.effects if effect.change not in _UNCHANGED]
    rows = [
        (
            effect.event_id,
            effect.tenant,
            effect.context_id or NONE,
            _SAID.get(effect.change, NONE),
            f"{effect.status.reason}: {effect.status.message}" if effect.status.code else "",
        )
        for effect in changed[:_SHOWN]
    ]
    if rows:
        out.print(table(("event", "tenant", "context", "", "why"), rows))
    if len(changed) > _SHOWN:
        out.print(f"... and {len(changed) - _SHOWN} more; --json shows all")
    out.print(text(f"{told.found_count} events: {_summary(told.effects)}"))


def _summary(effects: Iterable[archive_service_pb2.ReplayEffect]) -> str:
    counts = Counter(effect.change for effect in effects)
    return "; ".join(f"{count} {_SAID[change]}" for change, count in sorted(counts.items())) or "none"
