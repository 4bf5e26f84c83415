"""How soon and how well contexts are found by their vectors."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from webhook.context.v1.context_service_pb2 import SearchContextsRequest

from tests.bench.context.corpus import TENANT, Vectors, context_id, vectors
from tests.bench.context.filling import MODEL
from tests.bench.context.house import House
from tests.bench.context.pace import quantile_ms

QUERIES = 300
FOUND = 10
INDEXED_WITHIN_S = 600.0
POLL_S = 0.5
OTHER_SEED = 12


async def measure(house: House, held: Vectors) -> dict[str, Any]:
    """Search one after another, and compare with looking at every vector."""
    asked = vectors(QUERIES, seed=OTHER_SEED)
    waited_s = await _indexed(house, asked[0])
    took_s: list[float] = []
    hits = 0
    for query in asked:
        began_s = asyncio.get_running_loop().time()
        response = await house.contexts.SearchContexts(_request(query))
        took_s.append(asyncio.get_running_loop().time() - began_s)
        best = {context_id(int(at)) for at in np.argpartition(held @ query, -FOUND)[-FOUND:]}
        hits += len(best & {match.context.context_id for match in response.matches})
    took_s.sort()
    return {
        "index_built_s": round(waited_s, 1),
        "search_p50_ms": quantile_ms(took_s, 0.5),
        "search_p99_ms": quantile_ms(took_s, 0.99),
        "recall_at_10": round(hits / (FOUND * QUERIES), 4),
        "context_service_memory_mb": round(house.process.memory_info().rss / 1e6),
    }


def _request(query: Vectors) -> SearchContextsRequest:
    return SearchContextsRequest(
        tenant=TENANT, query_vector=query.tolist(), query_model=MODEL, page_size=FOUND
    )


async def _indexed(house: House, query: Vectors) -> float:
    """Wait until the index knows everything; how long that took, seconds."""
    began_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(INDEXED_WITHIN_S):
        while (await house.contexts.SearchContexts(_request(query))).index_incomplete:
            await asyncio.sleep(POLL_S)
    return asyncio.get_running_loop().time() - began_s
