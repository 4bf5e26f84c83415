"""What else is measured of the queue: several processes, a harder disk, waiting times, memory."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from webhook_consumer.entry import Cause
from webhook_consumer.queue.redis import Burial, Delayed
from webhook_shared import redis as store
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring

from conftest import RedisServer
from tests.bench.consume.corpus import TENANT, Payload, entries
from tests.bench.consume.house import (
    LANE,
    MASTER,
    QUEUED_AT_ONCE,
    SENT,
    fill,
    queue_of,
    used_memory_bytes,
    working,
)

POLL_S = 0.01
PACE_PER_S = 1000
PACED_FOR_S = 10
REMEMBERED = 10_000


@asynccontextmanager
async def serving(appendfsync: str = "everysec") -> AsyncIterator[tuple[RedisServer, Client]]:
    """An empty server with an append-only file, and a client."""
    with TemporaryDirectory(prefix="webhook-bench-") as directory:
        server = RedisServer(Path(directory), appendfsync=appendfsync)
        server.start()
        try:
            await server.answering()
            client = store.connect(server.settings)
            yield server, client
            await client.aclose()
        finally:
            server.kill()


async def processes(bodies: Sequence[Payload], count: int, *, number: int, appendfsync: str) -> float:
    """Events per second that so many processes handle together."""
    async with serving(appendfsync) as (server, client), AsyncExitStack() as stack:
        await fill(client, bodies, count)
        await client.xgroup_create(LANE.stream, LANE.group, id="0", mkstream=True)
        address = server.settings.addresses[0]
        started = [await stack.enter_async_context(_process(address)) for _ in range(number)]
        began_s = time.perf_counter()
        for each in started:
            assert each.stdin is not None
            each.stdin.write(b"go\n")
        while await client.xlen(LANE.stream):
            await asyncio.sleep(POLL_S)
        return count / (time.perf_counter() - began_s)


@asynccontextmanager
async def _process(address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "tests.bench.consume.process", address]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    await process.stdout.readline()
    yield process
    process.stdin.close()
    await process.wait()


async def waits(bodies: Sequence[Payload]) -> dict[str, float]:
    """How long events wait from being queued to their handler at PACE_PER_S, milliseconds."""
    async with serving() as (server, client), working(server.settings, client) as handler:
        keyring = Keyring(client, MASTER)
        await keyring.prepare([TENANT])
        began_s = time.monotonic()
        count = PACE_PER_S * PACED_FOR_S
        for number, fields in enumerate(entries(keyring, bodies, count)):
            await asyncio.sleep(max(0.0, began_s + number / PACE_PER_S - time.monotonic()))
            event: dict[Any, Any] = {**fields, SENT: repr(time.monotonic())}
            await client.xadd(LANE.stream, event)
        while handler.opened < count:
            await asyncio.sleep(POLL_S)
        ordered = sorted(handler.waits_s)
    return {
        "handler_wait_p50_ms": round(ordered[len(ordered) // 2] * 1000, 2),
        "handler_wait_p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
    }


async def memory(bodies: Sequence[Payload]) -> dict[str, float]:
    """Bytes of the server's memory per event that is queued, pending, delayed and dead."""
    async with serving() as (server, client), queue_of(server.settings, client) as queue:
        queued = await fill(client, bodies, REMEMBERED)
        without = await used_memory_bytes(client) - queued * REMEMBERED
        await queue.join()
        read = [await queue.read(QUEUED_AT_ONCE) for _ in range(REMEMBERED // QUEUED_AT_ONCE)]
        ids = [entry.id for batch in read for entry in batch]
        pending = await used_memory_bytes(client) - without
        half = len(ids) // 2
        await queue.delay([Delayed(entry_id, 3_600_000, 1) for entry_id in ids])
        delayed = await used_memory_bytes(client) - without
        await client.flushall()
        await fill(client, bodies, half)
        without = await used_memory_bytes(client) - queued * half
        await queue.join()
        read = [await queue.read(QUEUED_AT_ONCE) for _ in range(half // QUEUED_AT_ONCE)]
        ids = [entry.id for batch in read for entry in batch]
        await queue.bury([Burial(entry_id, Cause.PERMANENT, "no such thing", 4) for entry_id in ids])
        dead = await used_memory_bytes(client) - without
    return {
        "bytes_per_pending_event": round(pending / REMEMBERED),
        "bytes_per_delayed_event": round(delayed / REMEMBERED),
        "bytes_per_dead_event": round(dead / half),
    }
