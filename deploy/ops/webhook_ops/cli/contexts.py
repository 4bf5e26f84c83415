"""`webhook-cli contexts`: read and find what is known."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from webhook.context.v1 import context_pb2, context_service_pb2, context_service_pb2_grpc

from webhook_ops.cli import tiers, watch, windows
from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.paging import print_way_on
from webhook_ops.cli.questions import embed
from webhook_ops.cli.render import console, moment, print_json, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Read and find contexts: what is known about each thing.")
app.command("force-transition")(tiers.force_transition)
app.command("stats")(tiers.stats)
app.command("window")(windows.window)
app.command("neighbors")(windows.neighbors)
app.command("watch")(watch.watch)


_CARD_WIDTH = 120

Tools = Annotated[list[str] | None, typer.Option("--tool", help="Only of these tools; may be repeated.")]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="Only of these kinds: issue, push...; may repeat.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="Only with one of these labels; may repeat.")
]


class TierName(StrEnum):
    """Tiers as people type them."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


Tiers = Annotated[
    list[TierName] | None, typer.Option("--tier", help="Only those that lie there; may repeat.")
]
Importance = Annotated[float, typer.Option("--min-importance", min=0, max=1, help="Only from here up.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")]
PageToken = Annotated[str, typer.Option("--page-token", help="Go on where the page before said so.")]


