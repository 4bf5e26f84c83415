"""Long work in portions, answered as they are ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from webhook_shared.tasks import ended

#: Portions under way at once: enough to fill a provider's batches, and no more than fits in memory.
AT_ONCE = 16

T = TypeVar("T")


async def as_ready(work: Callable[[range], Awaitable[T]], count: int, size: int) -> AsyncGenerator[T, None]:
    """What the work makes of each portion of so many items, the first that is ready first.

    Args:
        work: Takes the places of a portion.
        count: Of all items.
        size: Of a portion.
    """
    left = iter([range(at, min(at + size, count)) for at in range(0, count, size)])
    running: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(running) < AT_ONCE and (portion := next(left, None)) is not None:
                running.add(asyncio.create_task(_run(work, portion)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        await ended(running)


async def _run(work: Callable[[range], Awaitable[T]], portion: range) -> T:
    return await work(portion)
