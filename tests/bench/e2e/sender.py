"""The load, in a process of its own: `python -m tests.bench.e2e.sender ADDRESS`, the secret in BENCH_SECRET.

Reads `{"count": n, "rate": r}`, a line each, and sends so many deliveries at that pace, or with a rate of 0
as fast as they are answered. It does not slow down for a slow receiver: latencies count from the moment at
which a delivery was due. Writes a line for each sample as it is answered, and one with figures at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import uvloop

from tests.bench.e2e.deliveries import Talk
from tests.bench.ingest.sender import complete, quantile_ms

CONNECTIONS = 128
SAMPLES_PER_S = 10
FEWEST_BETWEEN_SAMPLES = 10
ACKNOWLEDGED = (200, 202)
NO_ANSWER = b"HTTP/1.1 000"


class Connection(asyncio.Protocol):
    """One keep-alive connection: an answer to each request, one at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport
        self._answer = b""
        self._waiting: asyncio.Future[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the other side still listens."""
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._answer += data
        if complete(self._answer) and self._waiting is not None:
            answer, self._answer = self._answer, b""
            self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for an answer gets none."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(NO_ANSWER)

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send; the future has the answer."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting


class Load:
    """Sends so many deliveries to host:port."""

    def __init__(self, talk: Talk, host: str, port: int) -> None:
        self._talk = talk
        self._target = (host, port)
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self._latencies_s: list[float] = []
        self._statuses: Counter[int] = Counter()

    async def run(self, count: int, rate: float) -> dict[str, Any]:
        """Send them. The figures: how many, how they were answered, how soon."""
        between = max(FEWEST_BETWEEN_SAMPLES, round(rate / SAMPLES_PER_S))
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                due_s = began_s + number / rate if rate else time.monotonic()
                if (ahead_s := due_s - time.monotonic()) > 0:
                    await asyncio.sleep(ahead_s)
                await self._free.acquire()
                sampled = bool(rate) and number % between == 0
                group.create_task(self._send(due_s, sampled=sampled))
        took_s = time.monotonic() - began_s
        ordered = sorted(self._latencies_s)
        acknowledged = sum(self._statuses[status] for status in ACKNOWLEDGED)
        return {
            "sent": count,
            "acknowledged": acknowledged,
            "requests_per_s": count / took_s,
            "http_p50_ms": quantile_ms(ordered, 0.5),
            "http_p99_ms": quantile_ms(ordered, 0.99),
        }

    async def _send(self, due_s: float, *, sampled: bool) -> None:
        request, context_id = self._talk.sample() if sampled else (self._talk.next(), "")
        connection = await self._connection()
        answer = await connection.ask(request)
        self._latencies_s.append(time.monotonic() - due_s)
        self._statuses[int(answer[9:12])] += 1
        self._idle.append(connection)
        self._free.release()
        if sampled:
            print(json.dumps({"context_id": context_id, "due_s": due_s}), flush=True)

    async def _connection(self) -> Connection:
        # Whoever was idle for long has been hung up on.
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._target)
        return connection


async def work(address: str, secret: str) -> None:
    """Do what the lines say."""
    host, _, port = address.rpartition(":")
    talk = Talk(secret, address)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        load = Load(talk, host, int(port))
        print(json.dumps(await load.run(order["count"], order["rate"])), flush=True)


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], os.environ["BENCH_SECRET"]))
