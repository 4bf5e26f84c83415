"""The cache of vectors: who looks at the same time looks together."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import numpy as np
from webhook_intelligence.embeddings.cache import EmbeddingCache
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel
from webhook_shared.redis import Client


async def looks(redis: Client) -> int:
    """How many MGETs the server has seen."""
    stats: Any = await redis.info("commandstats")
    return int(stats.get("cmdstat_mget", {"calls": 0})["calls"])


async def test_callers_that_look_at_the_same_time_share_round_trips(redis: Client) -> None:
    cache = EmbeddingCache(redis, EmbeddingModel("local", "a", "r", 4), timedelta(hours=1))
    keys = [cache.key("acme", f"text {i}") for i in range(100)]
    unit = np.array([1, 0, 0, 0], np.float32)
    await cache.keep({key: Embedding(unit, tokens=1) for key in keys[:50]})
    before = await looks(redis)
    found = await asyncio.gather(*(cache.find([key]) for key in keys))
    assert await looks(redis) - before <= 5
    assert [one is not None for (one,) in found] == [True] * 50 + [False] * 50


async def test_whoever_gives_up_leaves_the_others_alone(redis: Client) -> None:
    cache = EmbeddingCache(redis, EmbeddingModel("local", "a", "r", 4), timedelta(hours=1))
    key = cache.key("acme", "text")
    await cache.keep({key: Embedding(np.array([1, 0, 0, 0], np.float32), tokens=1)})
    first, second, third = (asyncio.create_task(cache.find([key])) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    (found,) = await third
    assert found is not None
    (again,) = await cache.find([key])
    assert again is not None
