"""Calls at a pace, and as many as go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

Call = Callable[[int], Awaitable[object]]

AT_ONCE = 64


async def paced(call: Call, *, count: int, rate_per_s: float) -> list[float]:
    """Start a call whenever one is due, however the others fare. Ordered times from due to done, seconds."""
    began_s = time.perf_counter()
    took_s: list[float] = []

    async def one(number: int, due_s: float) -> None:
        await call(number)
        took_s.append(time.perf_counter() - due_s)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due_s = began_s + number / rate_per_s
            if (ahead_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(ahead_s)
            group.create_task(one(number, due_s))
    return sorted(took_s)


async def rate_of(call: Call, *, count: int, at_once: int = AT_ONCE) -> float:
    """Calls per second with so many under way."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return count / (time.perf_counter() - began_s)


def quantile_ms(ordered_s: list[float], share: float) -> float:
    """Of ordered seconds, in milliseconds."""
    return round(ordered_s[min(len(ordered_s) - 1, int(len(ordered_s) * share))] * 1000, 2)
