"""Puts contexts into the store, and what makes them findable."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from webhook.context.v1.context_pb2 import Context, EmbeddingModel, Enrichment
from webhook.context.v1.context_service_pb2 import AppendEventsRequest, UpdateContextRequest

from tests.bench.consume.corpus import Payload
from tests.bench.context.corpus import DIMENSION, TENANT, Vectors, appends, context_id, vectors
from tests.bench.context.house import House
from tests.bench.context.pace import rate_of

# So many payloads are made; contexts share them in turn, each sealed for itself.
DISTINCT = 2_000
APPENDS_AT_ONCE = 100
CALLS_AT_ONCE = 4
WARM_UP = 2_000
MODEL = EmbeddingModel(provider="bench", name="topics", dimension=DIMENSION)


async def used_memory_bytes(house: House) -> float:
    """What Redis' data takes."""
    return float((await house.store.client.info("memory"))["used_memory"])


async def fill(house: House, made: list[Payload], count: int) -> dict[str, Any]:
    """Make the contexts. How fast that went, and what one takes in Redis before it is enriched."""
    before = await used_memory_bytes(house)

    async def append(number: int) -> None:
        first = number * APPENDS_AT_ONCE
        request = AppendEventsRequest(appends=appends(made, first, min(APPENDS_AT_ONCE, count - first)))
        for result in (await house.contexts.AppendEvents(request)).results:
            assert not result.status.code, result.status

    batches = -(-count // APPENDS_AT_ONCE)
    rate = await rate_of(append, count=batches, at_once=CALLS_AT_ONCE)
    await asyncio.sleep(0.1)
    return {
        "append_per_s": round(rate * count / batches),
        "bytes_per_new_context": round((await used_memory_bytes(house) - before) / count),
    }


async def enrich(house: House, count: int) -> Vectors:
    """Give every context its vector, as the consumer would. The vectors, by number."""
    held = vectors(count)

    async def update(number: int) -> None:
        enrichment = Enrichment(
            summary=f"Issue {number} in short.", vector=held[number].tolist(), embedding_model=MODEL
        )
        context = Context(tenant=TENANT, context_id=context_id(number), enrichment=enrichment)
        await house.contexts.UpdateContext(
            UpdateContextRequest(context=context, update_mask=FieldMask(paths=["enrichment"]))
        )

    await rate_of(update, count=count)
    return held