@app.command()
def get(
    ctx: typer.Context,
    *,
    context_id: Annotated[str, typer.Argument(help="Such as github:octo/hello:issue:7.")],
    events: Annotated[int, typer.Option("--events", min=0, max=1000, help="How many of the newest.")] = 20,
    payloads: Annotated[bool, typer.Option("--payloads", help="With the bodies as received.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show one context: summary, importance, entities, events.

    Example: `webhook-cli contexts get github:octo/hello:issue:7 --json | jq .enrichment.summary`
    """

    async def work(door: Door) -> context_pb2.Context:
        return await get_context(door, context_id, tenant=tenant, max_events=events or -1, payloads=payloads)

    context = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(context))
    else:
        out = console()
        out.print(card(context), width=min(out.width, _CARD_WIDTH))


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    tool: Tools = None,
    kind: Kinds = None,
    label: Labels = None,
    tier: Tiers = None,
    min_importance: Importance = 0.0,
    limit: Limit = 50,
    page_token: PageToken = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """List contexts, newest change first.

    Example: `webhook-cli contexts list --tool github --kind pull_request --min-importance 0.5`
    """
    request = context_service_pb2.ListContextsRequest(
        tenant=tenant,
        page_size=limit,
        page_token=page_token,
        filter=_filter(tool, kind, label, tier, min_importance),
    )

    async def work(door: Door) -> context_service_pb2.ListContextsResponse:
        async with door.open("context") as channel:
            return await context_service_pb2_grpc.ContextServiceStub(channel).ListContexts(request)

    page = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(page))
        return
    rows = [_row(context) for context in page.contexts]
    out = console()
    out.print(table(("context", "state", "title", "events", "importance", "changed"), rows))
    if not rows:
        out.print("No context yet. Try `webhook-cli send github`.")
    print_way_on(out, page)


@app.command()
def search(
    ctx: typer.Context,
    *,
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    tool: Tools = None,
    kind: Kinds = None,
    label: Labels = None,
    tier: Tiers = None,
    min_importance: Importance = 0.0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 10,
    page_token: PageToken = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Find contexts by meaning and by words together, best first.

    Example: `webhook-cli contexts search "customers cannot pay"`
    """

    async def work(door: Door) -> context_service_pb2.SearchContextsResponse:
        return await search_contexts(
            door,
            query,
            tenant=tenant,
            limit=limit,
            page_token=page_token,
            only=_filter(tool, kind, label, tier, min_importance),
        )

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    rows = [
        (
            f"{match.score:.3f}",
            f"{match.similarity:.2f}",
            match.context.context_id,
            _first_line(match.context.title),
            gist(match),
        )
        for match in found.matches
    ]
    out = console()
    out.print(table(("score", "similarity", "context", "title", "because"), rows))
    if not rows:
        out.print("Nothing like that.")
    if found.index_incomplete:
        held = f"{found.indexed_count:,} of {found.context_count:,}"
        out.print(f"The search index is still being built: it holds {held} contexts.")
    print_way_on(out, found)


@app.command()
def patch(
    ctx: typer.Context,
    *,
    context_id: Annotated[str, typer.Argument(help="Such as github:octo/hello:issue:7.")],
    merge_patch: Annotated[str, typer.Argument(metavar="JSON", help="A JSON merge patch (RFC 7396).")],
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Change title, labels, pinned or attributes of one context.

    Example: `webhook-cli contexts patch github:octo/hello:issue:7 '{"pinned": true, "labels": ["vip"]}'`
    """
    request = context_service_pb2.PatchContextRequest(
        context_id=context_id, tenant=tenant, merge_patch_json=merge_patch, request_id=str(uuid.uuid4())
    )

    async def work(door: Door) -> context_pb2.Context:
        async with door.open("context") as channel:
            answer = await context_service_pb2_grpc.ContextServiceStub(channel).PatchContext(request)
        return answer.context

    context = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(context))
    else:
        out = console()
        out.print(card(context), width=min(out.width, _CARD_WIDTH))


@app.command()
def revisions(
    ctx: typer.Context,
    *,
    context_id: Annotated[str, typer.Argument(help="Such as github:octo/hello:issue:7.")],
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show what was changed by hand, the newest first.

    Example: `webhook-cli contexts revisions github:octo/hello:issue:7`
    """
    request = context_service_pb2.ListRevisionsRequest(context_id=context_id, tenant=tenant)

    async def work(door: Door) -> context_service_pb2.ListRevisionsResponse:
        async with door.open("context") as channel:
            return await context_service_pb2_grpc.ContextServiceStub(channel).ListRevisions(request)

    page = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(page))
        return
    rows = [
        (
            one.version,
            moment(one.update_time),
            ", ".join(one.changed),
            _first_line(one.title),
            ", ".join(one.labels),
        )
        for one in page.revisions
    ]
    console().print(table(("version", "when", "changed", "title", "labels"), rows))


async def get_context(
    door: Door, context_id: str, *, tenant: str = DEFAULT_TENANT, max_events: int = 20, payloads: bool = False
) -> context_pb2.Context:
    """One context, or `Refused` with CONTEXT_NOT_FOUND."""
    request = context_service_pb2.GetContextRequest(
        context_id=context_id, tenant=tenant, max_events=max_events, include_payloads=payloads
    )
    async with door.open("context") as channel:
        answer = await context_service_pb2_grpc.ContextServiceStub(channel).GetContext(request)
    return answer.context


async def search_contexts(
    door: Door,
    query: str,
    *,
    tenant: str = DEFAULT_TENANT,
    limit: int = 10,
    page_token: str = "",
    only: context_service_pb2.ContextFilter | None = None,
) -> context_service_pb2.SearchContextsResponse:
    """Search by meaning and words; by words alone, said on standard error, where intelligence is away."""
    request = context_service_pb2.SearchContextsRequest(
        tenant=tenant, query=query, page_size=limit, page_token=page_token, filter=only
    )
    await embed(door, request, query, tenant)
    async with door.open("context") as channel:
        return await context_service_pb2_grpc.ContextServiceStub(channel).SearchContexts(request)


def card(context: context_pb2.Context) -> Panel:
    """One context as people read it."""
    enrichment = context.enrichment
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in (
        ("state", context.state),
        ("url", context.url),
        ("labels", ", ".join(context.labels)),
        ("people", ", ".join(context.actors)),
        ("links", "\n".join(f"{link.relation} {link.context_id}" for link in context.links)),
        ("summary", enrichment.summary or "not yet"),
        ("importance", _importance(enrichment)),
        ("entities", ", ".join(f"{entity.value} ({entity.kind})" for entity in enrichment.entities)),
        ("events", f"{context.event_count}, {enrichment.covered_event_count} of them in the summary"),
        ("attributes", context.attributes_json),
        ("tier", _tier(context)),
        ("changed", moment(context.update_time)),
    ):
        if value:
            facts.add_row(name, text(value))
    events = table(
        ("when", "what", "who", "text"),
        (
            (
                moment(event.occurred_time if event.HasField("occurred_time") else event.received_time),
                f"{event.type} {event.action}".strip(),
                event.actor,
                event.payload.decode("utf-8", "replace") if event.payload else _first_line(event.text),
            )
            for event in context.events
        ),
    )
    title = Text.assemble((context.title or context.kind or "context", "bold"), "  ", context.context_id)
    return Panel(Group(facts, *((Text(), events) if context.events else ())), title=title, title_align="left")


def gist(match: context_service_pb2.Match) -> str:
    """Why a match is one: the words that matched, else its summary."""
    return _first_line(match.highlight or match.context.enrichment.summary)


def _row(context: context_pb2.Context) -> tuple[str, ...]:
    importance = f"{context.enrichment.importance:.2f}" if context.HasField("enrichment") else "not yet"
    return (
        context.context_id,
        context.state,
        _first_line(context.title),
        str(context.event_count),
        importance,
        moment(context.update_time),
    )


def _tier(context: context_pb2.Context) -> str:
    name = context_pb2.Tier.Name(context.tier).removeprefix("TIER_").lower()
    return f"{name}, pinned" if context.pinned else name


def _importance(enrichment: context_pb2.Enrichment) -> str:
    if not enrichment.summary_model and not enrichment.importance_factors:
        return ""
    factors = ", ".join(
        f"{factor.name} {factor.contribution:+.2f}" for factor in enrichment.importance_factors
    )
    return f"{enrichment.importance:.2f}{f'  ({factors})' if factors else ''}"


def _first_line(value: str) -> str:
    line = value.strip().split("\n", 1)[0]
    return line if len(line) <= 120 else f"{line[:119]}…"


def _filter(
    tools: list[str] | None,
    kinds: list[str] | None,
    labels: list[str] | None,
    lying: Sequence[str] | None,
    min_importance: float,
) -> context_service_pb2.ContextFilter:
    return context_service_pb2.ContextFilter(
        tools=tools,
        kinds=kinds,
        labels=labels,
        tiers=[context_pb2.Tier.Value(f"TIER_{one.upper()}") for one in lying or ()],
        min_importance=min_importance,
    )
