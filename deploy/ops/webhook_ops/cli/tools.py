"""`webhook-cli tools` and `queue`: where each tool's events are, pausing a tool, draining the queue."""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn
from webhook.consumer.v1 import consumer_admin_service_pb2 as admin_pb2
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import ConsumerAdminServiceStub
from webhook_shared.settings import show_duration

from webhook_ops.cli.breakers import state_of
from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain

app = typer.Typer(no_args_is_help=True, help="Where each tool's events are; pause and resume a tool.")
queue = typer.Typer(no_args_is_help=True, help="Have nothing new read from the queue, and end that.")

_LONGEST_S = 24 * 3600.0

Name = Annotated[str, typer.Argument(metavar="TOOL", help="Such as github.")]


@app.command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """Show where events are, per stage and tool, and which tools are held. Needs an operator's key.

    A "~" says that of a long queue only the oldest and the newest events were looked at.

    Example: `webhook-cli tools list`
    """

    async def work(door: Door) -> admin_pb2.ListToolsResponse:
        async with door.open("consumer") as channel:
            return await ConsumerAdminServiceStub(channel).ListTools(admin_pb2.ListToolsRequest())

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    if not found.tools:
        out.print("No events anywhere.")
        return
    counts = ("waiting", "in flight", "delayed", "put aside", "dead", "oldest")
    columns = ("stage", "tool", *counts, "breaker", "paused")
    out.print(table(columns, [_row(one) for one in found.tools]))


def _row(one: admin_pb2.ToolBacklog) -> tuple[str, ...]:
    about = "~" if one.estimated else ""
    paused = f"since {moment(one.pause.pause_time)} {one.pause.note}" if one.HasField("pause") else NONE
    return (
        one.stage,
        one.tool,
        f"{about}{one.waiting_count}",
        f"{about}{one.in_flight_count}",
        f"{about}{one.delayed_count}",
        str(one.parked_count),
        f"{about}{one.dead_count}",
        show_duration(one.oldest_age.ToTimedelta()) if one.HasField("oldest_age") else NONE,
        state_of(one.breaker_state),
        paused.rstrip(),
    )


@app.command()
def pause(
    ctx: typer.Context,
    *,
    tool: Name,
    note: Annotated[str, typer.Option("--note", help="For whoever wonders later.")] = "",
    as_json: Json = False,
) -> None:
    """Have a tool's events put aside until it is resumed; they are accepted and lost nowhere.

    Example: `webhook-cli tools pause github --note "they deploy"`
    """

    async def work(door: Door) -> admin_pb2.PauseToolResponse:
        async with door.open("consumer") as channel:
            stub = ConsumerAdminServiceStub(channel)
            return await stub.PauseTool(admin_pb2.PauseToolRequest(tool=tool, note=note))

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
    else:
        console().print(text(f"{tool} is paused since {moment(told.pause.pause_time)}"))


@app.command()
def resume(ctx: typer.Context, *, tool: Name, as_json: Json = False) -> None:
    """End a tool's pause: what was put aside is worked on now.

    Example: `webhook-cli tools resume github`
    """

    async def work(door: Door) -> admin_pb2.ResumeToolResponse:
        async with door.open("consumer") as channel:
            stub = ConsumerAdminServiceStub(channel)
            return await stub.ResumeTool(admin_pb2.ResumeToolRequest(tool=tool))

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
    else:
        console().print(text(f"{tool} goes on"))


@queue.command()
def drain(
    ctx: typer.Context,
    *,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")] = False,
    as_json: Json = False,
) -> None:
    """Have every worker read nothing new, and wait until nothing is in flight. `queue resume` ends it.

    Events are accepted meanwhile and wait. Ctrl-C ends the waiting, not the drain.

    Example: `webhook-cli queue drain`
    """

    async def work(door: Door) -> admin_pb2.DrainQueueResponse:
        told = admin_pb2.DrainQueueResponse()
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console(), transient=True, disable=as_json) as progress:
            task = progress.add_task("draining")
            async with door.open("consumer") as channel:
                stub = ConsumerAdminServiceStub(channel)
                request = admin_pb2.DrainQueueRequest(no_wait=no_wait)
                async for told in stub.DrainQueue(request, timeout=_LONGEST_S):
                    progress.update(task, description=f"{_in_flight(told)} in flight")
                    if as_json:
                        sys.stdout.write(orjson.dumps(to_plain(told)).decode() + "\n")
        return told

    told = call(ctx, work, as_json=as_json)
    if not as_json:
        state = "drained" if told.drained else f"draining, {_in_flight(told)} in flight"
        console().print(text(f"{state}; `webhook-cli queue resume` ends it"))


def _in_flight(told: admin_pb2.DrainQueueResponse) -> int:
    return sum(stage.in_flight_count for stage in told.stages)


@queue.command("resume")
def resume_queue(ctx: typer.Context, as_json: Json = False) -> None:
    """End a drain: the workers read on.

    Example: `webhook-cli queue resume`
    """

    async def work(door: Door) -> admin_pb2.ResumeQueueResponse:
        async with door.open("consumer") as channel:
            return await ConsumerAdminServiceStub(channel).ResumeQueue(admin_pb2.ResumeQueueRequest())

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
    else:
        console().print("the queue goes on")
