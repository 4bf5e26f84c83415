"""`webhook-cli dlq counts` and `redrive`: what events died of, and giving them another life."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import orjson
import typer
from google.protobuf.duration_pb2 import Duration
from rich.progress import Progress, SpinnerColumn, TextColumn
from webhook.consumer.v1 import consumer_admin_service_pb2 as admin_pb2
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import ConsumerAdminServiceStub

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain

_LONGEST_S = 24 * 3600.0
_PHASES = {0: "looking", 1: "one ahead", 2: "ten ahead", 3: "the rest"}

Tool = Annotated[str, typer.Option("--tool", help="Only of this tool.")]
OfTenant = Annotated[str, typer.Option("--tenant", help="Only of this tenant.")]
Cause = Annotated[
    str,
    typer.Option("--cause", help="Only of this cause: undecodable, permanent, exhausted, crash_loop, quota."),
]
Fingerprint = Annotated[str, typer.Option("--fingerprint", help="Only those that died of the same thing.")]
Stage = Annotated[str, typer.Option("--stage", help="Only of this stage: events or enrichment.")]


def counts(
    ctx: typer.Context,
    *,
    tool: Tool = "",
    tenant: OfTenant = "",
    cause: Cause = "",
    fingerprint: Fingerprint = "",
    stage: Stage = "",
    as_json: Json = False,
) -> None:
    """Count dead letters by what they died of, the most frequent first.

    Example: `webhook-cli dlq counts --tool github`
    """
    which = admin_pb2.DeadLetterFilter(
        stage=stage, tool=tool, tenant=tenant, cause=cause, fingerprint=fingerprint
    )

    async def work(door: Door) -> admin_pb2.CountDeadLettersResponse:
        async with door.open("consumer") as channel:
            stub = ConsumerAdminServiceStub(channel)
            return await stub.CountDeadLetters(admin_pb2.CountDeadLettersRequest(filter=which))

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    if not found.counts:
        out.print("No dead letters.")
        return
    rows = [
        (
            kind.fingerprint or NONE,
            kind.count,
            kind.stage,
            kind.tool,
            kind.cause,
            moment(kind.oldest_dead_time),
            moment(kind.newest_dead_time),
            kind.detail,
        )
        for kind in found.counts
    ]
    out.print(table(("fingerprint", "count", "stage", "tool", "cause", "first", "last", "detail"), rows))
    if found.truncated:
        out.print("There are more; the newest of each stage were counted.")


def redrive(
    ctx: typer.Context,
    *,
    dead_letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="These; else give a filter, or --all.")
    ] = None,
    tool: Tool = "",
    tenant: OfTenant = "",
    cause: Cause = "",
    fingerprint: Fingerprint = "",
    stage: Stage = "",
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter there is.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be put back.")] = False,
    no_canary: Annotated[
        bool, typer.Option("--no-canary", help="All at once, without waiting how the first ones do.")
    ] = False,
    canary_timeout: Annotated[
        dt.timedelta,
        typer.Option(parser=lifetime, metavar="DURATION", help="How long the first ones may take."),
    ] = dt.timedelta(minutes=1),
    rate: Annotated[int, typer.Option("--rate", min=1, max=10_000, help="At most so many per second.")] = 100,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0: all.")] = 0,
    as_json: Json = False,
) -> None:
    """Put dead letters back into the queue. Needs an operator's key.

    One goes ahead, then ten; the rest follows only if none of these is given up again. Ctrl-C ends it: what
    is back in the queue stays there. Exit code 1 where the first ones did not do well.

    Examples:
    - `webhook-cli dlq redrive 1763841234567-0`

    - `webhook-cli dlq redrive --fingerprint 00eab5c43e94a57e --dry-run`

    - `webhook-cli dlq redrive --tool github --cause exhausted --rate 50`
    """
    request = admin_pb2.RedriveDeadLettersRequest(
        dead_letter_ids=dead_letter_ids or [],
        filter=admin_pb2.DeadLetterFilter(
            stage=stage, tool=tool, tenant=tenant, cause=cause, fingerprint=fingerprint
        ),
        all=everything,
        dry_run=dry_run,
        skip_canary=no_canary,
        max_per_second=rate,
        max_count=limit,
    )
    timeout = Duration()
    timeout.FromTimedelta(canary_timeout)
    request.canary_timeout.CopyFrom(timeout)

    async def work(door: Door) -> admin_pb2.RedriveDeadLettersResponse:
        return await _followed(door, request, as_json=as_json)

    try:
        told = call(ctx, work, as_json=as_json)
    except KeyboardInterrupt:
        fail(
            "ended; what was put back by then is in the queue",
            Exit.FAILED,
            reason="INTERRUPTED",
            as_json=as_json,
        )
    if not as_json:
        _show(told)
    if told.result not in {
        admin_pb2.RedriveDeadLettersResponse.RESULT_COMPLETE,
        admin_pb2.RedriveDeadLettersResponse.RESULT_DRY_RUN,
    }:
        raise typer.Exit(Exit.FAILED)


async def _followed(
    door: Door, request: admin_pb2.RedriveDeadLettersRequest, *, as_json: bool
) -> admin_pb2.RedriveDeadLettersResponse:
    """The last word; until then progress, with --json a line each."""
    told = admin_pb2.RedriveDeadLettersResponse()
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console(), transient=True, disable=as_json) as progress:
        task = progress.add_task(_PHASES[0])
        async with door.open("consumer") as channel:
            stub = ConsumerAdminServiceStub(channel)
            async for told in stub.RedriveDeadLetters(request, timeout=_LONGEST_S):
                phase = _PHASES.get(told.phase, NONE)
                progress.update(task, description=f"{phase}: {told.redriven_count} put back")
                if as_json:
                    sys.stdout.write(orjson.dumps(to_plain(told)).decode() + "\n")
    return told


def _show(told: admin_pb2.RedriveDeadLettersResponse) -> None:
    out = console()
    response = admin_pb2.RedriveDeadLettersResponse
    if told.result == response.RESULT_DRY_RUN:
        rows = [
            (one.dead_letter_id, one.tool, one.stage, one.cause, one.fingerprint, one.detail)
            for one in told.samples
        ]
        if rows:
            out.print(table(("id", "tool", "stage", "cause", "fingerprint", "detail"), rows))
        out.print(text(f"{told.redriven_count} would be put back"))
        return
    line = f"{told.redriven_count} put back"
    if told.succeeded_count or told.died_count:
        line += f"; of the first ones {told.succeeded_count} did well, {told.died_count} died again"
    if told.result == response.RESULT_CANARY_DIED:
        line += "; the rest stays where it is, see `webhook-cli dlq counts`"
    if told.result == response.RESULT_CANARY_UNDECIDED:
        line += "; not all ended in time, so the rest stays where it is"
    out.print(text(line))
