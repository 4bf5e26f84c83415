"""The quarantine has an end: by age, by number, by memory; the oldest go first, and it is told."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from webhook_gateway.quarantine_bounds import QuarantineBounds
from webhook_gateway.settings import QuarantineSection

STREAM = "webhook-quarantine"
NOW_S = 1_800_000_000.0


def bounds(redis: Any, **section: Any) -> QuarantineBounds:
    return QuarantineBounds(redis, QuarantineSection(**section), clock=lambda: NOW_S)


async def keep(redis: Any, count: int, size_bytes: int = 10) -> None:
    for number in range(count):
        at_ms = round((NOW_S - 60 * (count - number)) * 1000)
        await redis.xadd(STREAM, {"id": number, "sealed": os.urandom(size_bytes)}, id=f"{at_ms}-0")


async def left(redis: Any) -> list[int]:
    return [int(fields[b"id"]) for _, fields in await redis.xrange(STREAM)]


def removed(bound: str) -> float:
    return REGISTRY.get_sample_value("webhook_quarantine_removed_total", {"bound": bound}) or 0.0


async def test_nothing_goes_within_the_bounds(redis: Any) -> None:
    assert await bounds(redis).apply() == {}
    await keep(redis, 5)
    assert await bounds(redis).apply() == {}
    assert await left(redis) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("bound", "section", "stay"),
    [
        ("age", {"max_age": timedelta(minutes=3)}, [7, 8, 9]),
        ("events", {"max_events": 4}, [6, 7, 8, 9]),
    ],
)
async def test_the_oldest_go(redis: Any, bound: str, section: dict[str, Any], stay: list[int]) -> None:
    before = removed(bound)
    await keep(redis, 10)
    assert await bounds(redis, **section).apply() == {bound: 10 - len(stay)}
    assert await left(redis) == stay
    assert removed(bound) == before + 10 - len(stay)


async def test_memory_is_bounded_too(redis: Any) -> None:
    await keep(redis, 30, size_bytes=100_000)
    found = await bounds(redis, max_bytes=2**20).apply()
    assert found["bytes"] >= 15
    stay = await left(redis)
    assert stay == list(range(30 - len(stay), 30))
    assert len(stay) >= 5
    assert await redis.memory_usage(STREAM, samples=0) <= 2**20


async def test_a_gateway_keeps_the_bounds(house_with: Any, redis: Any) -> None:
    await keep(redis, 10)
    async with house_with(quarantine=QuarantineSection(max_events=2, max_age=timedelta(days=10_000))):
        deadline = time.monotonic() + 5
        while len(await left(redis)) != 2:
            assert time.monotonic() < deadline
