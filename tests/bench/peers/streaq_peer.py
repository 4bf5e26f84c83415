"""streaQ, 100 tasks at once."""

from __future__ import annotations

import sys

import uvloop
from stopwatch import AT_ONCE, BODY, COUNT, REDIS, stopwatch
from streaq import Worker

worker = Worker(redis_url=f"redis://{REDIS}", concurrency=AT_ONCE, handle_signals=False)


@worker.task(ttl=0)
async def handle(body: str) -> None:
    """Nothing but counting."""
    stopwatch.tick()


async def fill() -> None:
    """Queue all events."""
    async with worker:
        for _ in range(0, COUNT, AT_ONCE):
            await worker.enqueue_many([handle.enqueue(BODY) for _ in range(AT_ONCE)])


if __name__ == "__main__":
    uvloop.run(fill() if sys.argv[1] == "fill" else worker.run_async())
