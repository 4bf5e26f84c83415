"""One of several processes that empty the queue: `python -m tests.bench.consume.process HOST:PORT`.

Says so when it is ready, begins when it is told to, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from webhook_shared import redis as store
from webhook_shared.process import collect_garbage_seldom
from webhook_shared.settings import RedisSection

from tests.bench.consume.house import working


async def work(address: str) -> None:
    """Work until the input ends."""
    settings = RedisSection(addresses=(address,))
    client = store.connect(settings)
    collect_garbage_seldom()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with working(settings, client):
        await asyncio.to_thread(sys.stdin.read)
    await client.aclose()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1]))
