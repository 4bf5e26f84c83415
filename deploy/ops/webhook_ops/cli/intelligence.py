"""`webhook-cli intelligence`: why a context matters, what calls would cost, what was spent."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from webhook.context.v1 import context_pb2
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc

from webhook_ops.cli.contexts import get_context
from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.render import NONE, console, print_json, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Importance explained; what models cost and have cost.")

#: As many events of a context as are read to explain it.
_READ_EVENTS = 1000


class Purpose(StrEnum):
    """What a text is for."""

    EMBED = "embed"
    SUMMARIZE = "summarize"


@app.command()
def explain(
    ctx: typer.Context,
    *,
    context_id: Annotated[
        str, typer.Argument(help="Such as github:octo/hello:issue:7; left out: the features as such.")
    ] = "",
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show what a context's importance is made of: each feature, its weight, what it was read from.

    Read from the events that are kept; the importance that stands in the context was made as they came.

    Example: `webhook-cli intelligence explain github:octo/hello:issue:7`
    """

    async def work(door: Door) -> intelligence_service_pb2.ExplainResponse:
        request = intelligence_service_pb2.ExplainRequest()
        if context_id:
            context = await get_context(door, context_id, tenant=tenant, max_events=_READ_EVENTS)
            request.subject.CopyFrom(_subject(context))
        async with door.open("intelligence") as channel:
            return await intelligence_service_pb2_grpc.IntelligenceServiceStub(channel).Explain(request)

    explained = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(explained))
        return
    out = console()
    if context_id:
        out.print(text(f"{context_id}: {explained.importance:.2f}", "bold"))
    rows = [
        (
            feature.name,
            f"{feature.contribution:+.3f}",
            f"{feature.value:.2f}",
            f"{feature.weight:.2f}",
            ", ".join(feature.evidence) if context_id else feature.description,
        )
        for feature in explained.features
    ]
    last = "read from" if context_id else "what it is"
    out.print(table(("feature", "adds", "value", "weight", last), rows))
    out.print(f"The wording of senders adds {explained.text_share:.2f} at most.")


@app.command()
def estimate(
    ctx: typer.Context,
    *,
    texts: Annotated[
        list[str] | None, typer.Argument(help="The texts; left out: the lines of standard input.")
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="A file as one text; may be repeated.")
    ] = None,
    purpose: Annotated[Purpose, typer.Option("--for", help="What the texts are for.")] = Purpose.EMBED,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Say what a call would cost before it is made. No provider is asked and nothing is spent.

    Example: `webhook-cli intelligence estimate --for summarize --file notes.md --json | jq .usd`
    """
    given = [*(texts or ()), *_read(file or [], as_json=as_json)]
    given = given or [line.rstrip("\n") for line in sys.stdin]
    request = intelligence_service_pb2.EstimateRequest()
    if purpose is Purpose.EMBED:
        request.embed.CopyFrom(intelligence_service_pb2.EmbedRequest(texts=given, tenant=tenant))
    else:
        request.summarize.CopyFrom(intelligence_service_pb2.SummarizeRequest(texts=given, tenant=tenant))

    async def work(door: Door) -> intelligence_service_pb2.EstimateResponse:
        async with door.open("intelligence") as channel:
            return await intelligence_service_pb2_grpc.IntelligenceServiceStub(channel).Estimate(request)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    rows = [
        (
            cost.model.name,
            cost.purpose,
            cost.input_tokens,
            cost.output_tokens,
            cost.cached_count,
            _usd(cost.usd) if cost.priced else "no price known",
        )
        for cost in found.costs
    ]
    out = console()
    out.print(table(("model", "for", "tokens sent", "tokens made", "known already", "cost"), rows))
    if not found.within_budget:
        out.print("The tenant's budget does not hold this call.")


@app.command()
def spending(
    ctx: typer.Context,
    *,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How far back, today included.")] = 7,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show what a tenant has spent, by day, model and purpose, and what is left of its budget.

    Example: `webhook-cli intelligence spending --days 30 --json | jq '[.spendings[].usd] | add'`
    """
    request = intelligence_service_pb2.GetSpendingRequest(tenant=tenant, days=days)

    async def work(door: Door) -> intelligence_service_pb2.GetSpendingResponse:
        async with door.open("intelligence") as channel:
            return await intelligence_service_pb2_grpc.IntelligenceServiceStub(channel).GetSpending(request)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    rows = [
        (line.day, line.model, line.purpose, line.input_tokens, line.output_tokens, _usd(line.usd))
        for line in found.spendings
    ]
    out = console()
    out.print(table(("day", "model", "for", "tokens sent", "tokens made", "cost"), rows))
    budget = found.budget
    limits = [
        ("dollars today", _usd(budget.spent_today_usd), _limit(budget.daily_usd)),
        ("dollars this month", _usd(budget.spent_this_month_usd), _limit(budget.monthly_usd)),
        ("tokens today", budget.spent_today_tokens, budget.daily_tokens or NONE),
    ]
    out.print()
    out.print(table(("budget", "spent", "of"), limits))


def _subject(context: context_pb2.Context) -> intelligence_service_pb2.Subject:
    return intelligence_service_pb2.Subject(
        tenant=context.tenant,
        context_id=context.context_id,
        title=context.title,
        summary=context.enrichment.summary,
        event_count=context.event_count,
        happenings=[
            intelligence_service_pb2.Happening(
                event_id=event.event_id,
                kind=context.kind,
                action=event.action,
                actor=event.actor,
                text=event.text,
            )
            for event in context.events
        ],
    )


def _read(files: list[Path], *, as_json: bool) -> list[str]:
    found = []
    for file in files:
        try:
            found.append(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            fail(f"{file} can't be read: {why}", Exit.FAILED, reason="FILE_UNREADABLE", as_json=as_json)
    return found


def _usd(amount: float) -> str:
    return f"${amount:.6f}".rstrip("0").rstrip(".")


def _limit(amount: float) -> str:
    return _usd(amount) if amount else NONE
