"""`webhook-cli intelligence reindex`: vectors of another model give way to those of the one in use."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

import grpc
import typer
from google.protobuf import field_mask_pb2
from rich.progress import Progress, SpinnerColumn, TextColumn
from webhook.context.v1 import context_pb2, context_service_pb2, context_service_pb2_grpc
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.render import console, print_json, table
from webhook_ops.delivery import DEFAULT_TENANT

_PAGE = 200

Pages = AsyncIterator[list[context_pb2.Context]]


def reindex(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0: all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Make anew the vectors that another model has made, newest change first. Needs the role writer.

    A search compares only vectors of the model in use; what has not moved yet is found by its words. It goes
    behind everything that somebody waits for. Ctrl-C ends it; what has moved has moved, and another run
    goes on.

    Example: `webhook-cli intelligence reindex --dry-run`
    """

    async def work(door: Door) -> Counter[str]:
        counts: Counter[str] = Counter(moved=0, current=0, changed=0, failed=0)
        async with door.open("context") as contexts, door.open("intelligence") as intelligence:
            move = _Move(contexts, intelligence, tenant)
            model = await move.model()
            with Progress(
                SpinnerColumn(), TextColumn("{task.description}"), console=console(), disable=as_json
            ) as progress:
                task = progress.add_task("")
                async for page in move.pages():
                    old = [one for one in page if _is_of_another(one, model)]
                    counts["current"] += len(page) - len(old)
                    if limit:
                        old = old[: limit - counts["moved"]]
                    if dry_run:
                        counts["moved"] += len(old)
                    elif old:
                        counts.update(await move.moved(old))
                    progress.update(task, description=f"{counts['moved']} moved, {counts['current']} current")
                    if limit and counts["moved"] >= limit:
                        break
        return counts

    counts = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(dict(counts))
        return
    said = {
        "moved": "would be moved" if dry_run else "moved to the model in use",
        "current": "of that model, or without a vector",
        "changed": "changed meanwhile: the consumer sees to them",
        "failed": "failed; run it again",
    }
    console().print(table(("contexts", ""), [(counts[name], what) for name, what in said.items()]))


class _Move:
    """The two services, for one tenant."""

    def __init__(self, contexts: grpc.aio.Channel, intelligence: grpc.aio.Channel, tenant: str) -> None:
        self._contexts = context_service_pb2_grpc.ContextServiceStub(contexts)
        self._intelligence = intelligence_service_pb2_grpc.IntelligenceServiceStub(intelligence)
        self._tenant = tenant

    async def model(self) -> intelligence_service_pb2.EmbeddingModel:
        """The model in use."""
        request = intelligence_service_pb2.EmbedRequest(texts=["-"], tenant=self._tenant)
        return (await self._intelligence.Embed(request)).model

    async def pages(self) -> Pages:
        """All contexts, newest change first; what is moved on the way goes to the front, behind us."""
        token = ""
        while True:
            request = context_service_pb2.ListContextsRequest(
                tenant=self._tenant, page_size=_PAGE, page_token=token
            )
            page = await self._contexts.ListContexts(request)
            yield list(page.contexts)
            token = page.next_page_token
            if not token:
                return

    async def moved(self, contexts: list[context_pb2.Context]) -> Counter[str]:
        """Embed and write back a page; how each of it went."""
        request = intelligence_service_pb2.StreamAnalyzeRequest(
            subjects=[
                intelligence_service_pb2.Subject(
                    tenant=self._tenant,
                    context_id=one.context_id,
                    title=one.title,
                    summary=one.enrichment.summary,
                    event_count=one.event_count,
                )
                for one in contexts
            ],
            priority=intelligence_service_pb2.PRIORITY_BACKFILL,
        )
        counts: Counter[str] = Counter()
        async for part in self._intelligence.StreamAnalyze(request):
            for at, analysis in zip(part.indexes, part.analyses, strict=True):
                if analysis.status.code:
                    counts["failed"] += 1
                else:
                    counts[await self._write(contexts[at], analysis, part.model)] += 1
        return counts

    async def _write(
        self,
        context: context_pb2.Context,
        analysis: intelligence_service_pb2.Analysis,
        model: intelligence_service_pb2.EmbeddingModel,
    ) -> str:
        """Only the vector is replaced, and only while the context is as it was read."""
        enrichment = context_pb2.Enrichment()
        enrichment.CopyFrom(context.enrichment)
        del enrichment.vector[:]
        enrichment.vector.extend(analysis.vector)
        enrichment.embedding_model.CopyFrom(
            context_pb2.EmbeddingModel(provider=model.provider, name=model.name, dimension=model.dimension)
        )
        request = context_service_pb2.UpdateContextRequest(
            context=context_pb2.Context(
                context_id=context.context_id, tenant=self._tenant, enrichment=enrichment
            ),
            update_mask=field_mask_pb2.FieldMask(paths=["enrichment"]),
            etag=context.etag,
            request_id=str(uuid.uuid4()),
        )
        try:
            await self._contexts.UpdateContext(request)
        except grpc.aio.AioRpcError as error:
            if error.code() in {grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND}:
                return "changed"
            raise
        return "moved"


def _is_of_another(context: context_pb2.Context, model: intelligence_service_pb2.EmbeddingModel) -> bool:
    by = context.enrichment.embedding_model
    made_by = (by.provider, by.name, by.dimension)
    return bool(by.name) and made_by != (model.provider, model.name, model.dimension)
