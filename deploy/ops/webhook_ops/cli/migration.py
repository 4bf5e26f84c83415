"""`webhook-cli migration`: from SQS to Redis, and back."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.ingest.v1 import migration_service_pb2, migration_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.failures import Exit
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.render import NONE, console, moment, print_json, seconds, table, text, to_plain

app = typer.Typer(
    no_args_is_help=True,
    help="Move events between SQS and Redis: see where it stands, shift traffic, prove that nothing is lost. "
    "docs/sqs.md has the steps.",
)

_PLACES = {
    "redis.queued": "in Redis",
    "sqs.queued": "in SQS",
    "redis.processed": "processed from Redis",
    "sqs.processed": "processed from SQS",
}


@app.command()
def status(ctx: typer.Context, *, as_json: Json = False) -> None:
    """Show what new events go through, and what waits.

    Example: `webhook-cli migration status`
    """

    async def work(door: Door) -> migration_service_pb2.GetMigrationResponse:
        async with door.open("gateway") as channel:
            stub = migration_service_pb2_grpc.MigrationServiceStub(channel)
            return await stub.GetMigration(migration_service_pb2.GetMigrationRequest())

    found = call(ctx, work, as_json=as_json)
    answers = found.HasField("sqs_waiting_count")
    if as_json:
        unknown = {} if answers else {"sqs_waiting_count": None, "sqs_in_flight_count": None}
        print_json(to_plain(found) | unknown)
        return
    rows = [
        ("backend", found.backend),
        ("share through Redis", f"{found.redis_share_percent} %"),
        ("copied to SQS", "yes" if found.dual_write else "no"),
        ("SQS queue", found.sqs_queue_url),
        ("waiting in SQS", f"about {found.sqs_waiting_count}" if answers else "SQS does not answer"),
        ("in flight in SQS", f"about {found.sqs_in_flight_count}" if answers else NONE),
        ("copies that wait", found.copies_waiting_count),
        ("copies that were lost", found.copies_lost_count),
    ]
    console().print(table(("migration", "as this gateway sees it"), rows))


@app.command()
def ramp(
    ctx: typer.Context,
    *,
    percent: Annotated[
        int | None, typer.Argument(min=0, max=100, help="Of events, through Redis; the others through SQS.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Return to redis_share_percent.")] = False,
    as_json: Json = False,
) -> None:
    """Shift traffic: from now on this share of new events goes through Redis.

    Holds for all gateways with WEBHOOK_BACKEND=sqs within a second, and across restarts. An event belongs to
    a share by its id, so what went through Redis at 10 also does at 50. Consumers work off both queues.

    Examples:
    - `webhook-cli migration ramp 10`

    - `webhook-cli migration ramp --reset`
    """
    if (percent is None) is not reset:
        raise typer.BadParameter("say a percentage, or --reset")

    async def work(door: Door) -> migration_service_pb2.RampMigrationResponse:
        request = migration_service_pb2.RampMigrationRequest(redis_share_percent=percent)
        async with door.open("gateway") as channel:
            return await migration_service_pb2_grpc.MigrationServiceStub(channel).RampMigration(request)

    share = call(ctx, work, as_json=as_json).redis_share_percent
    if as_json:
        print_json({"redis_share_percent": share})
        return
    console().print(f"{share} % of new events go through Redis, the others through SQS.")


@app.command()
def compare(
    ctx: typer.Context,
    *,
    window: Annotated[str, typer.Option("--window", help="How far back: 10m, 1h.")] = "10m",
    settle: Annotated[
        str, typer.Option("--settle", help="How long an event may be in one queue alone: 30s.")
    ] = "30s",
    as_json: Json = False,
) -> None:
    """Compare both queues by event id, and name what is in one and not in the other.

    Needs DUAL_WRITE_MODE=true, of gateways and, for what was processed, of consumers. An event that has only
    just been seen is not missed yet: it has --settle. Ends with 1 where something is missing.

    Example: `webhook-cli migration compare --window 1h`
    """
    request = migration_service_pb2.CompareMigrationRequest()
    request.window.FromTimedelta(lifetime(window))
    request.settle.FromTimedelta(lifetime(settle))

    async def work(door: Door) -> migration_service_pb2.CompareMigrationResponse:
        async with door.open("gateway") as channel:
            return await migration_service_pb2_grpc.MigrationServiceStub(channel).CompareMigration(request)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json({"equal": not found.gaps, **to_plain(found)})
    else:
        _show(found)
    if found.gaps:
        raise typer.Exit(Exit.FAILED)


def _show(found: migration_service_pb2.CompareMigrationResponse) -> None:
    out = console()
    out.print(text(f"Events received from {moment(found.since_time)} to {moment(found.until_time)}"))
    out.print(table(("place", "events"), [(_place(each.place), each.event_count) for each in found.counts]))
    if found.lags:
        rows = [
            (
                f"{_place(lag.seen_at)} → {_place(lag.then_at)}",
                f"{seconds(lag.p50):.3f} s",
                f"{seconds(lag.p99):.3f} s",
            )
            for lag in found.lags
        ]
        out.print()
        out.print(table(("later by", "p50", "p99"), rows))
    out.print()
    for gap in found.gaps:
        out.print(
            text(f"MISSING: {gap.event_count} {_place(gap.seen_at)} but not {_place(gap.not_at)}", "bold red")
        )
        for event_id in gap.event_ids:
            out.print(text(f"  {event_id}"))
        if gap.event_count > len(gap.event_ids):
            out.print(f"  and {gap.event_count - len(gap.event_ids)} more")
    if not found.gaps:
        out.print("Nothing is missing.")


def _place(place: str) -> str:
    return _PLACES.get(place, place)
