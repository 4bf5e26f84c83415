"""Warm and cold: sizes, and what a read costs there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from webhook.context.v1.context_admin_service_pb2 import ForceTransitionRequest, GetStatsRequest
from webhook.context.v1.context_pb2 import Tier
from webhook.context.v1.context_service_pb2 import ContextFilter

from tests.bench.context.corpus import TENANT
from tests.bench.context.filling import used_memory_bytes
from tests.bench.context.house import House
from tests.bench.context.pace import paced, quantile_ms
from tests.bench.context.reading import PACE_PER_S, get_request

WARMED = 10_000
CHILLED = 2_000
COLD_PACE_PER_S = 200
HOT, WARM, COLD = Tier.TIER_HOT, Tier.TIER_WARM, Tier.TIER_COLD


async def measure(house: House, contexts: int, hot_memory: float) -> dict[str, Any]:
    """Take some down to warm, read each once, take some of these down to cold, read each once.

    Args:
        house: With enriched contexts.
        contexts: How many.
        hot_memory: Bytes of Redis that each takes.
    """
    warmed, before = min(WARMED, contexts // 2), await used_memory_bytes(house)
    hot_bytes = 0
    moved = await _move(house, WARM, HOT, warmed)
    hot_bytes = sum(each.bytes_before for each in moved)
    await asyncio.sleep(1)
    warm_saved = (before - await used_memory_bytes(house)) / len(moved)
    stats = await _tier(house, WARM)
    warm = [_number(each.context_id) for each in moved]

    async def get(at: int) -> None:
        await house.contexts.GetContext(get_request(warm[at]))

    warm_s = await paced(get, count=len(warm), rate_per_s=PACE_PER_S)
    before = await used_memory_bytes(house)
    chilled = await _move(house, COLD, WARM, min(CHILLED, len(warm)))
    await asyncio.sleep(1)
    cold_saved = (before - await used_memory_bytes(house)) / len(chilled)
    cold = [_number(each.context_id) for each in chilled]

    async def get_cold(at: int) -> None:
        found = await house.contexts.GetContext(get_request(cold[at]))
        assert found.served_tier == COLD

    cold_s = await paced(get_cold, count=len(cold), rate_per_s=COLD_PACE_PER_S)
    store_s = await asyncio.to_thread(_read_directly, house.cold)
    return {
        "warm_ratio": round(stats.content_bytes / stats.stored_bytes, 2),
        "warm_from_hot_bytes": round(hot_bytes / len(moved)),
        "bytes_per_warm_context": round(hot_memory - warm_saved),
        "bytes_per_cold_context": round(hot_memory - warm_saved - cold_saved),
        "warm_get_p50_ms": quantile_ms(warm_s, 0.5),
        "warm_get_p99_ms": quantile_ms(warm_s, 0.99),
        "cold_get_p50_ms": quantile_ms(cold_s, 0.5),
        "cold_get_p99_ms": quantile_ms(cold_s, 0.99),
        "cold_store_p99_ms": quantile_ms(store_s, 0.99),
        "cold_overhead_ms": round(quantile_ms(cold_s, 0.99) - quantile_ms(store_s, 0.99), 2),
    }


async def _move(house: House, to: Tier.ValueType, out_of: Tier.ValueType, count: int) -> list[Any]:
    request = ForceTransitionRequest(
        tenant=TENANT, tier=to, filter=ContextFilter(tiers=[out_of]), max_contexts=count
    )
    moved = [each async for told in house.admin.ForceTransition(request) for each in told.transitions]
    assert moved, "nothing was moved"
    assert not any(each.status.code for each in moved), moved[0].status
    return moved


async def _tier(house: House, tier: Tier.ValueType) -> Any:
    [stats] = (await house.admin.GetStats(GetStatsRequest(tenant=TENANT))).tenants
    [found] = [each for each in stats.tiers if each.tier == tier]
    return found


def _number(name: str) -> int:
    return int(name.rpartition(":")[2])


def _read_directly(cold: Path) -> list[float]:
    took_s = []
    for file in (path for path in cold.rglob("*") if path.is_file()):
        began_s = time.perf_counter()
        file.read_bytes()
        took_s.append(time.perf_counter() - began_s)
    return sorted(took_s)
