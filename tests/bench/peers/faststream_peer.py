"""FastStream: a subscriber of a stream's group, 100 messages a read."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop
from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub
from stopwatch import AT_ONCE, BODY, COUNT, REDIS, stopwatch

STREAM = "faststream-events"
broker = RedisBroker(f"redis://{REDIS}", logger=None)
app = FastStream(broker, logger=None)


# From 0: by default a new group skips what was queued before it.
@broker.subscriber(stream=StreamSub(STREAM, group="g", consumer="one", max_records=AT_ONCE, last_id="0"))
async def handle(body: str) -> None:
    """Nothing but counting."""
    stopwatch.tick()


async def fill() -> None:
    """Queue all events."""
    async with RedisBroker(f"redis://{REDIS}", logger=None) as producer:
        for _ in range(0, COUNT, AT_ONCE):
            await asyncio.gather(*(producer.publish(BODY, stream=STREAM) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    logging.disable()
    uvloop.run(fill() if sys.argv[1] == "fill" else app.run())
