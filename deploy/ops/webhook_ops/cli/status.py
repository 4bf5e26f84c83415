"""`webhook-cli status`: how the system is."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import typer
from rich.text import Text
from webhook.consumer.v1 import consumer_admin_service_pb2, consumer_admin_service_pb2_grpc
from webhook.context.v1 import context_admin_service_pb2, context_admin_service_pb2_grpc
from webhook_shared.errors import ServiceError
from webhook_shared.settings import show_duration

from webhook_ops.addresses import SERVICES
from webhook_ops.cli.door import Door, Json, Refused, call
from webhook_ops.cli.failures import NOTHING_RUNS_HINT, Exit, fail
from webhook_ops.cli.render import NONE, console, print_json, table, text, to_plain
from webhook_ops.health import Health, grpc_health, http_health

# Of a queue that does not answer.
UNKNOWN = "?"

_STYLES = {Health.SERVING: "green", Health.NOT_SERVING: "yellow", Health.UNREACHABLE: "red"}


@dataclass(frozen=True)
class _Seen:
    """What could be found out; what could not is in `refusals`, by service."""

    health: dict[str, tuple[str, Health]]
    stages: list[consumer_admin_service_pb2.StageBacklog]
    tenants: list[context_admin_service_pb2.TenantStats]
    refusals: dict[str, ServiceError]

    @property
    def well(self) -> bool:
        return not self.refusals and all(health is Health.SERVING for _, health in self.health.values())


def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the health of each process, what is queued, and what is kept.

    Exit code 0 where everything serves, 1 where something does not, 3 where nothing answers.

    Example: `webhook-cli status --json | jq .backlog`
    """
    seen = call(ctx, _look, as_json=as_json)
    if all(health is Health.UNREACHABLE for _, health in seen.health.values()):
        fail(
            "nothing runs: no process answers",
            Exit.UNREACHABLE,
            reason="PEER_UNREACHABLE",
            hint=NOTHING_RUNS_HINT,
            as_json=as_json,
        )
    if as_json:
        print_json(_plain(seen))
    else:
        _print(seen)
    sys.exit(Exit.OK if seen.well else Exit.FAILED)


async def _look(door: Door) -> _Seen:
    where = {"http": door.http, **{service: door.services[service] for service in SERVICES}}
    health, backlog, stats = await asyncio.gather(
        asyncio.gather(
            http_health(door.http, tls=door.tls),
            *(grpc_health(door.services[name], tls=door.tls) for name in SERVICES),
        ),
        _backlog(door),
        _stats(door),
    )
    return _Seen(
        health={name: (where[name], found) for name, found in zip(where, health, strict=True)},
        stages=[] if isinstance(backlog, Refused) else list(backlog.stages),
        tenants=[] if isinstance(stats, Refused) else list(stats.tenants),
        refusals={one.service: one.error for one in (backlog, stats) if isinstance(one, Refused)},
    )


async def _backlog(door: Door) -> consumer_admin_service_pb2.GetBacklogResponse | Refused:
    try:
        async with door.open("consumer") as channel:
            stub = consumer_admin_service_pb2_grpc.ConsumerAdminServiceStub(channel)
            return await stub.GetBacklog(consumer_admin_service_pb2.GetBacklogRequest())
    except Refused as refused:
        return refused


async def _stats(door: Door) -> context_admin_service_pb2.GetStatsResponse | Refused:
    try:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            return await stub.GetStats(context_admin_service_pb2.GetStatsRequest())
    except Refused as refused:
        return refused


def _plain(seen: _Seen) -> dict[str, Any]:
    return {
        "well": seen.well,
        "processes": [
            {"name": name, "address": address, "health": health.value}
            for name, (address, health) in seen.health.items()
        ],
        "backlog": [to_plain(stage) for stage in seen.stages],
        "contexts": [to_plain(tenant) for tenant in seen.tenants],
        "problems": [
            {"service": service, "reason": error.reason, "message": error.message}
            for service, error in seen.refusals.items()
        ],
    }


def _print(seen: _Seen) -> None:
    out = console()
    out.print(
        table(
            ("process", "address", "health"),
            [(name, where, Text(health, _STYLES[health])) for name, (where, health) in seen.health.items()],
        )
    )
    if seen.stages:
        rows = [
            (
                stage.stage,
                *_counts(stage),
                show_duration(stage.oldest_age.ToTimedelta()) if stage.HasField("oldest_age") else NONE,
            )
            for stage in seen.stages
        ]
        out.print()
        out.print(table(("stage", "waiting", "in flight", "delayed", "dead", "oldest"), rows))
    if seen.tenants:
        kept = [(one.tenant, one.context_count, one.indexed_count, one.dirty_count) for one in seen.tenants]
        out.print()
        out.print(table(("tenant", "contexts", "found by meaning", "to be enriched"), kept))
    for service, error in seen.refusals.items():
        out.print(text(f"{service}: {error.message} [{error.reason}]", "red"))


def _counts(stage: consumer_admin_service_pb2.StageBacklog) -> tuple[str, ...]:
    counts = (stage.waiting_count, stage.in_flight_count, stage.delayed_count, stage.dead_count)
    if stage.unreachable:
        return tuple(UNKNOWN for _ in counts)
    return tuple(f"about {count}" if stage.estimated else str(count) for count in counts)
