"""`webhook-cli contexts watch`: what changes, as it changes."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

import grpc
import orjson
import typer
from webhook.context.v1 import context_pb2
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_shared.redis import Backoff

from webhook_ops.cli.door import Door, Json, Refused, Tenant, call
from webhook_ops.cli.render import console, moment, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

#: A little longer than the store lets a stream last; it then ends the stream, and we go on with the token.
_LONGEST_S = 3700.0
#: While the store is away.
_AGAIN_WITHIN_S = 5.0


def watch(
    ctx: typer.Context,
    *,
    context_id: Annotated[list[str] | None, typer.Argument(help="Only these; else all.")] = None,
    tool: Annotated[list[str] | None, typer.Option("--tool", help="Only of these tools; may repeat.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only of these kinds; may repeat.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Only with one of these labels; may repeat.")
    ] = None,
    resume: Annotated[str, typer.Option("--from", help="The token of an earlier watch; else from now.")] = "",
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many; 0: at Ctrl-C.")] = 0,
    contexts: Annotated[bool, typer.Option("--contexts", help="With --json: with the contexts.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show contexts as they change, one line each. Goes on by itself when the store restarts.

    Examples:
    - `webhook-cli contexts watch --tool github --kind pull_request`

    - `webhook-cli contexts watch --json --contexts | jq .context.title`
    """
    request = pb.WatchContextsRequest(
        tenant=tenant,
        resume_token=resume,
        filter=pb.ContextFilter(tools=tool, kinds=kind, labels=label),
        context_ids=context_id,
        include_contexts=contexts,
    )

    async def shown(door: Door) -> None:
        left = count
        async with aclosing(_responses(door, request)) as responses:
            async for response in responses:
                _print(response.changes[: left if count else None], as_json=as_json)
                left -= len(response.changes)
                if count and left <= 0:
                    return

    try:
        call(ctx, shown, as_json=as_json)
    except KeyboardInterrupt:
        if request.resume_token:
            sys.stderr.write(f"go on with --from {request.resume_token}\n")


async def _responses(
    door: Door, request: pb.WatchContextsRequest
) -> AsyncGenerator[pb.WatchContextsResponse]:
    """For ever; `request` keeps the token to go on with."""
    backoff = Backoff(base_s=0.2, cap_s=_AGAIN_WITHIN_S)
    ready = False
    while True:
        try:
            async with door.open("context") as channel:
                stub = ContextServiceStub(channel)
                async for response in stub.WatchContexts(request, timeout=_LONGEST_S):
                    request.resume_token = response.resume_token
                    if not ready:
                        sys.stderr.write("what changes from here on is shown; Ctrl-C ends\n")
                        sys.stderr.flush()
                    ready = True
                    backoff.reset()
                    yield response
        except Refused as refused:
            # Before it has ever worked, waiting would only hide what is wrong.
            if not ready or refused.error.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            await backoff.wait()


def _print(changes: Sequence[pb.ContextChange], *, as_json: bool) -> None:
    out = console()
    for change in changes:
        if as_json:
            sys.stdout.write(orjson.dumps(to_plain(change)).decode() + "\n")
            continue
        what = pb.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_").lower()
        if change.kind == pb.CHANGE_KIND_MOVED:
            what += f" to {context_pb2.Tier.Name(change.tier).removeprefix('TIER_').lower()}"
        out.print(
            text(f"{moment(change.change_time)}  {change.context_id}  version {change.version}  {what}")
        )
    sys.stdout.flush()
