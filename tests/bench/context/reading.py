"""Hot contexts: one at a time at a pace, compare-and-set, as many as go, in batches."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from webhook.context.v1.context_pb2 import Context
from webhook.context.v1.context_service_pb2 import (
    BatchGetContextsRequest,
    GetContextRequest,
    UpdateContextRequest,
)

from tests.bench.context.corpus import SEED, TENANT, context_id
from tests.bench.context.house import House
from tests.bench.context.pace import paced, quantile_ms, rate_of

PACE_PER_S = 1000
PACED_CALLS = 10_000
GETS = 10_000
BATCH = 100
BATCHES = 300
BATCHES_AT_ONCE = 4


def get_request(number: int) -> GetContextRequest:
    """Of a context with all of its events and their payloads."""
    return GetContextRequest(
        tenant=TENANT, context_id=context_id(number), max_events=100, include_payloads=True
    )


async def measure(house: House, contexts: int) -> dict[str, Any]:
    """The figures."""
    chance = random.Random(SEED)
    order = [chance.randrange(contexts) for _ in range(PACED_CALLS)]
    distinct = chance.sample(range(contexts), min(contexts, PACED_CALLS))
    etags: dict[int, str] = {}

    async def get(at: int) -> None:
        found = (await house.contexts.GetContext(get_request(order[at % len(order)]))).context
        assert found.events

    async def learn(at: int) -> None:
        etags[distinct[at]] = (await house.contexts.GetContext(get_request(distinct[at]))).context.etag

    async def put(at: int) -> None:
        number = distinct[at]
        context = Context(tenant=TENANT, context_id=context_id(number), title=f"Issue {number}, once more")
        await house.contexts.UpdateContext(
            UpdateContextRequest(context=context, update_mask=FieldMask(paths=["title"]), etag=etags[number])
        )

    async def batch(at: int) -> None:
        ids = [context_id(chance.randrange(contexts)) for _ in range(BATCH)]
        request = BatchGetContextsRequest(
            tenant=TENANT, context_ids=ids, max_events=100, include_payloads=True
        )
        assert len((await house.contexts.BatchGetContexts(request)).results) == BATCH

    await rate_of(get, count=GETS // 4)
    gets = await paced(get, count=PACED_CALLS, rate_per_s=PACE_PER_S)
    await rate_of(learn, count=len(distinct))
    puts = await paced(put, count=len(distinct), rate_per_s=PACE_PER_S)
    throughput = await rate_of(get, count=GETS)
    batched = await rate_of(batch, count=BATCHES, at_once=BATCHES_AT_ONCE)
    return {
        "hot_get_p50_ms": quantile_ms(gets, 0.5),
        "hot_get_p99_ms": quantile_ms(gets, 0.99),
        "cas_p50_ms": quantile_ms(puts, 0.5),
        "cas_p99_ms": quantile_ms(puts, 0.99),
        "get_per_s": round(throughput),
        "batch_get_per_s": round(batched * BATCH),
    }
