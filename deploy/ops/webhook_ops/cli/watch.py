"""`webhook-cli contexts watch`: what changes, as it changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import orjson
import typer
from webhook.context.v1 import context_pb2
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub

from webhook_ops.cli.door import Json, Tenant
from webhook_ops.cli.following import follow
from webhook_ops.cli.render import console, moment, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT


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

    def show(response: pb.WatchContextsResponse, most: int | None) -> int:
        _print(response.changes[:most], as_json=as_json)
        return len(response.changes)

    follow(
        ctx,
        "context",
        lambda channel: ContextServiceStub(channel).WatchContexts,
        request,
        show,
        count=count,
        what="what changes",
        as_json=as_json,
    )


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
