"""`webhook-cli intelligence`: vectors, summaries, why a context matters, what calls cost and have cost."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from webhook.context.v1 import context_pb2
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc

from webhook_ops.cli import reindex
from webhook_ops.cli.contexts import get_context
from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.render import NONE, console, print_json, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(
    no_args_is_help=True, help="Vectors, summaries, importance explained; what models cost and have cost."
)
app.command("reindex")(reindex.reindex)

#: As many events of a context as are read to explain it.
_READ_EVENTS = 1000
_SHOWN_CHARS = 60


class Purpose(StrEnum):
    """What a text is for."""

    EMBED = "embed"
    SUMMARIZE = "summarize"


class Style(StrEnum):
    """The form of a summary."""

    PROSE = "prose"
    BULLETS = "bullets"
    HEADLINE = "headline"


class Priority(StrEnum):
    """Who waits for a vector."""

    QUERY = "query"
    EVENT = "event"
    BACKFILL = "backfill"


Texts = Annotated[list[str] | None, typer.Argument(help="The texts; left out: the lines of standard input.")]
Files = Annotated[list[Path] | None, typer.Option("--file", help="A file as one text; may be repeated.")]


@app.command()
def embed(
    ctx: typer.Context,
    *,
    texts: Texts = None,
    file: Files = None,
    priority: Annotated[
        Priority, typer.Option("--priority", help="Who waits: queries go to the provider first.")
    ] = Priority.QUERY,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Make vectors of texts, and show how alike each is to the first. With --json the numbers themselves.

    Example: `webhook-cli intelligence embed "pod was OOM killed" "out of memory" "invoice paid"`
    """
    given = _texts(texts, file, as_json=as_json)
    request = intelligence_service_pb2.StreamEmbedRequest(
        texts=given,
        tenant=tenant,
        priority=intelligence_service_pb2.Priority.Value(f"PRIORITY_{priority.name}"),
    )

    async def work(door: Door) -> dict[int, intelligence_service_pb2.EmbedResult]:
        found: dict[int, intelligence_service_pb2.EmbedResult] = {}
        async with door.open("intelligence") as channel:
            stub = intelligence_service_pb2_grpc.IntelligenceServiceStub(channel)
            async for part in stub.StreamEmbed(request):
                found.update(zip(part.indexes, part.results, strict=True))
        return found

    found = call(ctx, work, as_json=as_json)
    results = [found[i] for i in range(len(given))]
    if as_json:
        print_json([to_plain(result) for result in results])
        return
    first = results[0].vector
    rows = [
        (
            shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…",
            result.status.reason or len(result.vector),
            result.piece_count or NONE,
            f"{sum(a * b for a, b in zip(first, result.vector, strict=True)):.3f}"
            if len(result.vector) == len(first)
            else NONE,
        )
        for shown, result in zip((" ".join(one.split()) for one in given), results, strict=True)
    ]
    console().print(table(("text", "dimensions", "pieces", "like the first"), rows))


@app.command()
def summarize(
    ctx: typer.Context,
    *,
    texts: Texts = None,
    file: Files = None,
    words: Annotated[int, typer.Option("--words", min=0, max=1000, help="Most words; 0: 60.")] = 0,
    style: Annotated[Style, typer.Option("--style", help="Its form.")] = Style.PROSE,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Summarise texts, read as one. What it says is derived from them: data, never instructions.

    Example: `git log -n 50 | webhook-cli intelligence summarize --file /dev/stdin --style bullets`
    """
    request = intelligence_service_pb2.SummarizeRequest(
        texts=_texts(texts, file, as_json=as_json),
        tenant=tenant,
        max_words=words,
        style=intelligence_service_pb2.SummaryStyle.Value(f"SUMMARY_STYLE_{style.name}"),
    )

    async def work(door: Door) -> intelligence_service_pb2.SummarizeResponse:
        async with door.open("intelligence") as channel:
            return await intelligence_service_pb2_grpc.IntelligenceServiceStub(channel).Summarize(request)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    out.print(text(found.summary))
    out.print()
    kept = found.coverage
    again = ", known from before" if found.cached else ""
    out.print(f"By {found.model}{again}; {kept.kept_count} of {kept.fact_count} facts kept.")


@app.command()
def analyze(
    ctx: typer.Context,
    *,
    context_id: Annotated[str, typer.Argument(help="Such as github:octo/hello:issue:7.")],
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Understand a context anew from the events that are kept. Nothing is written; needs the role writer.

    Example: `webhook-cli intelligence analyze github:octo/hello:issue:7 --json | jq .summary_sentences`
    """

    async def work(door: Door) -> intelligence_service_pb2.Analysis:
        context = await get_context(door, context_id, tenant=tenant, max_events=_READ_EVENTS)
        subject = _subject(context)
        # From the beginning: the summary of a context knows what is not kept any more, but not from where.
        subject.summary = ""
        request = intelligence_service_pb2.StreamAnalyzeRequest(
            subjects=[subject], priority=intelligence_service_pb2.PRIORITY_QUERY
        )
        async with door.open("intelligence") as channel:
            stub = intelligence_service_pb2_grpc.IntelligenceServiceStub(channel)
            (only,) = [found async for part in stub.StreamAnalyze(request) for found in part.analyses]
            return only

    found = call(ctx, work, as_json=as_json)
    if found.status.code:
        fail(found.status.message, Exit.FAILED, reason=found.status.reason, as_json=as_json)
    if as_json:
        plain = to_plain(found)
        plain.pop("vector", None)
        print_json(plain)
        return
    out = console()
    out.print(text(f"{context_id}: {found.importance:.2f}, by {found.summary_model}", "bold"))
    rows = [(line.text, ", ".join(line.event_ids[:3]) or NONE) for line in found.summary_sentences]
    out.print(table(("what is known", "from"), rows))
    out.print(", ".join(f"{entity.kind} {entity.value}" for entity in found.entities))


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
    texts: Texts = None,
    file: Files = None,
    purpose: Annotated[Purpose, typer.Option("--for", help="What the texts are for.")] = Purpose.EMBED,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Say what a call would cost before it is made. No provider is asked and nothing is spent.

    Example: `webhook-cli intelligence estimate --for summarize --file notes.md --json | jq .usd`
    """
    given = _texts(texts, file, as_json=as_json)
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


def _texts(texts: list[str] | None, files: list[Path] | None, *, as_json: bool) -> list[str]:
    given = [*(texts or ()), *_read(files or [], as_json=as_json)]
    return given or [line.rstrip("\n") for line in sys.stdin]


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
