"""Events per second out of the queue: `python -m tests.bench.consume`.

Seals real-shaped events into the stream of a server with an append-only file, then has one process read,
open (decrypt, decompress, decode), acknowledge and delete them, with the consumer's own worker and
nothing to do for each event but that.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from pydantic import SecretStr
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer import metrics
from webhook_consumer.entry import DONE, Entry, Outcome
from webhook_consumer.opener import Opener
from webhook_consumer.queue_redis import RedisQueue
from webhook_consumer.retry import RetryPolicy
from webhook_consumer.settings import ConsumerSection
from webhook_consumer.wiring import event_limits, lanes
from webhook_consumer.worker import Worker
from webhook_shared import redis as store
from webhook_shared.envelope import Keyring
from webhook_shared.process import collect_garbage_seldom
from webhook_shared.redis import Client

from conftest import RedisServer
from tests.bench.consume.corpus import TENANT, Payload, entries, payloads
from tests.bench.report import report

EVENTS = 200_000
DISTINCT_PAYLOADS = 2_000
QUEUED_AT_ONCE = 500
MASTER = SecretStr("a-master-key-for-measuring-only-0123456789")


class Opening:
    """Stage one without its effect: the event is opened, and that is all."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self.opened = 0

    async def handle(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        """DONE for what is an event."""
        outcomes: list[Outcome] = []
        for opened in await self._opener.open(batch):
            if isinstance(opened, WebhookEvent):
                self.opened += 1
                outcomes.append(DONE)
            else:
                outcomes.append(opened)
        return outcomes


async def fill(client: Client, bodies: Sequence[Payload], count: int, stream: str) -> float:
    """Queue the events. Returns the bytes that one of them takes in the server's memory."""
    keyring = Keyring(client, MASTER)
    await keyring.prepare([TENANT])
    before = (await client.info("memory"))["used_memory"]
    waiting = 0
    pipeline = client.pipeline(transaction=False)
    for fields in entries(keyring, bodies, count):
        pipeline.execute_command("XADD", stream, "*", *[part for field in fields.items() for part in field])
        waiting += 1
        if waiting == QUEUED_AT_ONCE:
            await pipeline.execute()
            waiting = 0
    await pipeline.execute()
    after = (await client.info("memory"))["used_memory"]
    return float(after - before) / count


async def work_off(server: RedisServer, client: Client, count: int) -> tuple[float, float]:
    """Have one worker empty the stream. Returns wall time and this process's CPU time, seconds."""
    consumer = ConsumerSection()
    lane = lanes(consumer)[0]
    block_s = consumer.block_timeout.total_seconds()
    blocking = store.connect(server.settings, block_s=block_s)
    queue = RedisQueue(
        lane, client, blocking, block_ms=int(block_s * 1000), lease_ms=event_limits(consumer, 10).idle_ms
    )
    handler = Opening(Opener(Keyring(client, MASTER)))
    policy = RetryPolicy(consumer.max_retries, 1, 60)
    collect_garbage_seldom()
    began, began_cpu = time.perf_counter(), time.process_time()
    async with Worker(queue, handler, event_limits(consumer, 10), policy, metrics.EVENTS):
        while handler.opened < count or await client.xlen(lane.stream):
            await asyncio.sleep(0.01)
        took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    assert handler.opened == count, f"{handler.opened} opened, {count} queued"
    assert not await client.xlen(lane.dead_letters)
    await blocking.aclose()
    return took, took_cpu


async def measure(count: int, rounds: int) -> None:
    """Fill and empty the queue several times, and report the medians."""
    bodies = payloads(DISTINCT_PAYLOADS)
    consumer = ConsumerSection()
    figures: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="webhook-bench-") as directory:
        server = RedisServer(Path(directory), appendfsync="everysec")
        server.start()
        await server.answering()
        client = store.connect(server.settings)
        for number in range(rounds):
            await client.flushall()
            size = await fill(client, bodies, count, consumer.stream)
            took, took_cpu = await work_off(server, client, count)
            figures.append(
                {
                    "events_per_s": count / took,
                    "cpu_us_per_event": took_cpu / count * 1e6,
                    "bytes_per_queued_event": size,
                }
            )
            print(f"round {number + 1} of {rounds}: {count / took:,.0f} events/s", flush=True)
        await client.aclose()
        server.kill()
    report(
        "consume",
        {name: round(statistics.median(each[name] for each in figures), 1) for name in figures[0]},
        settings={
            "events": count,
            "processes": 1,
            "num_workers": consumer.num_workers,
            "batch_size": consumer.batch_size,
            "prefetch_count": consumer.prefetch_count,
            "appendfsync": "everysec",
        },
        payloads={
            "package": "@octokit/webhooks-examples",
            "events": len({payload.type for payload in bodies}),
            "distinct": len(bodies),
            "median_bytes": int(statistics.median(len(payload.body) for payload in bodies)),
            "largest_bytes": max(len(payload.body) for payload in bodies),
            "varied": "hashes, ids, times and names, the same within a payload",
        },
        rounds=figures,
    )


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=int(os.environ.get("BENCH_EVENTS", EVENTS)))
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    uvloop.run(measure(chosen.events, chosen.rounds))


if __name__ == "__main__":
    main()
