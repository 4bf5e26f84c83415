"""`webhook-cli breakers` and `reset-circuit-breaker`: tools whose events keep failing."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.consumer.v1 import consumer_admin_service_pb2 as admin_pb2
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import ConsumerAdminServiceStub

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain

_NAMES = {
    admin_pb2.CIRCUIT_BREAKER_STATE_CLOSED: "closed",
    admin_pb2.CIRCUIT_BREAKER_STATE_OPEN: "open",
    admin_pb2.CIRCUIT_BREAKER_STATE_HALF_OPEN: "half open",
}


def state_of(state: admin_pb2.CircuitBreakerState.ValueType) -> str:
    """In a word or two."""
    return _NAMES.get(state, NONE)


def breakers(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the circuit breakers of tools that have had failures lately. Needs an operator's key.

    Example: `webhook-cli breakers`
    """

    async def work(door: Door) -> admin_pb2.ListCircuitBreakersResponse:
        async with door.open("consumer") as channel:
            stub = ConsumerAdminServiceStub(channel)
            return await stub.ListCircuitBreakers(admin_pb2.ListCircuitBreakersRequest())

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    if not found.breakers:
        out.print("All closed; nothing has failed lately.")
        return
    columns = ("stage", "tool", "state", "since", "probes from", "opened", "went well", "failed")
    out.print(table(columns, [_row(one) for one in found.breakers]))


def _row(one: admin_pb2.CircuitBreaker) -> tuple[str, ...]:
    return (
        one.stage,
        one.tool,
        state_of(one.state),
        moment(one.change_time),
        moment(one.probe_time),
        f"{one.trip_count}x" if one.trip_count else NONE,
        str(one.succeeded_count),
        str(one.failed_count),
    )


def reset_circuit_breaker(
    ctx: typer.Context,
    *,
    tool: Annotated[str, typer.Option("--tool", help="Whose; such as github.")],
    as_json: Json = False,
) -> None:
    """Close a tool's circuit breakers: its events are worked on at once. Needs an operator's key.

    Exit code 5 where none of the tool's events has failed lately.

    Example: `webhook-cli reset-circuit-breaker --tool github`
    """

    async def work(door: Door) -> admin_pb2.ResetCircuitBreakerResponse:
        async with door.open("consumer") as channel:
            stub = ConsumerAdminServiceStub(channel)
            return await stub.ResetCircuitBreaker(admin_pb2.ResetCircuitBreakerRequest(tool=tool))

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
        return
    for one in told.breakers:
        console().print(text(f"{one.stage}: the breaker of {one.tool} was {state_of(one.state)}, is closed"))
