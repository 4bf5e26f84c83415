"""`webhook-cli intelligence reindex`: from one embedding model to the next, while contexts are searched."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_admin_service_pb2_grpc, context_pb2

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.render import NONE, console, print_json, table, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

_LONGEST_S = 7 * 24 * 3600.0
_WORDS = {
    admin_pb2.REINDEX_PHASE_FILLING: "filling the index of the next model",
    admin_pb2.REINDEX_PHASE_COMPARED: "compared: the old model serves",
    admin_pb2.REINDEX_PHASE_SWITCHED: "switched: dropping the old vectors",
    admin_pb2.REINDEX_PHASE_DROPPED: "done: nothing is left of the old model",
}


def reindex(
    ctx: typer.Context,
    *,
    fill_only: Annotated[
        bool, typer.Option("--fill-only", help="Fill and compare; leave the switch for another run.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Switch even if the next model finds less.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Fill an index of the next embedding model, compare, switch, drop the old one. Needs an operator's key.

    The next model is webhook.ai.embedding.next; without one, vectors of other models give way to those of the
    one that serves. Searches go on meanwhile, by the old model until the switch. It goes behind everything
    that somebody waits for. Ctrl-C ends it; another run goes on. Where the next model is away, or finds less,
    the old one stays.

    Examples:
    - `webhook-cli intelligence reindex --dry-run`

    - `webhook-cli intelligence reindex --fill-only --json | jq .comparison`
    """
    request = admin_pb2.ReindexRequest(tenant=tenant, fill_only=fill_only, force=force, dry_run=dry_run)
    last = admin_pb2.ReindexResponse()

    async def work(door: Door) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console(), transient=True, disable=as_json) as progress:
            task = progress.add_task("looking")
            async with door.open("context") as channel:
                stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
                async for told in stub.Reindex(request, timeout=_LONGEST_S):
                    last.CopyFrom(told)
                    progress.update(
                        task,
                        description=f"{_WORDS[told.phase]}: {told.filled_count} of {told.context_count}",
                    )

    call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(last))
    else:
        _show(last, dry_run=dry_run)


def _show(last: admin_pb2.ReindexResponse, *, dry_run: bool) -> None:
    found = last.comparison if last.HasField("comparison") else None
    rows = [
        ("served by, before", _name(last.serving)),
        ("goes to", _name(last.next)),
        ("contexts with a vector", last.context_count),
        ("of them by that model", last.filled_count),
        ("finds its own, before", _share(found and found.recall_serving)),
        ("finds its own, after", _share(found and found.recall_next)),
        ("nearest that both have", _share(found and found.overlap)),
    ]
    console().print(table(("", ""), rows))
    console().print("only counted" if dry_run else _WORDS.get(last.phase, NONE))


def _name(model: context_pb2.EmbeddingModel) -> str:
    return f"{model.provider}/{model.name}/{model.dimension}" if model.name else NONE


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"
