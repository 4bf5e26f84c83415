"""`webhook-cli contexts window` and `neighbors`: what belongs to a context, for a prompt and as a list."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.questions import embed
from webhook_ops.cli.render import console, print_json, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT
from webhook_ops.plain_text import visible

_SECTIONS = {
    "pinned": pb.WINDOW_SECTION_PINNED,
    "summary": pb.WINDOW_SECTION_SUMMARY,
    "recent": pb.WINDOW_SECTION_RECENT,
    "retrieved": pb.WINDOW_SECTION_RETRIEVED,
}
_DIRECTIONS = {
    "both": pb.LINK_DIRECTION_UNSPECIFIED,
    "out": pb.LINK_DIRECTION_OUT,
    "in": pb.LINK_DIRECTION_IN,
}
_HELP = "Of pinned, summary, recent or retrieved; may repeat."
Floor = Annotated[list[str] | None, typer.Option("--floor", metavar="SECTION=TOKENS", help=_HELP)]
Ceiling = Annotated[list[str] | None, typer.Option("--ceiling", metavar="SECTION=TOKENS", help=_HELP)]


def window(
    ctx: typer.Context,
    *,
    context_id: Annotated[str, typer.Argument(help="What it is about; without it, the best match.")] = "",
    query: Annotated[str, typer.Option("--query", help="A question, in plain words.")] = "",
    budget: Annotated[int, typer.Option("--budget", min=1, max=1_000_000, help="Tokens.")] = 4000,
    floor: Floor = None,
    ceiling: Ceiling = None,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Assemble what to put before a model: the window on standard output, what it holds on standard error.

    The same contexts give the same window.

    Examples:
    - `webhook-cli contexts window github:octo/hello:issue:7 --budget 2000 --floor retrieved=500`

    - `webhook-cli contexts window --query "why do payments fail" > window.jsonl`
    """
    request = pb.AssembleWindowRequest(
        tenant=tenant,
        context_id=context_id,
        query=query,
        token_budget=budget,
        limits=_limits(floor or [], ceiling or [], as_json=as_json),
    )

    async def work(door: Door) -> pb.AssembleWindowResponse:
        if query:
            await embed(door, request, query, tenant)
        async with door.open("context") as channel:
            return await ContextServiceStub(channel).AssembleWindow(request)

    made = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(made))
        return
    # A terminal obeys more than JSON escapes.
    sys.stdout.write(visible(made.text, keep="\n") if sys.stdout.isatty() else made.text)
    sys.stdout.flush()
    told = console(stderr=True)
    rows = [
        (_section_name(use.section), use.token_count, use.part_count, use.left_out_count)
        for use in made.sections
    ]
    told.print(table(("section", "tokens", "parts", "left out"), rows))
    told.print(text(f"{made.token_count} of {budget} tokens"))
    if made.index_incomplete:
        told.print("The search index is still being built: something may be missing.")


def neighbors(
    ctx: typer.Context,
    *,
    context_id: Annotated[str, typer.Argument(help="Such as github:octo/hello:pull_request:7.")],
    direction: Annotated[str, typer.Option("--direction", help="out, in or both.")] = "both",
    relation: Annotated[
        list[str] | None, typer.Option("--relation", help="Only this: fixes, part_of...; may repeat.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 50,
    page_token: Annotated[
        str, typer.Option("--page-token", help="Go on where the page before said so.")
    ] = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show what a context is tied to, and what names it.

    Example: `webhook-cli contexts neighbors github:octo/hello:pull_request:7 --direction out`
    """
    if direction not in _DIRECTIONS:
        fail("--direction is out, in or both", Exit.USAGE, reason="USAGE", as_json=as_json)
    request = pb.ListNeighborsRequest(
        context_id=context_id,
        tenant=tenant,
        direction=_DIRECTIONS[direction],
        relations=relation,
        page_size=limit,
        page_token=page_token,
    )

    async def work(door: Door) -> pb.ListNeighborsResponse:
        async with door.open("context") as channel:
            return await ContextServiceStub(channel).ListNeighbors(request)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    rows = [
        (
            "→" if one.direction == pb.LINK_DIRECTION_OUT else "←",
            one.relation,
            one.context_id,
            one.context.title if one.HasField("context") else "not heard of yet",
        )
        for one in found.neighbors
    ]
    out = console()
    out.print(table(("", "relation", "context", "title"), rows))
    if found.index_incomplete:
        out.print("The search index is still being built: something may be missing.")
    if found.next_page_token:
        out.print(text(f"more: --page-token {found.next_page_token}"))


def _limits(floors: list[str], ceilings: list[str], *, as_json: bool) -> list[pb.SectionLimits]:
    limits: dict[str, pb.SectionLimits] = {}
    for given, field in ((floors, "floor_tokens"), (ceilings, "ceiling_tokens")):
        for one in given:
            name, _, tokens = one.partition("=")
            if name not in _SECTIONS or not tokens.isdigit() or len(tokens) > 7:
                fault = f"{one!r} is not SECTION=TOKENS; sections are {', '.join(_SECTIONS)}"
                fail(fault, Exit.USAGE, reason="USAGE", as_json=as_json)
            limit = limits.setdefault(name, pb.SectionLimits(section=_SECTIONS[name]))
            setattr(limit, field, int(tokens))
    return list(limits.values())


def _section_name(section: pb.WindowSection.ValueType) -> str:
    return next(name for name, value in _SECTIONS.items() if value == section)
